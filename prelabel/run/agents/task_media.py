"""The files, frames and label row of a task, as a user's function gets them."""

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
        frame_index: 0-based number of the frame, as on the platform.
        pts_seconds: time at which the frame is displayed.
        array: uint8 (H, W, 3), RGB, displayed orientation.
    """

    frame_index: int
    pts_seconds: float
    array: NDArray[np.uint8]

    @property
    def image(self) -> Image:
        """The frame as a Pillow image."""
        from PIL import Image

        return Image.fromarray(self.array)


@dataclass(frozen=True)
class TaskMedia:
    """The files of a task, which exist until the function returns, and their frames.

    The config's reader decodes the frames.

    Attributes:
        media: the files.
        title: title of the task.
        key: key of the task.
        promised_frames: number of frames according to the platform; None if it states none.
        reader: the config's section `reader`.
        folder: folder that plug-in paths are relative to.
        policy: `strict`: missing frames fail the task; `warn`: readable frames are used.
        progress: notified of every batch.
        stop: checked before every batch.
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
    _problems: dict[str, None] = field(default_factory=dict, repr=False)  # each once, in order

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files: one for a video, an image or a document; several for an image group, in frame order."""
        return self.media.paths

    @property
    def path(self) -> Path:
        """The only file.

        Raises:
            ReadError: there are several files.
        """
        if len(self.paths) != 1:
            raise ReadError(f"{self.title}: is {len(self.paths)} files: use media.paths")
        return self.paths[0]

    @cached_property
    def info(self) -> VideoInfo:
        """Size, length and frame rate of the media, as displayed.

        Raises:
            ReadError: the media cannot be read, or have no frames.
        """
        with self._open():
            return self._seen[0]

    @property
    def known_info(self) -> VideoInfo | None:
        """The value of `info` if it was read already; otherwise None."""
        return self._seen[0] if self._seen else None

    @property
    def partial(self) -> str | None:
        """What `frames` left out under `frames: warn`; None if nothing."""
        return "; ".join(self._problems) or None

    def frames(self, frame_indices: Iterable[int] | None = None) -> Iterator[Frame]:
        """Yields frames in order. Each call decodes them again.

        Args:
            frame_indices: increasing frame indices; by default those that the config's section `reader` selects.

        Raises:
            ReadError: a frame cannot be read. Only under `frames: warn` does the iterator end early instead.
        """
        with self._open() as opened:
            wanted = opened.wanted if frame_indices is None else self._checked(frame_indices, opened)
            self.progress.begin(self.title, len(wanted), self.key)
            with closing(opened.batches(wanted, FRAMES_A_BATCH)) as batches:
                for batch in batches:
                    self.stop.check()
                    arrays = batch.array
                    for number, index in enumerate(batch.frame_indices.tolist()):
                        yield Frame(index, float(batch.pts_seconds[number]), arrays[number].copy())
                    self.progress.frames(len(batch))
            self._problems.update(dict.fromkeys(opened.problems))

    def image(self, frame_index: int = 0) -> Image:
        """Returns a frame as a Pillow image. It raises the same errors as `frame`."""
        return self.frame(frame_index).image

    def frame(self, frame_index: int = 0) -> Frame:
        """Returns one frame.

        Raises:
            ReadError: the frame cannot be read, even under `frames: warn`.
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
        sent: the row as the platform sent it, or as it was read from the file.
        before: the unchanged row as the SDK writes it.
        changed: the row to save.
    """

    sent: LabelRow
    before: LabelRow
    changed: LabelRow


@dataclass(frozen=True, slots=True)
class FunctionRows:
    """Reads and saves label rows that a function may edit.

    Rows of Encord tasks are read from and saved to the platform. A dry run reads them there but saves them to files.
    All other rows are files in the output.

    Attributes:
        assembly: the components of the run.
    """

    assembly: Assembly

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of the platform's sink."""
        return self._platform.warnings if self.assembly.on_platform and not self.assembly.dry_run else ()

    def checkout(self, task: Task, read_info: Callable[[], VideoInfo]) -> EditableRow:
        """Returns a task's label row for a function to change, and creates it if there is none.

        Args:
            task: the task of the row.
            read_info: reads the `VideoInfo` of the task's media; called only for rows in files.
        """
        if not self.assembly.on_platform:
            return self.assembly.file_rows.checkout(task, read_info())
        if self.assembly.dry_run:
            sink = EncordSink(self.assembly.encord, NO_BOXES, self.assembly.row_options)
            return sink.peek(as_encord_task(task), self.assembly.ontology)
        return self._platform.checkout(as_encord_task(task))

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Saves a row that the function has changed: all or nothing.

        Args:
            task: the task of the row; on the platform it must still wait at its stage.
            edited: the row before and after.
            info: info of the task's media; needed for rows in files.

        Raises:
            LabelError: the row cannot be written as it is.
            SaveError: the platform refused the row, or somebody has changed the row since it was checked out.
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
    """Returns a function that replaces the checked-out row with the changed row, and refuses any other row."""

    def change(row: LabelRow, now: datetime) -> WrittenRow:
        # If the response to an earlier save was lost, the changed row is already there.
        if labels_of(row) not in (labels_of(edited.sent), labels_of(edited.changed)):
            raise SaveError(
                f"{task.title}: somebody changed its labels while the function had them: nothing was saved; the next "
                "run calls the function again"
            )
        changed = edited.changed
        return WrittenRow(changed, num_instances=len(added_labels(edited.before, changed)))

    return change
