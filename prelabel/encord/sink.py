"""Writes labels onto Encord label rows: reads, merges and saves each row within a short time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

import prelabel
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.data.ontology import Ontology
from prelabel.encord.project import (
    EncordProject,
    EncordTask,
    StoredRow,
    WaitingTask,
    as_encord_task,
    labels_as_sent,
)
from prelabel.errors import LabelError, OntologyError, PrelabelError, SaveError, TakenError
from prelabel.labels.row.offline import EditableRow, blank_labels, labels_of
from prelabel.labels.row.own import LabelRow, RowChange, WrittenRow, find_own
from prelabel.labels.row.ready import unlabelled_video
from prelabel.labels.row.size import check_row_size, row_num_bytes, save_request, without_fragments
from prelabel.labels.row.write import unless_begun, write_detections
from prelabel.plugins.protocols import Task
from prelabel.store.source import RowOptions

if TYPE_CHECKING:
    from encord import Project
    from encord.objects import LabelRowV2

FRESH_SECONDS = 0.5
"""The longest time between reading a row and saving it; after it, the row is read again, which takes about as long."""

MERGES_AT_MOST = 5

RECORD_KEY = "prelabel"
"""The key in a storage item's client metadata under which the sink notes the model."""


class EncordSink:
    """Writes labels onto the label rows of a project.

    Attributes:
        warnings: what a user should know although no task failed.
    """

    # A save replaces the whole row, and the platform does not notice if somebody else has saved it since it was read.
    # So each try reads the row, merges and saves at once. If merging took longer than FRESH_SECONDS, the try reads the
    # row again, and merges again if it has changed. A change by others is lost only if it arrives between the answer of
    # the last read and the arrival of the save.
    #
    # The sink merges rows as the platform sends them, not as the SDK writes them after parsing. So the labels of others
    # go back bit for bit, also those of archived features, and the time is linear in the number of labels.

    def __init__(self, project: EncordProject, label_map: LabelMap, options: RowOptions) -> None:
        """Calls the platform only later, when a row is read or written.

        Args:
            project: the project of the rows.
            label_map: from the detector's classes to the project's ontology objects.
            options: how to write rows. The model record goes into the client metadata of each row's data.
        """
        self._project, self._label_map, self._options = project, label_map, options
        self.warnings: list[str] = []

    def describe(self) -> str:
        """Returns the place to which labels go, in words."""
        begun = "rows with labels of anybody else are skipped" if self._options.skips_begun else "labels of people stay"
        return f"onto the label rows of project {self._project.title!r}; {begun}"

    def write(self, task: Task, info: VideoInfo, detections: VideoDetections) -> int:
        """Writes detections onto a task's row, in place of the labels of an earlier run.

        Returns:
            Size of the row in bytes, as it is sent.

        Raises:
            LabelError: a detection is on a frame after the row's last one; also all errors of `edit`.
        """
        num_frames = as_encord_task(task).num_frames
        if len(detections) and int(detections.frame_index[-1]) >= num_frames:
            raise LabelError(
                f"{task.title}: got a box on frame {int(detections.frame_index[-1])}, the platform has frames 0 to "
                f"{num_frames - 1}: nothing was saved"
            )
        return self.edit(task, info, lambda row, now: write_detections(row, detections, info, self._label_map, now=now))

    def expected_row(self, task: Task) -> bytes:
        """Returns the row of a video without labels, since most tasks that wait at an agent stage have one.

        Stored rows have the labels of an earlier run, so the run merges by itself.
        """
        return b"" if isinstance(task, StoredRow) else unlabelled_video(as_encord_task(task).data_hash)

    def edit(self, task: Task, info: VideoInfo, change: RowChange) -> int:
        """Saves a task's row after a change; everything else on the row goes back bit for bit.

        Args:
            task: a task of `EncordSource`.
            info: of the task's media.
            change: returns the new row.

        Returns:
            Size of the row in bytes, as it is sent.

        Raises:
            LabelError: the row is not valid, or it would be too large.
            SaveError: the platform did not accept the row.
            TakenError: somebody has moved the task, or has begun to work on the row.
            OntologyError: the ontology no longer has an object that the run labels.
        """
        return self.save_changed(
            as_encord_task(task), unless_begun(task.title, change) if self._options.skips_begun else change
        )

    def save_changed(self, task: EncordTask, change: RowChange) -> int:
        """Saves a row after a change as `edit` does, but also a row with labels of others."""
        # If nobody has worked on a stored row, it has one of these numbers of prelabel's own instances. Each save adds
        # its number, because its answer may be lost: the next try then reads the instances of that save.
        own = {task.num_instances} if isinstance(task, StoredRow) else set()
        doing = f"{task.title}: saving its labels"
        written, num_bytes = self._project.caller.call(
            doing, lambda: self._merge_and_save(task, change, own), SaveError
        )
        if self._options.model_record is not None:
            try:
                self._note_model(task, written.num_instances)
            except PrelabelError as error:
                self.warnings.append(f"{error}; the labels are saved (source.record: false turns the note off)")
        return num_bytes

    def _merge_and_save(self, task: EncordTask, change: RowChange, own: set[int]) -> tuple[WrittenRow, int]:
        """Reads, merges and saves a row; returns it and its size in bytes.

        The caller repeats this as a whole, so that each try starts with a newly read row.
        """
        if isinstance(task, WaitingTask):
            self._project.refuse_if_moved(task, SaveError)
        row, current, written = self._merge(task, change, own)
        if written.num_instances and labels_of(written.row) == labels_of(current):
            # An interrupted run has already saved these labels. Without a second save, nobody's change can be lost.
            return written, row_num_bytes(written.row)
        num_bytes = check_row_size(written.row, self._options.max_row_bytes)
        own.add(written.num_instances)
        self._save(row, written.row)
        return written, num_bytes

    def _merge(self, task: EncordTask, change: RowChange, own: set[int]) -> tuple[LabelRowV2, LabelRow, WrittenRow]:
        """Returns the row, its labels as just read, and its labels after the change.

        Raises:
            SaveError: others save the row faster than this can merge it.
        """
        began = time.monotonic()
        row, current = self._read_unbegun(task, own)
        for _ in range(MERGES_AT_MOST):
            written = _changed(task, current, change)
            if time.monotonic() - began < FRESH_SECONDS:
                return row, current, written
            row, latest = self._read_unbegun(task, own)
            if labels_of(latest) == labels_of(current):
                return row, current, written
            began, current = time.monotonic(), latest
        raise SaveError(
            f"{task.title}: somebody else saved its label row {MERGES_AT_MOST} times while labels were put on it: "
            "nothing was saved"
        )

    def _read_unbegun(self, task: EncordTask, own: set[int]) -> tuple[LabelRowV2, LabelRow]:
        """Returns the row and its labels; refuses a stored row that people have worked on.

        The stored detections would bring back labels that people have deleted.
        """
        row, current = self._read(task)
        if not isinstance(task, StoredRow):
            return row, current
        if row.assigned_user_email:
            raise TakenError(f"{task.title}: somebody is assigned to it now: nothing was saved")
        num_untouched = len(find_own(current))
        if num_untouched not in own:
            raise TakenError(
                f"{task.title}: {num_untouched} of the {task.num_instances} instances that prelabel wrote are "
                "unchanged: somebody has begun to work on it; nothing was saved"
            )
        return row, current

    def checkout(self, task: EncordTask) -> EditableRow:
        """Returns a task's row, which a user's function can edit; creates it if there is none.

        Raises:
            LabelError: the row is not valid.
            SaveError: the platform does not return it.
        """
        return EditableRow(*self._read(task))

    def peek(self, task: EncordTask, ontology: Ontology) -> EditableRow:
        """Returns a task's row as `checkout` does, without creating one on the platform.

        Raises:
            LabelError: there is no row, and only the platform can create one of this kind.
            SaveError: the platform does not return it.
        """

        def look() -> EditableRow:
            row = self._look_up(task, with_images=True)
            return EditableRow(row, labels_as_sent(row) if row.label_hash else blank_labels(row, ontology))

        return self._project.caller.call(f"{task.title}: reading its label row", look, SaveError)

    def _read(self, task: EncordTask) -> tuple[LabelRowV2, LabelRow]:
        """Returns the row and its labels; creates it if there is none."""
        doing = f"{task.title}: reading its label row"
        row, current = self._project.caller.call(doing, lambda: self._read_or_create(task), SaveError)
        if current.get("is_valid") is False:
            errors = self._project.caller.call(doing, row.get_validation_errors, SaveError) or ["no reason given"]
            raise LabelError(
                f"{task.title}: its label row is not valid on the platform, which would let nobody load it: "
                f"{'; '.join(errors[:3])}: mend it in the web app first"
            )
        return row, current

    def _read_or_create(self, task: EncordTask) -> tuple[LabelRowV2, LabelRow]:
        """Returns the row and its labels; creates it if there is none.

        Each try reads the list of rows again, because the row may exist although the answer to its creation was lost.
        """
        from encord.exceptions import ResourceExistsError

        row = self._look_up(task)
        try:
            return row, labels_as_sent(row)
        except ResourceExistsError:  # another worker has created the row in the meantime
            row = self._look_up(task)
            return row, labels_as_sent(row)

    def _look_up(self, task: EncordTask, *, with_images: bool = False) -> LabelRowV2:
        rows = self._project.label_rows([task.data_hash], task.branch, with_images=with_images)
        if len(rows) != 1:
            raise SaveError(f"{task.title}: got {len(rows)} label rows on branch {task.branch!r}, expected 1")
        return rows[0]

    def _save(self, row: LabelRowV2, labels: LabelRow) -> None:
        from encord.exceptions import FeatureDoesNotExistError

        try:
            if not _send_labels(self._project.sdk, labels):
                # This parses every label, which takes seconds for many labels.
                row.from_labels_dict(without_fragments(labels))
                row.save(validate_before_saving=True)
        except FeatureDoesNotExistError:
            self._refuse_if_ontology_lacks_ours()
            raise  # the missing object is that of somebody else's label on this row

    def _refuse_if_ontology_lacks_ours(self) -> None:
        ontology = self._project.ontology()
        there = {entry.feature_hash for entry in ontology.objects}
        lost = [category.name for category in self._label_map.categories if category.feature_hash not in there]
        if lost:
            raise OntologyError(
                f"ontology {ontology.title!r} has changed since this run began, it lacks {', '.join(lost)} now: "
                "start the run again"
            )

    def _note_model(self, task: EncordTask, num_instances: int) -> None:
        """Writes a note about the model into the client metadata of the task's storage item.

        The note replaces that of an earlier write. Label rows have no field for the model. The web app shows client
        metadata and can filter by them. A storage item may be in several projects; the note names the project of the
        last write.

        Raises:
            FetchError: the platform did not return the item.
            SaveError: the platform did not accept the note. A user who may write labels may not always write metadata.
        """
        note = {key: value for key, value in (self._options.model_record or {}).items() if value is not None} | {
            "prelabel": prelabel.__version__,
            "project": self._project.project_hash,
            "branch": task.branch,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "instances": num_instances,
        }
        item = self._project.storage_item(task.item_uuid, task.title, with_link=False)
        # Encord does not document whether an update keeps the other keys. So the update contains them too.
        metadata = {**(item.client_metadata or {}), RECORD_KEY: note}
        doing = f"{task.title}: noting the model in the client metadata"
        self._project.caller.call(doing, lambda: item.update(client_metadata=metadata), SaveError)


