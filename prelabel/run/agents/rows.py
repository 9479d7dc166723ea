"""Where the label rows are that a user's function gets, and where they go when it has changed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from prelabel.assembly.assemble import Assembly
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import NO_BOXES
from prelabel.encord.project import as_encord_task
from prelabel.encord.sink import EncordSink
from prelabel.errors import SaveError
from prelabel.files.folder_sink import LABELS_ENDING, FolderSink, write_row
from prelabel.labels.row.editable import EditableRow, added_labels, labels_of
from prelabel.labels.row.own import LabelRow, WrittenRow
from prelabel.labels.row.size import check_row_size
from prelabel.plugins.protocols import Task

ReadInfo = Callable[[], VideoInfo]
"""Reads the head of a task's media."""


def no_info() -> VideoInfo:
    """Stands in for `ReadInfo` where the media are not here: rows on the platform need no look at them."""
    raise ValueError("got media that are not here, expected a row on the platform")


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


class Rows(Protocol):
    """Label rows of tasks."""

    @property
    def warnings(self) -> Sequence[str]:
        """What somebody should know that failed no task."""

    def checkout(self, task: Task, read_info: ReadInfo) -> EditableRow:
        """Returns a task's row, for a function to change."""

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Saves what the function has made of it: all or nothing.

        Raises:
            LabelError: it cannot be written as it is.
            SaveError: it was not taken, or somebody has changed the row since it was handed out.
        """


@dataclass(frozen=True, slots=True)
class PlatformRows:
    """Rows of an Encord project.

    Attributes:
        sink: reads and saves them.
    """

    sink: EncordSink

    @property
    def warnings(self) -> Sequence[str]:
        """The sink's."""
        return self.sink.warnings

    def checkout(self, task: Task, read_info: ReadInfo) -> EditableRow:
        """Returns a task's row; makes it if there is none."""
        return self.sink.checkout(as_encord_task(task))

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Saves it, if the task still waits."""
        self.sink.save_changed(as_encord_task(task), _change(task, edited))


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows in the output folder.

    Attributes:
        sink: reads and writes them.
    """

    sink: FolderSink
    warnings: tuple[str, ...] = ()

    def checkout(self, task: Task, read_info: ReadInfo) -> EditableRow:
        """Returns the row that stands there, or a new one."""
        return self.sink.checkout(task, read_info())

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Writes it."""
        assert info is not None  # read when the row was checked out
        self.sink.edit(task, info, _change(task, edited))


@dataclass(frozen=True, slots=True)
class DryRows:
    """Rows of an Encord project in a dry run: read there, written to files.

    Attributes:
        assembly: the parts.
    """

    assembly: Assembly
    warnings: tuple[str, ...] = ()

    def checkout(self, task: Task, read_info: ReadInfo) -> EditableRow:
        """Returns a task's row; where there is none, one as the platform would make it."""
        sink = EncordSink(self.assembly.encord, NO_BOXES, self.assembly.row_options)
        return sink.peek(as_encord_task(task), self.assembly.ontology)

    def save(self, task: Task, edited: EditedRow, info: VideoInfo | None) -> None:
        """Writes it to a file."""
        check_row_size(edited.changed, self.assembly.row_options.max_row_bytes)
        write_row(self.assembly.store.path(task, LABELS_ENDING), edited.changed)


def make_rows(assembly: Assembly) -> Rows:
    """Returns the rows that a run's function gets."""
    if assembly.on_platform and assembly.dry_run:
        return DryRows(assembly)
    return PlatformRows(assembly.rows) if isinstance(assembly.rows, EncordSink) else FileRows(assembly.file_rows)


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
