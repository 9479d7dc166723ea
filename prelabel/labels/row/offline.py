"""Makes and edits label rows with the Encord SDK, without a connection to the platform."""

from __future__ import annotations

import functools
import json
import mimetypes
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prelabel.data.frames import VideoInfo
from prelabel.data.ontology import Ontology
from prelabel.errors import LabelError, OntologyError
from prelabel.labels.row.own import LabelRow, as_row_time

if TYPE_CHECKING:
    from encord.objects import LabelRowV2
    from encord.ontology import Ontology as EncordOntology


@dataclass
class EditableRow:
    """A label row to edit, and its content before the edits.

    A user's function edits the row. When it calls `save` or `set_priority`, nothing is sent to the platform. So an
    error after these calls leaves nothing half done, and a dry run changes nothing. `workflow_complete` and
    `workflow_reopen` raise an error.

    Attributes:
        sdk: the row with its labels.
        sent: its JSON from the platform or the file.
        before: its JSON as the SDK writes it before any edit.
        priority: the priority that the function has set; None if it has set none.
    """

    sdk: LabelRowV2
    sent: LabelRow
    before: LabelRow = field(init=False)
    priority: object = None

    def __post_init__(self) -> None:
        self.sdk.from_labels_dict(self.sent)
        self.before = self.sdk.to_encord_dict()
        # This replaces the methods of this object only, not of the SDK's class (encord 0.1.211).
        self.sdk.save = _do_nothing  # type: ignore[method-assign]
        self.sdk.set_priority = self._note_priority  # type: ignore[method-assign]
        self.sdk.workflow_complete = _refuse_to_move  # type: ignore[method-assign]
        self.sdk.workflow_reopen = _refuse_to_move  # type: ignore[method-assign]

    def _note_priority(self, priority: float, bundle: object = None) -> None:
        self.priority = priority

    def changed(self) -> LabelRow | None:
        """Returns the JSON to save; None if nothing changed.

        Raises:
            LabelError: the SDK cannot write the labels.
        """
        try:
            now = self.sdk.to_encord_dict()
        except Exception as error:  # the SDK raises many types for invalid labels
            raise LabelError(f"the label row cannot be written: {type(error).__name__}: {error}") from error
        return None if now == self.before else now


def _do_nothing(*_: object, **__: object) -> None:
    """Ignores a call of `save`, because the run saves the changes."""


def _refuse_to_move(*_: object, **__: object) -> None:
    raise LabelError("the run moves the task, once its labels are saved: return the pathway instead")


def labels_of(row: LabelRow) -> dict[str, Any]:
    """Returns the labels of a row, without links and times."""
    units = {key: unit.get("labels") or {} for key, unit in row["data_units"].items()}
    parts = ("object_answers", "classification_answers", "object_actions", "spaces")
    return {"data_units": units, **{part: row.get(part) or {} for part in parts}}


def added_labels(before: LabelRow, after: LabelRow) -> dict[str, str]:
    """Returns the names of the instances that only `after` has, by object or classification hash."""
    known = _names(before)
    return {key: name for key, name in _names(after).items() if key not in known}


def _names(row: LabelRow) -> dict[str, str]:
    names = {label["objectHash"]: label["name"] for label in _objects(row)}
    for key in row.get("object_answers") or {}:
        names.setdefault(key, "object")  # media without frames, such as audio
    for key, answer in (row.get("classification_answers") or {}).items():
        attributes = answer.get("classifications") or [{}]
        names[key] = attributes[0].get("name", "classification")
    return names


def _objects(row: LabelRow) -> Iterator[dict[str, Any]]:
    for unit in row["data_units"].values():
        labels = unit.get("labels") or {}
        for on_frame in [labels] if "objects" in labels else labels.values():
            yield from on_frame.get("objects") or () if isinstance(on_frame, dict) else ()


_NAMESPACE = uuid.UUID("8f2d1c5e-7a60-4c0b-9b53-5d8f7f0b6a11")


def new_label_row(task_key: str, title: str, info: VideoInfo, ontology: EncordOntology, *, now: datetime) -> LabelRow:
    """Returns the JSON of an empty label row, as a real `LabelRowV2` writes it.

    Media without a frame rate are images: one frame gives an image, several give an image group.

    Args:
        task_key: identifies the task; the row's uuids are computed from it, so they are the same in every run.
        title: of the data unit.
        info: of the media.
        ontology: of the labels, from `encord_ontology`.
        now: creation time of the row.

    Raises:
        LabelError: the media have no frames.
    """
    if info.num_frames == 0:
        raise LabelError(f"{title}: got no frames, expected 1 or more")
    blank: LabelRow = json.loads(_blank_row(_file_type(title), info, ontology))
    return _with_identity(blank, task_key, title, now)


def data_hash_of(task_key: str) -> str:
    """Returns the `data_hash` of the offline row of a task."""
    return _uuid("data", task_key)


