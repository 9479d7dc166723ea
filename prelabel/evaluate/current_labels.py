"""Reads the current labels from the platform, from exported files, or from a ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.encord.project import EncordProject, labels_as_sent
from prelabel.errors import ConfigError, FetchError, TaskError
from prelabel.evaluate.coco import CocoFile
from prelabel.evaluate.compare import Boxes, boxes_of_corners
from prelabel.files.folder_sink import LABELS_ENDING
from prelabel.labels.row.offline import data_hash_of
from prelabel.labels.row.own import LabelRow
from prelabel.runtime.files import DRY_RUN, read_json
from prelabel.store.ledger import Entry
from prelabel.store.run_folder import RunFolder

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


class NotThereError(TaskError):
    """Raised if the labels of a task cannot be compared; the message says why."""


class CurrentLabels(Protocol):
    """The current label rows of tasks."""

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the current label row of a task.

        Raises:
            NotThereError: the task has no label row, or it is not yet at a stage to compare.
            TaskError: the row cannot be read.
        """

    def describe(self) -> str:
        """Returns the place of the labels, in words."""


@dataclass(frozen=True)
class ProjectRows:
    """The label rows of an Encord project. It changes nothing on the platform.

    Attributes:
        project: the project.
        stages: titles or uuids of the stages at which to compare tasks; empty for the stages at which the workflow
            ends.
        entries: all tasks to compare, so that few requests list them.
    """

    project: EncordProject
    stages: tuple[str, ...]
    entries: Sequence[Entry]

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row as the platform sends it."""
        row = self._rows.get(entry.key)
        if row is None:
            raise NotThereError("is not in the project any more")
        if row.label_hash is None:
            raise NotThereError("has no labels on the platform yet")
        node = row.workflow_graph_node
        if node is None:
            raise NotThereError("is at no stage of the workflow")
        if str(node.uuid) not in self._stage_uuids:
            raise NotThereError(f"is at stage {node.title!r} (to compare it there: --stage {node.title!r})")
        return self.project.caller.call(f"{entry.title}: reading its labels", lambda: labels_as_sent(row), FetchError)

    def describe(self) -> str:
        """Returns the project and the stages."""
        stages = self.project.sdk.workflow.stages
        titles = ", ".join(repr(stage.title) for stage in stages if str(stage.uuid) in self._stage_uuids)
        return f"project {self.project.title!r}, tasks at {titles}"

    @cached_property
    def _stage_uuids(self) -> frozenset[str]:
        stages = self.project.sdk.workflow.stages
        if not self.stages:
            return frozenset(str(stage.uuid) for stage in stages if stage.stage_type.value == "DONE")
        uuids = set()
        for name in self.stages:
            found = [str(stage.uuid) for stage in stages if name in (stage.title, str(stage.uuid))]
            if not found:
                known = ", ".join(repr(stage.title) for stage in stages)
                raise ConfigError(f"--stage {name}: project {self.project.title!r} has no such stage: it has {known}")
            uuids.update(found)
        return frozenset(uuids)

    @cached_property
    def _rows(self) -> dict[str, LabelRowV2]:
        doing = f"project {self.project.title!r}: listing {len(self.entries)} label rows"
        return self.project.find_rows([entry.key for entry in self.entries], doing, FetchError)


@dataclass(frozen=True)
class OutputRows:
    """The label rows in the files that a run wrote, read one at a time.

    Attributes:
        store: the output folder of the run.
    """

    store: RunFolder

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row of the task's file."""
        path = self.store.path(entry, LABELS_ENDING)
        self.store.refresh(path)
        if not path.exists():
            raise NotThereError(f"has no label row in {self.store.output}")
        rows = _rows_in(read_json(path, NotThereError))
        if len(rows) != 1:
            raise NotThereError(f"{path}: expected one label row, got {len(rows)}")
        return rows[0]

    def describe(self) -> str:
        """Returns the folder, in words."""
        return f"the label rows in {self.store.described}"


