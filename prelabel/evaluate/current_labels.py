"""The labels that stand now: on the platform, in exported files, or in a ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.encord.client import ROWS_A_REQUEST, EncordProject
from prelabel.errors import ConfigError, FetchError, TaskError
from prelabel.evaluate.boxes import Boxes, boxes_of_corners
from prelabel.evaluate.coco import CocoFile
from prelabel.files.folder_sink import LABELS_ENDING
from prelabel.labels.row.offline import data_hash_of
from prelabel.labels.row.own import LabelRow
from prelabel.runtime.files import DRY_RUN, read_json
from prelabel.store.ledger import Entry
from prelabel.store.run_folder import RunFolder

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


class NotThereError(TaskError):
    """The labels of this task cannot be compared, and the reason why."""


class CurrentLabels(Protocol):
    """Label rows by task."""

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the label row of a task as it stands now.

        Raises:
            NotThereError: there is none, or it is not yet to be compared.
            TaskError: it cannot be had.
        """

    def describe(self) -> str:
        """Returns where they are, in words."""


@dataclass(frozen=True)
class ProjectRows:
    """Rows of an Encord project. Nothing on the platform is changed.

    Attributes:
        project: where.
        stages: titles or uuids of the stages at which tasks are compared; none: those at which the workflow ends.
        entries: the tasks, listed together in few requests.
    """

    project: EncordProject
    stages: tuple[str, ...]
    entries: Sequence[Entry]

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row's labels as the platform has them."""
        from prelabel.encord.client import labels_as_sent

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
        hashes: dict[str, list[str]] = {}
        for entry in self.entries:
            _, data_hash, branch = entry.key.split("/", 2)
            hashes.setdefault(branch, []).append(data_hash)
        return {
            f"{self.project.project_hash}/{row.data_hash}/{branch}": row
            for branch, all_of in hashes.items()
            for start in range(0, len(all_of), ROWS_A_REQUEST)
            for row in self._listed(all_of[start : start + ROWS_A_REQUEST], branch)
        }

    def _listed(self, data_hashes: Sequence[str], branch: str) -> list[LabelRowV2]:
        doing = f"project {self.project.title!r}: listing {len(data_hashes)} label rows"
        return self.project.caller.call(doing, lambda: self.project.label_rows(data_hashes, branch), FetchError)


@dataclass(frozen=True)
class OutputRows:
    """Label rows in the files in which a run left them, read one at a time.

    Attributes:
        store: the run's output.
    """

    store: RunFolder

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row of the task's file."""
        path = self.store.path(entry, LABELS_ENDING)
        if not path.exists():
            raise NotThereError(f"has no label row in {self.store.output}")
        rows = _rows_in(read_json(path, NotThereError))
        if len(rows) != 1:
            raise NotThereError(f"{path} is no label row")
        return rows[0]

    def describe(self) -> str:
        """Returns the folder."""
        return f"the label rows in {self.store.output}"


@dataclass(frozen=True)
class RowFiles:
    """Label rows in files, as the SDK, the web app or `prelabel export` writes them, one or several a file.

    Attributes:
        path: a JSON file, or a folder that is searched through; other JSON files in it are passed over, and so is what
            a dry run left there.
    """

    path: Path

    def row_of(self, entry: Entry) -> LabelRow:
        """Returns the row of the task's data, else the only one of its title."""
        data_hash = entry.key.split("/")[1] if entry.key.count("/") >= 2 else ""
        for identity in (data_hash_of(entry.key), data_hash):
            if identity in self._by_hash:
                return self._by_hash[identity]
        titled = [row for row in self._by_hash.values() if _is_called(row, entry.title)]
        if len(titled) != 1:
            raise NotThereError(f"{self.path} has {len(titled) or 'no'} label rows of that title")
        return titled[0]

    def describe(self) -> str:
        """Returns the path."""
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
    """Ground truth, its images matched by video and frame index.

    Attributes:
        file: the COCO file.
        class_names: as the labels are called; the truth's are taken for them whatever the case.
    """

    file: CocoFile
    class_names: tuple[str, ...]

    def boxes_of(self, title: str, info: VideoInfo, frames: NDArray[np.int64]) -> tuple[Boxes, NDArray[np.int64]]:
        """Returns the truth of a video, and the frames that both it and `frames`, rising, have.

        Raises:
            NotThereError: it has none of these frames.
        """
        ids = {frame: self.file.find_image([(title, frame)]) for frame in frames.tolist()}
        common = np.array([frame for frame, image_id in ids.items() if image_id is not None], np.int64)
        if not len(common):
            raise NotThereError(f"{self.file.path} has no image of frame {int(frames[0])} of {title!r}")
        found = [
            (frame, self._class_of(entry["category_id"]), entry["bbox"])
            for frame, image_id in ids.items()
            if image_id is not None
            for entry in self._by_image.get(image_id, ())
        ]
        frame_index = np.array([frame for frame, _, _ in found], np.int64)
        xywh = np.array([bbox for _, _, bbox in found], np.float64).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        return boxes_of_corners(frame_index, xyxy, info, [name for _, name, _ in found]), common

    def describe(self) -> str:
        """Returns the path."""
        return f"ground truth {self.file.path}"

    def _class_of(self, category_id: int) -> str:
        name = self.file.category_names[category_id]
        return self._known_names.get(name.casefold(), name)

    @cached_property
    def _known_names(self) -> dict[str, str]:
        return {name.casefold(): name for name in self.class_names}

    @cached_property
    def _by_image(self) -> Mapping[int, list[dict[str, Any]]]:
        by_image: dict[int, list[dict[str, Any]]] = {}
        for entry in self.file.annotations:
            if not entry.get("iscrowd") and entry["category_id"] in self.file.category_names:
                by_image.setdefault(entry["image_id"], []).append(entry)
        return by_image


def is_coco(path: Path) -> bool:
    """Tells whether a path is a COCO file, as told from label rows."""
    if not path.is_file():
        return False
    document = read_json(path, ConfigError)
    return isinstance(document, dict) and "annotations" in document and "images" in document


def explain_skipped(reasons: Sequence[str]) -> str:
    """Returns the reasons with how often each came, the most frequent first.

    >>> explain_skipped(["is at stage 'A'", "is gone", "is at stage 'A'"])
    "2: is at stage 'A'; 1: is gone"
    """
    return "; ".join(f"{num}: {reason}" for reason, num in Counter(reasons).most_common())


def _json_files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.json") if path.relative_to(folder).parts[0] != DRY_RUN)


def _rows_in(document: object) -> list[LabelRow]:
    entries = document if isinstance(document, list) else [document]
    parts = ("data_units", "object_answers", "data_hash", "data_type")
    return [entry for entry in entries if isinstance(entry, dict) and all(part in entry for part in parts)]


def _is_called(row: LabelRow, title: str) -> bool:
    return row.get("data_title") in (title, PurePosixPath(title).name)
