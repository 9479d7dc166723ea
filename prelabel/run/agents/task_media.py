"""A task's files and frames, as a user's function gets them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.assembly.assemble import Assembly
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media, VideoInfo
from prelabel.data.label_map import NO_BOXES
from prelabel.encord.project import as_encord_task
from prelabel.encord.sink import EncordSink
from prelabel.errors import ReadError, SaveError
from prelabel.files.folder_sink import LABELS_ENDING, write_row
from prelabel.labels.row.offline import EditableRow, added_labels, labels_of
from prelabel.labels.row.own import LabelRow, WrittenRow
from prelabel.labels.row.size import check_row_size
from prelabel.media.open import FramePolicy, OpenFrames, open_frames
from prelabel.plugins.protocols import Task
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image


FRAMES_A_BATCH = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a video, or an image.

    Attributes:
        frame_index: 0-based, as the platform counts.
        pts_seconds: time at which it is shown.
        array: uint8 (H, W, 3), RGB, displayed orientation.
    """

    frame_index: int
    pts_seconds: float
    array: NDArray[np.uint8]

    @property
    def image(self) -> Image:
        """The same, as Pillow has it."""
        from PIL import Image

        return Image.fromarray(self.array)


@dataclass(frozen=True)
class TaskMedia:
    """The files of a task, here until the function returns, and their frames by the reader of the config.

    Attributes:
        media: the files.
        title: of the task.
        key: of the task.
        promised_frames: frames that the platform says there are; None where nothing promises a number.
        reader: the config's section.
        folder: what plug-in paths are relative to.
        policy: `strict`: frames that are missing fail the task; `warn`: what can be read is read.
        progress: told of every batch.
        stop: asked before every batch.
    """

    media: Media
    title: str
    key: str
    promised_frames: int | None
    reader: ReaderSection
    folder: Path
    policy: FramePolicy
    progress: Progress
    stop: StopSignal
    _seen: list[VideoInfo] = field(default_factory=list, repr=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files: one of a video, an image or a document, several of an image group, in frame order."""
        return self.media.paths

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            ReadError: there are several.
        """
        if len(self.paths) != 1:
            raise ReadError(f"{self.title}: is {len(self.paths)} files: use media.paths")
        return self.paths[0]

    @cached_property
    def info(self) -> VideoInfo:
        """The video, or the images, as they are shown.

        Raises:
            ReadError: they cannot be read, or are of a kind that has no frames.
        """
        with self._open():
            return self._seen[0]

    @property
    def known_info(self) -> VideoInfo | None:
        """The same, if it was read already."""
        return self._seen[0] if self._seen else None

    def frames(self, frame_indices: Iterable[int] | None = None) -> Iterator[Frame]:
        """Yields frames in order, read afresh at each call.

        Args:
            frame_indices: which, rising; default: those that the config's section `reader` says, all if it says none.

        Raises:
            ReadError: as soon as one cannot be had; a stream ends short only under `frames: warn`.
        """
        with self._open() as opened:
            wanted = opened.wanted if frame_indices is None else self._checked(frame_indices, opened)
            self.progress.begin(self.title, len(wanted), self.key)
            with closing(opened.batches(wanted, FRAMES_A_BATCH)) as batches:
                for batch in batches:
                    self.stop.check()
                    arrays = batch.data.cpu().numpy()
                    for number, index in enumerate(batch.frame_indices.tolist()):
                        yield Frame(index, float(batch.pts_seconds[number]), arrays[number].copy())
                    self.progress.frames(len(batch))

    def image(self, frame_index: int = 0) -> Image:
        """Returns a frame as Pillow has it; raises as `frame` does."""
        return self.frame(frame_index).image

    def frame(self, frame_index: int = 0) -> Frame:
        """Returns a frame.

        Raises:
            ReadError: it cannot be had, under `frames: warn` too.
        """
        (frame,) = self.frames([frame_index])
        return frame

    @contextmanager
    def _open(self) -> Iterator[OpenFrames]:
        if self.media.kind not in ("video", "images"):
            raise ReadError(f"{self.title}: is of a kind that has no frames: media.path is the file itself")
        with open_frames(self.media, self.reader, self.folder, self.policy, self.promised_frames, self.title) as opened:
            self._seen.append(opened.info)
            yield opened

    def _checked(self, frame_indices: Iterable[int], opened: OpenFrames) -> NDArray[np.int64]:
        wanted, num_frames = np.array(list(frame_indices), np.int64), opened.info.num_frames
        if (np.diff(wanted) < 1).any() or (len(wanted) and not 0 <= wanted[0] <= wanted[-1] < num_frames):
            raise ReadError(f"{self.title}: frames: expected rising numbers from 0 to {num_frames - 1}")
        return wanted


@dataclass(frozen=True, slots=True)
class EditedRow:
    """A label row that a function has changed, as plain values.

    Attributes:
        sent: as the platform, or the file, had it.
        before: as the SDK writes it, unchanged.
        changed: as it is to be saved.
    """

    sent: LabelRow
    before: LabelRow
    changed: LabelRow


@dataclass(frozen=True, slots=True)
class FunctionRows:
    """Label rows that a function may edit.

    Rows of Encord tasks are read and saved there; a dry run reads them there and saves them to files. All other rows
    are files in the output.

    Attributes:
        assembly: the parts.
    """

    assembly: Assembly

    @property
    def warnings(self) -> Sequence[str]:
        """Those of the platform's sink."""
        return self._platform.warnings if self.assembly.on_platform and not self.assembly.dry_run else ()

    def checkout(self, task: Task, read_info: Callable[[], VideoInfo]) -> EditableRow:
        """Returns a task's row, for a function to change; makes one if there is none.

        Args:
            task: whose row.
            read_info: reads the head of the task's media; only called for rows in files.
        """
        if not self.assembly.on_platform:
            return self.assembly.file_rows.checkout(task, read_info())
        if self.assembly.dry_run:
            sink = EncordSink(self.assembly.encord, NO_BOXES, self.assembly.row_options)
            return sink.peek(as_encord_task(task), self.assembly.ontology)
        return self._platform.checkout(as_encord_task(task))

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Saves what the function has made of a row: all or nothing.

        Args:
            task: whose row; on the platform it must still wait.
            edited: the row before and after.
            info: of the task's media; needed for rows in files.

        Raises:
            LabelError: the row cannot be written as it is.
            SaveError: it was not taken, or somebody has changed the row since it was checked out.
        """
        if not self.assembly.on_platform:
            assert info is not None  # read when the row was checked out
            self.assembly.file_rows.edit(task, info, _change(task, edited))
        elif self.assembly.dry_run:
            check_row_size(edited.changed, self.assembly.row_options.max_row_bytes)
            write_row(self.assembly.store.path(task, LABELS_ENDING), edited.changed)
        else:
            self._platform.save_changed(as_encord_task(task), _change(task, edited))

    @property
    def _platform(self) -> EncordSink:
        rows = self.assembly.rows
        assert isinstance(rows, EncordSink)
        return rows


def _change(task: Task, edited: EditedRow) -> Callable[[LabelRow, datetime], WrittenRow]:
    """Returns what puts a changed row in the place of the one that was checked out, and of no other."""

    def change(row: LabelRow, now: datetime) -> WrittenRow:
        # The changed row is there already where the answer to an earlier save was lost.
        if labels_of(row) not in (labels_of(edited.sent), labels_of(edited.changed)):
            raise SaveError(
                f"{task.title}: somebody changed its labels while the function had them: nothing was saved; the next "
                "run calls the function again"
            )
        changed = edited.changed
        num_added = len(added_labels(edited.before, changed))
        num_kept = len(changed["object_answers"]) + len(changed["classification_answers"]) - num_added
        return WrittenRow(changed, num_instances=num_added, num_replaced=0, num_kept=num_kept, num_taken_over=0)

    return change
