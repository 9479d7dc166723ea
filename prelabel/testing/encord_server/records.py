"""What the platform knows, as plain records. `state.World` makes them and links them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class MediaFacts:
    """Facts of a media file. An image has one frame; `width` and `height` are in pixels of the displayed frame."""

    width: int | None = None
    height: int | None = None
    num_frames: int = 1
    fps: float | None = None
    duration_seconds: float | None = None


def probe_video(path: Path) -> MediaFacts:
    """Returns the facts of a video, with its frames counted one by one.

    Frames are decoded, not read from the header: edit lists and damaged tails make the two differ.
    """
    return _probe_video(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _probe_video(path: Path, _modified_ns: int) -> MediaFacts:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        num_frames, rotation = 0, 0
        for frame in container.decode(stream):
            num_frames += 1
            rotation = frame.rotation
        width, height = stream.width, stream.height
    if rotation % 180:
        width, height = height, width
    return MediaFacts(width, height, num_frames, fps, num_frames / fps)


def probe_image(path: Path) -> MediaFacts:
    from PIL import Image

    with Image.open(path) as image:
        return MediaFacts(*image.size)


@dataclass
class StorageItem:
    """A file, or a group of files, in storage; `path` is its file, None for image groups."""

    uuid: str
    folder_uuid: str
    item_type: str
    name: str
    mime_type: str | None
    path: Path | None
    file_size: int | None
    facts: MediaFacts
    created_at: datetime
    last_edited_at: datetime
    client_metadata: Json = field(default_factory=dict)
    description: str = ""
    children: list[StorageItem] = field(default_factory=list)


@dataclass
class Picture:
    """One image of an image group or sequence."""

    image_hash: str
    item: StorageItem


@dataclass
class DataUnit:
    """What a task is about; `data_type` in the lower-case form of label rows (`video`, `img_group`, …)."""

    data_hash: str
    dataset_hash: str
    dataset_title: str
    title: str
    data_type: str
    item: StorageItem
    pictures: list[Picture] = field(default_factory=list)

    @property
    def num_frames(self) -> int:
        return len(self.pictures) if self.pictures else self.item.facts.num_frames


@dataclass
class Ontology:
    uuid: str
    title: str
    editor: Json
    created_at: datetime
    description: str = ""

    @cached_property
    def shapes(self) -> dict[str, str]:
        """Shape by feature hash, for every object class."""
        return {entry["featureNodeHash"]: entry["shape"] for entry in self.editor["objects"]}

    @cached_property
    def features(self) -> set[str]:
        """Every feature hash: objects, classifications, attributes and options, nested ones too."""
        return set(_feature_hashes(self.editor))


def _feature_hashes(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "featureNodeHash" in node:
            yield node["featureNodeHash"]
        for value in node.values():
            yield from _feature_hashes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _feature_hashes(value)


@dataclass(frozen=True)
class Pathway:
    uuid: str
    title: str
    destination_uuid: str


@dataclass
class Stage:
    uuid: str
    title: str
    stage_type: str  # AGENT, ANNOTATION, REVIEW, DONE
    pathways: list[Pathway] = field(default_factory=list)  # of AGENT stages only


@dataclass
class Task:
    uuid: str
    data: DataUnit
    branch: str
    stage: Stage
    arrived: int  # running number of the arrival at the stage; breaks ties of priority
    created_at: datetime
    updated_at: datetime
    priority: float = 0.5
    status: str = "NEW"
    assignee: str | None = None
    last_actioned_by: str | None = None

    @property
    def queue_place(self) -> tuple[float, int]:
        return (-self.priority, self.arrived)


@dataclass
class LabelRow:
    """The stored labels of one data unit on one branch; `labels` by hash of the video, image or picture."""

    label_hash: str
    data: DataUnit
    branch: str
    created_at: datetime
    last_edited_at: datetime
    labels: dict[str, Json]
    object_answers: Json = field(default_factory=dict)
    classification_answers: Json = field(default_factory=dict)
    object_actions: Json = field(default_factory=dict)
    label_status: str = "LABEL_IN_PROGRESS"
    version: int = 1
    validation_errors: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        return not self.validation_errors

    def objects(self) -> list[tuple[int, Json]]:
        """Every object instance on every frame, with its frame index, in frame order."""
        if self.data.data_type in ("image", "img_group"):
            frames = list(enumerate(self.labels.values()))
        else:
            (by_frame,) = self.labels.values()
            frames = [(int(frame), by_frame[frame]) for frame in sorted(by_frame, key=int)]
        return [(frame, entry) for frame, labels in frames for entry in labels.get("objects", ())]


@dataclass
class Project:
    uuid: str
    title: str
    ontology: Ontology
    stages: list[Stage]
    created_at: datetime
    status: str = "inProgress"
    description: str = ""
    members: set[str] | None = None  # e-mails that may enter; None: everybody with a key
    units: dict[str, DataUnit] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    rows: dict[str, LabelRow] = field(default_factory=dict)
    row_of: dict[tuple[str, str], LabelRow] = field(default_factory=dict)  # by data hash and branch
    task_of: dict[tuple[str, str], Task] = field(default_factory=dict)  # by data hash and branch
    issues: list[Issue] = field(default_factory=list)

    def stage(self, name: str) -> Stage:
        """The stage of this title or uuid."""
        return next(stage for stage in self.stages if name in (stage.title, stage.uuid))

    def row(self, data: DataUnit, branch: str = "main") -> LabelRow | None:
        return self.row_of.get((data.data_hash, branch))

    def tasks_at(self, name: str) -> list[Task]:
        """The tasks that wait at a stage, in the order in which the API lists them."""
        stage = self.stage(name)
        return sorted((task for task in self.tasks.values() if task.stage is stage), key=lambda t: t.queue_place)

    def titles_at(self, name: str) -> list[str]:
        """The titles of the tasks waiting at a stage, sorted, since threads may move them in any order."""
        return sorted(task.data.title for task in self.tasks_at(name))


@dataclass(frozen=True)
class Issue:
    uuid: str
    at: datetime
    user: str
    anchor: Json
    comment: str


@dataclass(frozen=True)
class Move:
    """A task that changed stage; `pathway` is the uuid of the agent's pathway, None for other ways."""

    at: datetime
    task: Task
    origin: Stage
    destination: Stage
    pathway: str | None
    user: str


@dataclass(frozen=True)
class Save:
    """A label row that was stored. The request's bytes are kept, so `document` is what was sent, untouched."""

    at: datetime
    label_hash: str
    user: str
    request_body: bytes

    @property
    def document(self) -> Json:
        """The whole label row as the caller sent it."""
        values: Json = json.loads(self.request_body)["values"]
        uid, payload = values["uid"], values["payload"]
        document: Json = payload if isinstance(uid, str) else payload["labels"][uid.index(self.label_hash)]
        return document


@dataclass(frozen=True)
class SignedLink:
    at: datetime
    item_uuid: str
    url: str
    expires_at: datetime


@dataclass
class Download:
    at: datetime
    item_uuid: str
    range_header: str | None
    status: int
    num_bytes: int = 0  # of the body, as far as it was sent

    def count(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
