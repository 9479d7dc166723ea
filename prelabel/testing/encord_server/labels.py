"""Label rows: the document the SDK reads, the checks on what it writes, and storing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from .records import DataUnit, Json, LabelRow, Ontology, Project, StorageItem
from .wire import EnvelopeError

LinkFor = Callable[[StorageItem], str | None]
_PICTURES = ("image", "img_group")


def empty_labels(data: DataUnit) -> dict[str, Json]:
    """Labels of a row just created, by hash of the video, image or picture."""
    if data.data_type == "img_group":
        return {picture.image_hash: {"objects": [], "classifications": []} for picture in data.pictures}
    return {data.data_hash: {"objects": [], "classifications": []} if data.data_type == "image" else {}}


def row_document(project: Project, row: LabelRow, link_for: LinkFor) -> Json:
    """The row as calls 21 and 22 answer it."""
    data = row.data
    task = project.task_of.get((data.data_hash, row.branch))
    return {
        "label_hash": row.label_hash,
        "branch_name": row.branch,
        "created_at": seconds_text(row.created_at),
        "last_edited_at": seconds_text(row.last_edited_at),
        "data_hash": data.data_hash,
        "dataset_hash": data.dataset_hash,
        "dataset_title": data.dataset_title,
        "data_title": data.title,
        "data_type": data.data_type,
        "annotation_task_status": "QUEUED",
        "is_shadow_data": False,
        "label_status": row.label_status,
        "is_valid": row.is_valid,
        "task_uuid": task.uuid if task else None,
        "object_answers": row.object_answers,
        "classification_answers": row.classification_answers,
        "object_actions": row.object_actions,
        "data_units": _data_units(row, link_for),
        "spaces": {},
    }


def seconds_text(time: datetime) -> str:
    """A time as the legacy endpoints write it, UTC in whole seconds."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _data_units(row: LabelRow, link_for: LinkFor) -> Json:
    data = row.data
    if data.data_type == "img_group":
        return {
            picture.image_hash: _data_unit(picture.image_hash, picture.item, str(place), link_for)
            | {"labels": row.labels[picture.image_hash]}
            for place, picture in enumerate(data.pictures)
        }
    unit = _data_unit(data.data_hash, data.item, 0, link_for)
    if data.data_type == "video":
        unit |= {"data_duration": data.item.facts.duration_seconds, "data_fps": data.item.facts.fps}
    if data.data_type == "audio":
        unit |= dict.fromkeys(("audio_codec", "audio_sample_rate", "audio_num_channels", "audio_bit_depth"))
    return {data.data_hash: unit | {"labels": row.labels[data.data_hash]}}


def _data_unit(unit_hash: str, item: StorageItem, sequence: int | str, link_for: LinkFor) -> Json:
    return {
        "data_hash": unit_hash,
        "data_title": item.name,
        "data_link": link_for(item),
        "data_type": item.mime_type or "image/jpeg",
        "data_sequence": sequence,
        "width": item.facts.width,
        "height": item.facts.height,
    }


def keep_features(document: Json, objects: list[str] | None, classifications: list[str] | None) -> Json:
    """The document with only these features on it, as a filtered read gives it; None keeps all."""
    if objects is not None:
        kept = {entry["objectHash"] for _, entry in _objects(document) if entry["featureHash"] in objects}
        document = document | {
            "data_units": {key: _unit_with(unit, kept) for key, unit in document["data_units"].items()},
            "object_answers": {key: value for key, value in document["object_answers"].items() if key in kept},
            "object_actions": {key: value for key, value in document["object_actions"].items() if key in kept},
        }
    if classifications is not None:
        answers = document["classification_answers"].items()
        chosen = {key: answer for key, answer in answers if answer["featureHash"] in classifications}
        document = document | {"classification_answers": chosen}
    return document


def _unit_with(unit: Json, object_hashes: set[str]) -> Json:
    def chosen(labels: Json) -> Json:
        return labels | {"objects": [o for o in labels["objects"] if o["objectHash"] in object_hashes]}

    labels = unit["labels"]
    if "objects" in labels:
        return unit | {"labels": chosen(labels)}
    return unit | {"labels": {frame: chosen(frame_labels) for frame, frame_labels in labels.items()}}


def _objects(document: Json) -> Iterator[tuple[str, Json]]:
    """Every object instance, and where it is, in words."""
    for unit_hash, unit in document["data_units"].items():
        labels = unit.get("labels", {})
        frames = {unit_hash: labels} if "objects" in labels else labels
        for frame, frame_labels in frames.items():
            for entry in frame_labels.get("objects", ()):
                yield frame, entry


