"""The label rows that a user's function edits: on the platform or in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prelabel.assembly.assemble import Assembly
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import NO_BOXES
from prelabel.encord.project import as_encord_task
from prelabel.encord.sink import EncordSink
from prelabel.errors import SaveError
from prelabel.files.folder_sink import LABELS_ENDING, write_row
from prelabel.labels.row.editable import EditableRow, added_labels, labels_of
from prelabel.labels.row.own import LabelRow, WrittenRow
from prelabel.labels.row.size import check_row_size
from prelabel.plugins.protocols import Task


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
