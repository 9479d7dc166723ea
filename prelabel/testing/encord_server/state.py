"""The world: projects, data, tasks, labels, and a record of what happened to them."""

from __future__ import annotations

import itertools
import mimetypes
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from .ontologies import roads
from .records import (
    DataUnit,
    Download,
    Json,
    MediaFacts,
    Move,
    Ontology,
    Pathway,
    Picture,
    Project,
    Save,
    SignedLink,
    Stage,
    StorageItem,
    Task,
    probe_image,
    probe_video,
)

# Titles of the default workflow. Most pathways have another title than their stage, as on the platform.
AGENT = "Pre-Labeling Agent"
ANNOTATE = "Annotate 1"
REVIEW = "Review 1"
COMPLETE = "Complete"
DEFAULT_STAGES = {AGENT: "AGENT", ANNOTATE: "ANNOTATION", REVIEW: "REVIEW", COMPLETE: "DONE"}
DEFAULT_PATHWAYS = {"Annotate 1": ANNOTATE, "Straight to review": REVIEW, "Nothing to label": COMPLETE}

_ITEM_TYPES = {"audio": "audio", "pdf": "pdf", "plain_text": "plainText"}


class Clock:
    """The world's time: the real time, plus the seconds by which a test has advanced it."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


class World:
    """Everything that the server knows. A request holds `lock` while it runs; hold it to read several values."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.projects: dict[str, Project] = {}
        self.ontologies: dict[str, Ontology] = {}
        self.items: dict[str, StorageItem] = {}
        self.saves: list[Save] = []
        self.moves: list[Move] = []
        self.links: list[SignedLink] = []
        self.downloads: list[Download] = []
        self._arrivals = itertools.count()
        self._folder_uuid = str(uuid4())
        self._dataset_hash = str(uuid4())

    def add_ontology(self, editor: Json | None = None, *, title: str = "Roads") -> Ontology:
        """An ontology from the editor's JSON (`ontologies.editor`, or an SDK structure's `to_dict()`)."""
        ontology = Ontology(str(uuid4()), title, roads() if editor is None else editor, self.clock.now())
        self.ontologies[ontology.uuid] = ontology
        return ontology

    def add_project(
        self,
        title: str = "Road users",
        *,
        ontology: Ontology | None = None,
        stages: Mapping[str, str] = DEFAULT_STAGES,
        pathways: Mapping[str, str] = DEFAULT_PATHWAYS,
    ) -> Project:
        """A workflow project: stage types by title, and for its agent stages the pathways' destinations by title."""
        made = {name: Stage(str(uuid4()), name, stage_type) for name, stage_type in stages.items()}
        for stage in made.values():
            if stage.stage_type == "AGENT":
                stage.pathways = [Pathway(str(uuid4()), name, made[to].uuid) for name, to in pathways.items()]
        chosen = ontology or self.add_ontology()
        project = Project(str(uuid4()), title, chosen, list(made.values()), self.clock.now())
        self.projects[project.uuid] = project
        return project

    def add_video(
        self,
        path: Path,
        *,
        title: str | None = None,
        client_metadata: Json | None = None,
        facts: MediaFacts | None = None,
    ) -> DataUnit:
        """A video; its facts are found by decoding it unless given, as for a file that does not decode."""
        item = self._add_item("video", path, facts or probe_video(path), title, client_metadata)
        return self._as_unit("video", item)

    def add_image(self, path: Path, *, title: str | None = None, client_metadata: Json | None = None) -> DataUnit:
        return self._as_unit("image", self._add_item("image", path, probe_image(path), title, client_metadata))

    def add_other(self, path: Path, data_type: str, *, title: str | None = None) -> DataUnit:
        """A file of a kind that carries no frames: `audio`, `pdf` or `plain_text`."""
        item = self._add_item(_ITEM_TYPES[data_type], path, MediaFacts(), title)
        return self._as_unit(data_type, item)

    def add_image_group(self, paths: Sequence[Path], *, title: str = "group") -> DataUnit:
        """Images that are labelled together. The group has no file of its own, each image has."""
        children = [self._add_item("image", path, probe_image(path)) for path in paths]
        item = self._add_item("imageGroup", None, MediaFacts(num_frames=len(children)), title=title)
        return self._as_group(item, children)

    def add_image_sequence(self, video: Path, *, title: str = "sequence") -> DataUnit:
        """Images that the platform keeps as the frames of one video. The group has a file, the images have none."""
        facts = probe_video(video)
        frame = replace(facts, num_frames=1, fps=None, duration_seconds=None)
        children = [self._add_item("image", None, frame, title=f"{n}.jpg") for n in range(facts.num_frames)]
        return self._as_group(self._add_item("imageSequence", video, facts, title=title), children)

    def add_task(
        self, stage: Stage, data: DataUnit, *, branch: str = "main", priority: float = 0.5, status: str = "NEW"
    ) -> Task:
        """A task for this data at this stage; the data joins the stage's project.

        Raises:
            ValueError: The data has a task on this branch already: a data unit goes through a workflow once.
        """
        project = next(project for project in self.projects.values() if stage in project.stages)
        if (data.data_hash, branch) in project.task_of:
            raise ValueError(f"{data.title} has a task on branch {branch} of {project.title} already")
        now = self.clock.now()
        task = Task(str(uuid4()), data, branch, stage, next(self._arrivals), now, now, priority, status)
        with self.lock:
            project.units[data.data_hash] = data
            project.tasks[task.uuid] = task
            project.task_of[data.data_hash, branch] = task
        return task

    def move_task(self, task: Task, destination: Stage, *, user: str, pathway: str | None = None) -> None:
        """Moves a task to the end of another stage's queue."""
        with self.lock:
            origin, task.stage = task.stage, destination
            task.arrived, task.updated_at = next(self._arrivals), self.clock.now()
            task.status, task.assignee, task.last_actioned_by = "NEW", None, user
            self.moves.append(Move(task.updated_at, task, origin, destination, pathway, user))

    def _add_item(
        self,
        item_type: str,
        path: Path | None,
        facts: MediaFacts,
        title: str | None = None,
        client_metadata: Json | None = None,
    ) -> StorageItem:
        now = self.clock.now()
        item = StorageItem(
            uuid=str(uuid4()),
            folder_uuid=self._folder_uuid,
            item_type=item_type,
            name=title or (path.name if path else item_type),
            mime_type=mimetypes.guess_type(path.name)[0] if path else None,
            path=path,
            file_size=path.stat().st_size if path else None,
            facts=facts,
            created_at=now,
            last_edited_at=now,
            client_metadata=client_metadata or {},
        )
        self.items[item.uuid] = item
        return item

    def _as_group(self, item: StorageItem, children: Iterable[StorageItem]) -> DataUnit:
        item.children = list(children)
        pictures = [Picture(str(uuid4()), child) for child in item.children]
        return self._as_unit("img_group", item, pictures)

    def _as_unit(self, data_type: str, item: StorageItem, pictures: list[Picture] | None = None) -> DataUnit:
        dataset_title = "Footage"
        return DataUnit(str(uuid4()), self._dataset_hash, dataset_title, item.name, data_type, item, pictures or [])