def refuse_unsavable(document: Json, data: DataUnit, ontology: Ontology) -> None:
    """Refuse what the platform is documented to refuse.

    Raises:
        EnvelopeError: CORRUPTED_LABEL_ERROR, ANSWER_DICTIONARY_ERROR or FEATURE_DOES_NOT_EXIST_ERROR.
    """
    _refuse_wrong_places(document, data)
    for frame, entry in _objects(document):
        if entry["objectHash"] not in document["object_answers"]:
            raise EnvelopeError("ANSWER_DICTIONARY_ERROR", f"object {entry['objectHash']} at {frame} has no answer")
        if entry["featureHash"] not in ontology.shapes:
            raise EnvelopeError("FEATURE_DOES_NOT_EXIST_ERROR", entry["featureHash"])
    answers = [document["object_answers"], document["classification_answers"], document["object_actions"]]
    for feature in _answered_features(answers):
        if feature not in ontology.features:
            raise EnvelopeError("FEATURE_DOES_NOT_EXIST_ERROR", feature)


def _refuse_wrong_places(document: Json, data: DataUnit) -> None:
    for unit_hash, unit in document["data_units"].items():
        if unit_hash not in empty_labels(data):
            raise EnvelopeError("CORRUPTED_LABEL_ERROR", f"data unit {unit_hash} is not in this row")
        if data.data_type in _PICTURES:
            continue
        for frame in unit.get("labels", {}):
            if not (frame.isdecimal() and int(frame) < data.num_frames):
                raise EnvelopeError("CORRUPTED_LABEL_ERROR", f"frame {frame} of {data.num_frames}")
    for answer in document["classification_answers"].values():
        for first, last in answer.get("range") or ():
            if not 0 <= first <= last < data.num_frames:
                raise EnvelopeError("CORRUPTED_LABEL_ERROR", f"range {first}-{last} of {data.num_frames} frames")


def _answered_features(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "featureHash" in node:
            yield node["featureHash"]
        for value in node.values():
            yield from _answered_features(value)
    elif isinstance(node, list):
        for value in node:
            yield from _answered_features(value)


def validation_errors(document: Json, ontology: Ontology) -> list[str]:
    """What makes a row invalid. The row is stored all the same, unless the caller asks for validation."""
    errors = []
    seen: set[tuple[str, str]] = set()
    for place, entry in _objects(document):
        key = (place, entry["objectHash"])
        flaw = "is there twice" if key in seen else _flaw_of(entry, ontology.shapes[entry["featureHash"]])
        seen.add(key)
        if flaw is not None:
            errors.append(f"object {entry['objectHash']} at {place} {flaw}")
    return errors


def _flaw_of(entry: Json, shape: str) -> str | None:
    if entry["shape"] != shape:
        return f"has shape {entry['shape']}, its feature {shape}"
    if not 0 <= entry.get("confidence", 1) <= 1:
        return f"has confidence {entry['confidence']}, not within 0 and 1"
    box = entry.get("boundingBox")
    if box is not None and not _lies_inside(box["x"], box["y"], box["w"], box["h"]):
        return f"has a box outside the picture or without area: {box}"
    return None


def _lies_inside(left: float, top: float, width: float, height: float) -> bool:
    low, high = -1e-6, 1 + 1e-6  # sums of rounded fractions
    return width > 0 and height > 0 and left >= low and top >= low and left + width <= high and top + height <= high


def store_labels(row: LabelRow, document: Json, *, user: str, now: datetime) -> None:
    """Replace all labels of the row by the document's. Authors and times come from the row and the caller."""
    row.labels = empty_labels(row.data) | {
        unit_hash: unit.get("labels", {}) for unit_hash, unit in document["data_units"].items()
    }
    row.object_answers = document["object_answers"]
    row.classification_answers = document["classification_answers"]
    row.object_actions = document["object_actions"]
    for _, entry in _objects(document):
        _fill_in_author(entry, user)
    for answer in row.classification_answers.values():
        _fill_in_author(answer, user)
    _number_objects(row, document)
    row.version += 1
    row.last_edited_at = now


def _fill_in_author(entry: Json, user: str) -> None:
    for key in ("createdBy", "lastEditedBy"):
        if entry.get(key) is None:
            entry[key] = user


def _number_objects(row: LabelRow, document: Json) -> None:
    """Number the objects that have no number yet, feature by feature."""
    feature_of = {entry["objectHash"]: entry["featureHash"] for _, entry in _objects(document)}
    highest: Counter[str] = Counter()
    for object_hash, answer in row.object_answers.items():
        feature = feature_of.get(object_hash, "")
        highest[feature] = max(highest[feature], answer.get("objectNumber") or 0)
    for object_hash, answer in row.object_answers.items():
        if answer.get("objectNumber") is None:
            feature = feature_of.get(object_hash, "")
            highest[feature] += 1
            answer["objectNumber"] = highest[feature]