def encord_ontology(ontology: Ontology) -> EncordOntology:
    """Returns the SDK's ontology of the same structure.

    Raises:
        OntologyError: the SDK cannot load the structure.
    """
    from encord.objects import OntologyStructure
    from encord.ontology import Ontology as EncordOntology
    from encord.orm.ontology import Ontology as OntologyRecord

    try:
        structure = OntologyStructure.from_dict(dict(ontology.structure))
    except (KeyError, TypeError, ValueError) as error:
        raise OntologyError(f"ontology {ontology.title!r}: the Encord SDK does not load it: {error}") from error
    epoch = datetime.fromtimestamp(0, UTC)
    record = OntologyRecord(
        title=ontology.title,
        structure=structure,
        ontology_hash=str(uuid.uuid5(_NAMESPACE, ontology.title)),
        created_at=epoch,
        last_edited_at=epoch,
    )
    return EncordOntology(record, api_client=None)  # type: ignore[arg-type]


def blank_labels(row: LabelRowV2, ontology: Ontology) -> LabelRow:
    """Returns the JSON of a row that the platform has not initialised yet.

    Args:
        row: as the project lists it, with the metadata of its images.
        ontology: of the project.

    Raises:
        LabelError: the SDK cannot make rows of this kind.
    """
    from encord.objects import LabelRowV2

    blank = LabelRowV2.from_media_metadata(encord_ontology(ontology), _media_metadata(row)).to_encord_dict()
    row.from_labels_dict(blank, preserve_identity=True)
    return row.to_encord_dict()


def _media_metadata(row: LabelRowV2) -> Any:
    """Returns the metadata from which the SDK makes a row."""
    from encord.orm import storage as sdk

    mime_type = row.file_type or ""
    match row.data_type.value:
        case "video":
            return sdk.CustomerProvidedVideoMetadata(
                fps=row.fps, duration=row.duration, width=row.width, height=row.height, file_size=0, mime_type=mime_type
            )
        case "image":
            return sdk.CustomerProvidedImageMetadata(
                mime_type=mime_type, file_size=0, width=row.width, height=row.height
            )
        case "img_group":
            pictures = sorted(row.get_frames_metadata(), key=lambda picture: picture.frame_number)
            return [
                sdk.CustomerProvidedImageMetadata(
                    mime_type=picture.file_type, file_size=0, width=picture.width, height=picture.height
                )
                for picture in pictures
            ]
        case "pdf":
            return sdk.CustomerProvidedPdfMetadata(file_size=0, num_pages=row.number_of_frames)
        case "plain_text":
            return sdk.CustomerProvidedTextMetadata(file_size=0, mime_type=mime_type)
        case kind:
            raise LabelError(
                f"{row.data_title}: has no label row yet; a dry run makes none, and one of {kind} only the platform can"
            )


def detached_row(title: str, info: VideoInfo, ontology: EncordOntology) -> LabelRowV2:
    """Returns the SDK's row for media, without labels or a connection to the platform."""
    return _detached_row(_file_type(title), info, ontology)


def _file_type(title: str) -> str | None:
    return mimetypes.guess_type(title)[0]


def _detached_row(mime_type: str | None, info: VideoInfo, ontology: EncordOntology) -> LabelRowV2:
    from encord.objects import LabelRowV2
    from encord.orm.storage import CustomerProvidedImageMetadata, CustomerProvidedVideoMetadata

    if info.average_fps > 0:
        video = CustomerProvidedVideoMetadata(
            fps=info.average_fps,
            duration=info.duration_seconds,
            width=info.width,
            height=info.height,
            file_size=0,  # required by the type, not part of a label row
            mime_type=mime_type or "video/mp4",
        )
        return LabelRowV2.from_media_metadata(ontology, video)
    sizes = info.frame_sizes or ((info.width, info.height),) * info.num_frames
    pictures = [
        CustomerProvidedImageMetadata(mime_type=mime_type or "image/jpeg", file_size=0, width=width, height=height)
        for width, height in sizes
    ]
    return LabelRowV2.from_media_metadata(ontology, pictures if len(pictures) > 1 else pictures[0])


@functools.lru_cache(maxsize=64)  # the images of a folder have few sizes
def _blank_row(mime_type: str | None, info: VideoInfo, ontology: EncordOntology) -> str:
    """Returns the JSON of an empty row, as the SDK writes a row from the platform."""
    row = _detached_row(mime_type, info, ontology)
    row.from_labels_dict({**row.to_encord_dict(), "dataset_hash": _uuid("dataset", ""), "dataset_title": "prelabel"})
    return json.dumps(row.to_encord_dict())


def _with_identity(blank: LabelRow, task_key: str, title: str, now: datetime) -> LabelRow:
    """Returns the row with the uuids, titles and times that the platform would set."""
    data_hash, units = data_hash_of(task_key), {}
    for number, unit in enumerate(blank["data_units"].values()):
        is_one_of_many = blank["data_type"] == "img_group"
        unit_hash = _uuid(f"frame {number}", task_key) if is_one_of_many else data_hash
        unit_title = f"{title}#{number:06d}" if is_one_of_many else title
        units[unit_hash] = {**unit, "data_hash": unit_hash, "data_title": unit_title}
    made_at = as_row_time(now)
    return {
        **blank,
        "label_hash": _uuid("label", task_key),
        "data_hash": data_hash,
        "data_title": title,
        "created_at": made_at,
        "last_edited_at": made_at,
        "data_units": units,
    }


def _uuid(kind: str, task_key: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{kind}\n{task_key}"))