@dataclass(frozen=True)
class RowFiles:
    """The label rows in files of the SDK, the web app or `prelabel export`, one or several in each file.

    Attributes:
        path: a JSON file, or a folder to search. Other JSON files in it, and the output of dry runs, are ignored.
    """

    path: Path

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row with the task's data hash, otherwise the only row with its title."""
        data_hash = entry.key.split("/")[1] if entry.key.count("/") >= 2 else ""
        for identity in (data_hash_of(entry.key), data_hash):
            if identity in self._by_hash:
                return self._by_hash[identity]
        names = (entry.title, PurePosixPath(entry.title).name)
        titled = [row for row in self._by_hash.values() if row.get("data_title") in names]
        if len(titled) != 1:
            raise NotThereError(f"{self.path} has {len(titled) or 'no'} label rows of that title")
        return titled[0]

    def describe(self) -> str:
        """Returns the number of rows and the path, in words."""
        return f"{len(self._by_hash)} label rows in {self.path}"

    @cached_property
    def _by_hash(self) -> dict[str, LabelRow]:
        paths = sorted(_json_files_below(self.path)) if self.path.is_dir() else [self.path]
        rows = {row["data_hash"]: row for path in paths for row in _rows_in(read_json(path, ConfigError))}
        if not rows:
            raise ConfigError(f"{self.path}: got no Encord label row, expected JSON with data_units and object_answers")
        return rows


@dataclass(frozen=True)
class CocoTruth:
    """A COCO ground truth, whose images match by video and frame index.

    Attributes:
        file: the COCO file.
        class_names: names of the labels; the names in the ground truth match them regardless of case.
        has_tracks: whether annotations with the same `track_id` in a video are one instance.
    """

    file: CocoFile
    class_names: tuple[str, ...]
    has_tracks: bool

    def boxes_of(self, title: str, info: VideoInfo, frames: NDArray[np.int64]) -> tuple[Boxes, NDArray[np.int64]]:
        """Returns the true boxes of a video, and the frames to compare, int64 (K,), rising.

        Args:
            title: of the video.
            info: the video.
            frames: int64 (M,), rising. Those that the ground truth has too are compared.

        Raises:
            NotThereError: the ground truth has none of these frames.
        """
        ids = {frame: self.file.find_image([(title, frame)]) for frame in frames.tolist()}
        common = np.array([frame for frame, image_id in ids.items() if image_id is not None], np.int64)
        if not len(common):
            raise NotThereError(f"{self.file.path} has no image of frame {int(frames[0])} of {title!r}")
        entries = [
            (frame, entry)
            for frame, image_id in ids.items()
            if image_id is not None
            for entry in self._by_image.get(image_id, ())
        ]
        xywh = np.array([entry["bbox"] for _, entry in entries], np.float64).reshape(-1, 4)
        track_id = [entry.get("track_id", -1) if self.has_tracks else -1 for _, entry in entries]
        boxes = boxes_of_corners(
            np.array([frame for frame, _ in entries], np.int64),
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            info,
            [self._class_names[entry["category_id"]] for _, entry in entries],
            instance=np.array(track_id, np.int64),
        )
        # The truth numbers its tracks as prelabel does. Boxes of equal instances would count as the same thing.
        named = np.where(boxes.instance == "", "", np.char.add("truth ", boxes.instance))
        return replace(boxes, instance=named), common

    def describe(self) -> str:
        """Returns the path, in words."""
        return f"ground truth {self.file.path}"

    @cached_property
    def _class_names(self) -> dict[int, str]:
        """The names by category id, spelt as in the labels."""
        known = {name.casefold(): name for name in self.class_names}
        return {number: known.get(name.casefold(), name) for number, name in self.file.category_names.items()}

    @cached_property
    def _by_image(self) -> Mapping[int, list[dict[str, Any]]]:
        by_image: dict[int, list[dict[str, Any]]] = {}
        for entry in self.file.annotations:
            if not entry.get("iscrowd") and entry["category_id"] in self.file.category_names:
                by_image.setdefault(entry["image_id"], []).append(entry)
        return by_image


def is_coco(path: Path) -> bool:
    """Returns whether a path is a COCO file, not a file or folder of label rows."""
    if not path.is_file():
        return False
    document = read_json(path, ConfigError)
    return isinstance(document, dict) and "annotations" in document and "images" in document


def explain_skipped(reasons: Sequence[str]) -> str:
    """Returns the reasons with their counts, the most frequent first.

    >>> explain_skipped(["is at stage 'A'", "is gone", "is at stage 'A'"])
    "2 tasks: is at stage 'A'; 1 task: is gone"
    """
    counts = Counter(reasons).most_common()
    return "; ".join(f"{num} task{'s' * (num != 1)}: {reason}" for reason, num in counts)


def _json_files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.json") if path.relative_to(folder).parts[0] != DRY_RUN)


def _rows_in(document: object) -> list[LabelRow]:
    entries = document if isinstance(document, list) else [document]
    parts = ("data_units", "object_answers", "data_hash", "data_type")
    return [entry for entry in entries if isinstance(entry, dict) and all(part in entry for part in parts)]
