"""Labels onto Encord label rows: read, merged, measured, saved in one short window."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import Ontology
from prelabel.encord.client import EncordProject, EncordRow, EncordTask, as_encord_task, labels_as_sent
from prelabel.encord.model_note import ModelNote
from prelabel.errors import LabelError, OntologyError, PrelabelError, SaveError, TakenError
from prelabel.labels.row.editable import EditableRow, labels_of
from prelabel.labels.row.offline import blank_labels
from prelabel.labels.row.own import LabelRow, RowChange, WrittenRow, find_own
from prelabel.labels.row.size import check_row_size, row_num_bytes
from prelabel.labels.row.write import unless_begun, write_detections
from prelabel.plugins.protocols import Task

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


FRESH_SECONDS = 0.5
"""A row that was read longer ago is read again before it is saved; sooner, that would take longer than it gains."""

MERGES_AT_MOST = 5

Target: TypeAlias = EncordTask | EncordRow


class EncordSink:
    """The label rows of a project.

    A save replaces the whole row, and the platform does not notice what somebody else saved since it was read. So each
    write, and each further try of one, reads the row right before it saves it, and reads it again where putting the
    labels on it took long: if it has changed, they are put on it anew. What remains is the time from the answer of that
    read to the arrival of the save. The row is taken as the platform sends it, not as the SDK writes it
    after parsing: so what others did goes back bit for bit, labels of archived features included, and the time taken is
    linear in their number.

    Attributes:
        warnings: what somebody should know that failed no task.
    """

    def __init__(
        self,
        project: EncordProject,
        label_map: LabelMap,
        max_row_bytes: int,
        note: ModelNote | None = None,
        *,
        skips_begun: bool = False,
    ) -> None:
        """Makes no call.

        Args:
            project: whose rows.
            label_map: from the detector's classes to the project's ontology objects.
            max_row_bytes: the largest row that is sent.
            note: puts the model on record beside each write; None: it goes on none.
            skips_begun: whether rows with labels of anybody else are left as they are.
        """
        self._skips_begun = skips_begun
        self._project, self._label_map, self._max_row_bytes, self._note = project, label_map, max_row_bytes, note
        self.warnings: list[str] = []

    def describe(self) -> str:
        """Returns where labels go, in words."""
        begun = "rows that somebody has begun are left alone" if self._skips_begun else "what people put there stays"
        return f"onto the label rows of project {self._project.title!r}; {begun}"

    def write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int:
        """Writes a task's boxes in place of those that an earlier run wrote; see `edit`, also for what it returns.

        Args:
            task: one of `EncordSource`, or of `EncordRowSource`.
            info: the video in which the detections were found.
            detections: after shaping.

        Raises:
            LabelError: a frame is past the row's end.
        """
        _refuse_frames_past_the_end(_target_of(task), detections)
        return self.edit(task, info, lambda row, now: write_detections(row, detections, info, self._label_map, now=now))

    def edit(self, task: Task, info: VideoInfo, change: RowChange) -> int:
        """Saves a task's row with a change on it; what the change leaves alone goes back bit for bit.

        Args:
            task: one of `EncordSource`, or of `EncordRowSource`.
            info: of its media.
            change: returns the row as it is to be.

        Returns:
            Bytes of the row, as it is sent.

        Raises:
            LabelError: the row is not valid, or it would be too large.
            SaveError: the platform did not take the row.
            TakenError: the task was moved meanwhile, or somebody has begun to work on the row.
            OntologyError: the ontology has lost an object that the run labels.
        """
        return self.save_changed(_target_of(task), unless_begun(task.title, change) if self._skips_begun else change)

    def save_changed(self, target: Target, change: RowChange) -> int:
        """Saves a row with a change on it, as `edit` does, for which nothing need be known of the media."""
        own = {target.num_instances} if isinstance(target, EncordRow) else set()
        doing = f"{target.title}: saving its labels"
        written, num_bytes = self._project.caller.call(
            doing, lambda: self._merge_and_save(target, change, own), SaveError
        )
        self._put_note(target, written)
        return num_bytes

    def _merge_and_save(self, task: Target, change: RowChange, own: set[int]) -> tuple[WrittenRow, int]:
        """Reads, merges and saves; returns the row and its bytes.

        Each try begins anew: a row that was read before a wait may be another by now.

        Args:
            task: whose row.
            change: returns the row as it is to be.
            own: numbers of prelabel's own instances that may stand on a row that nobody has begun; those of a save
                whose answer is lost are added.
        """
        if isinstance(task, EncordTask):
            self._project.refuse_if_moved(task, SaveError)
        row, document, written = self._merge(task, change, own)
        if written.num_instances and labels_of(written.row) == labels_of(document):
            # All stands there already, from a run that was cut off: nobody's save can be lost.
            return written, row_num_bytes(written.row)
        num_bytes = check_row_size(written.row, self._max_row_bytes)
        own.add(written.num_instances)
        self._send(row, written.row)
        return written, num_bytes

    def _merge(self, task: Target, change: RowChange, own: set[int]) -> tuple[LabelRowV2, LabelRow, WrittenRow]:
        """Returns the row, what was on it a moment ago, and the same with the change.

        Raises:
            SaveError: it is saved faster than it can be merged.
        """
        began = time.monotonic()
        row, document = self._read_unbegun(task, own)
        for _ in range(MERGES_AT_MOST):
            written = _changed(task, document, change)
            if time.monotonic() - began < FRESH_SECONDS:
                return row, document, written
            row, latest = self._read_unbegun(task, own)
            if labels_of(latest) == labels_of(document):
                return row, document, written
            began, document = time.monotonic(), latest
        raise SaveError(
            f"{task.title}: its label row was saved by somebody else {MERGES_AT_MOST} times while labels were put on "
            "it: nothing was saved"
        )

    def _read_unbegun(self, task: Target, own: set[int]) -> tuple[LabelRowV2, LabelRow]:
        row, document = self._read(task)
        if isinstance(task, EncordRow):
            _refuse_if_begun(task, row, document, own)
        return row, document

    def checkout(self, task: EncordTask) -> EditableRow:
        """Returns a task's row for somebody else's code to change; makes it if there is none.

        Raises:
            LabelError: the row is not valid.
            SaveError: the platform does not give it.
        """
        return EditableRow(*self._read(task))

    def peek(self, task: EncordTask, ontology: Ontology) -> EditableRow:
        """Returns a task's row as `checkout` does, without making one on the platform.

        Raises:
            LabelError: there is none, and it is of a kind that only the platform makes.
            SaveError: the platform does not give it.
        """

        def look() -> EditableRow:
            row = self._look_up(task, with_pictures=True)
            return EditableRow(row, labels_as_sent(row) if row.label_hash else blank_labels(row, ontology))

        return self._project.caller.call(f"{task.title}: reading its label row", look, SaveError)

    def _read(self, task: Target) -> tuple[LabelRowV2, LabelRow]:
        """Returns the row and what is on it; makes it if there is none."""
        doing = f"{task.title}: reading its label row"
        row, document = self._project.caller.call(doing, lambda: self._read_or_create(task), SaveError)
        if document.get("is_valid") is False:
            errors = self._project.caller.call(doing, row.get_validation_errors, SaveError) or ["no reason given"]
            raise LabelError(
                f"{task.title}: the platform holds its label row as not valid, and would let nobody load it: "
                f"{'; '.join(errors[:3])}: mend it in the web app first"
            )
        return row, document

    def _read_or_create(self, task: Target) -> tuple[LabelRowV2, LabelRow]:
        """Looks the row up at each try: where the answer to its creation was lost, it is there all the same."""
        from encord.exceptions import ResourceExistsError

        row = self._look_up(task)
        try:
            return row, labels_as_sent(row)
        except ResourceExistsError:  # another worker made it since it was looked up
            row = self._look_up(task)
            return row, labels_as_sent(row)

    def _look_up(self, task: Target, *, with_pictures: bool = False) -> LabelRowV2:
        rows = self._project.label_rows([task.data_hash], task.branch, with_pictures=with_pictures)
        if len(rows) != 1:
            raise SaveError(f"{task.title}: got {len(rows)} label rows on branch {task.branch!r}, expected 1")
        return rows[0]

    def _send(self, row: LabelRowV2, document: LabelRow) -> None:
        from encord.exceptions import FeatureDoesNotExistError

        try:
            self._save(row, document)
        except FeatureDoesNotExistError:
            self._refuse_if_ontology_lacks_ours()
            raise  # it is somebody else's label on this row that has lost its object

    def _save(self, row: LabelRowV2, document: LabelRow) -> None:
        send = getattr(self._project.sdk, "save_label_row", None)
        if send is None:
            # `Project.save_label_row` is deprecated since encord 0.1.123 and may go. This way is slow on many labels.
            _save_through_types(row, document)
        else:
            send(document["label_hash"], document, validate_before_saving=True)

    def _refuse_if_ontology_lacks_ours(self) -> None:
        ontology = self._project.ontology()
        there = {entry.feature_hash for entry in ontology.objects}
        lost = [category.name for category in self._label_map.categories if category.feature_hash not in there]
        if lost:
            raise OntologyError(
                f"ontology {ontology.title!r} has changed since this run began, it lacks {', '.join(lost)} now: "
                "start the run again"
            )

    def _put_note(self, task: Target, written: WrittenRow) -> None:
        try:
            if self._note is not None:
                self._note.put(task, written.num_instances)
        except PrelabelError as error:
            self.warnings.append(f"{error}; the labels are saved (source.record: false leaves the note out)")


def _changed(task: Target, document: LabelRow, change: RowChange) -> WrittenRow:
    try:
        return change(document, datetime.now(UTC))
    except PrelabelError:
        raise
    except Exception as error:  # else it would pass for one of the SDK
        raise LabelError(f"{task.title}: putting labels on its row: {type(error).__name__}: {error}") from error


def _save_through_types(row: LabelRowV2, document: LabelRow) -> None:
    row.from_labels_dict(document)
    row.save(validate_before_saving=True)


def _target_of(task: Task) -> Target:
    return task if isinstance(task, EncordRow) else as_encord_task(task)


def _refuse_if_begun(task: EncordRow, row: LabelRowV2, document: LabelRow, own: set[int]) -> None:
    """Raises where people have worked on a row: what they deleted would come back."""
    if row.assigned_user_email:
        raise TakenError(f"{task.title}: somebody is assigned to it now: nothing was saved")
    untouched = len(find_own(document))
    if untouched not in own:
        raise TakenError(
            f"{task.title}: of {task.num_instances} instances that prelabel wrote {untouched} stand as they were: "
            "somebody has begun to work on it; nothing was saved"
        )


def _refuse_frames_past_the_end(task: Target, detections: VideoDetections) -> None:
    if len(detections) and int(detections.frame_index[-1]) >= task.num_frames:
        raise LabelError(
            f"{task.title}: got a box on frame {int(detections.frame_index[-1])}, the platform has frames 0 to "
            f"{task.num_frames - 1}: nothing was saved"
        )