def _changed(task: EncordTask, labels: LabelRow, change: RowChange) -> WrittenRow:
    try:
        return change(labels, datetime.now(UTC))
    except PrelabelError:
        raise
    except Exception as error:  # `Caller.call` would handle any other error as one of the SDK
        raise LabelError(f"{task.title}: putting labels on its row: {type(error).__name__}: {error}") from error


def _send_labels(sdk: Project, labels: LabelRow) -> bool:
    """Saves a label row; returns whether this version of the SDK can send it this way.

    The request is the one of `Project.save_label_row`, but orjson writes its body. encord 0.1.211 uses `json`, which
    takes longer than making the labels, and has no public way to send a body. This function can go once the SDK writes
    requests with orjson.
    """
    from encord.exceptions import RequestException
    from encord.http.query_methods import QueryMethods

    try:
        querier = sdk._client._querier
        config, send = querier._config, querier._execute
        request = querier._request(QueryMethods.POST, "labelrow", labels["label_hash"], config.write_timeout)
    except (AttributeError, TypeError):
        return False
    request.data = orjson.dumps(save_request(labels)).decode()
    request.headers = config.define_headers(querier.resource_id, querier.resource_type, request.data)
    answer, _ = send(request, retryable=True)
    if answer is None:
        raise RequestException("saving a label row: the platform's answer is empty")
    return True
