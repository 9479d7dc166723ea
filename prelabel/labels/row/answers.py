"""Writes answers to a classification onto a label row.

They replace what prelabel wrote before; all other labels stay.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from prelabel.data.classification import Classification, Step
from prelabel.errors import LabelError
from prelabel.labels.answers import Answer, PlacedAnswer
from prelabel.labels.row.own import NUM_NONCES, LabelRow, WrittenRow, as_row_time, check_kind

AnswerEntry = dict[str, Any]
"""An entry of `classification_answers`, in the SDK's form."""


def write_answers(
    row: LabelRow, answers: Sequence[PlacedAnswer], classification: Classification, *, now: datetime
) -> WrittenRow:
    """Returns the row with a classification instance for each answer.

    They replace prelabel's own untouched answers to this classification; everything else on the row stays. An answer is
    left out if a person has answered the classification on one of its frames. An answer that would be written again
    unchanged keeps its date.

    Args:
        row: of a video, an image or an image group; not changed.
        answers: no two of them on the same frame.
        classification: the question.
        now: creation time of the answers.

    Raises:
        LabelError: the row is of another kind.
    """
    check_kind(row)
    own = find_own_answers(row, classification.feature_hash)
    base = _without(row, own)
    others = [
        entry
        for entry in base["classification_answers"].values()
        if entry.get("featureHash") == classification.feature_hash
    ]
    made_at = as_row_time(now)
    added: dict[str, AnswerEntry] = {}
    for placed in answers:
        if any(_overlaps(placed, entry, classification) for entry in others):
            continue
        entry = _entry(placed, classification, made_at)
        taken = base["classification_answers"]
        key = next((key for key in _hashes_of(row, entry) if key not in taken), None)
        if key is None:
            raise LabelError(f"label row {row.get('data_title')!r}: all hashes that this answer can have are in use")
        added[key] = own.get(key) or {**entry, "classificationHash": key}
    answered = {**base, "classification_answers": {**base["classification_answers"], **added}}
    return WrittenRow(answered, num_instances=len(added))


def find_own_answers(row: LabelRow, feature_hash: str | None = None) -> dict[str, AnswerEntry]:
    """Returns prelabel's own untouched answers by hash; to one classification if given, otherwise to all."""
    return {
        key: entry
        for key, entry in (row.get("classification_answers") or {}).items()
        if feature_hash in (None, entry.get("featureHash"))
        and entry.get("manualAnnotation") is False
        and not entry.get("spaces")
        and key in _hashes_of(row, entry)
    }


def remove_own_answers(row: LabelRow) -> LabelRow:
    """Returns the row without prelabel's own untouched answers; the given row does not change."""
    return _without(row, find_own_answers(row))


def _without(row: LabelRow, own: Mapping[str, AnswerEntry]) -> LabelRow:
    left = {key: entry for key, entry in row["classification_answers"].items() if key not in own}
    return {**row, "classification_answers": left}


def _entry(placed: PlacedAnswer, classification: Classification, made_at: str) -> AnswerEntry:
    """Returns the entry as `LabelRowV2.to_encord_dict` writes it, without its hash."""
    return {
        "classifications": _attribute_answers(placed.answer),
        "featureHash": classification.feature_hash,
        "spaces": {},
        "range": [[placed.first_frame, placed.last_frame]],
        "createdBy": None,
        "createdAt": made_at,
        "lastEditedBy": None,
        "lastEditedAt": made_at,
        "confidence": round(placed.answer.confidence, 5),
        "manualAnnotation": False,
    }


def _attribute_answers(answer: Answer) -> list[dict[str, Any]]:
    """Returns the answer of each attribute, nested ones first, as the SDK writes them."""
    by_attribute: dict[str, list[Step]] = {}
    for choice in answer.choices:
        for step in choice.steps:
            by_attribute.setdefault(step.attribute_hash, []).append(step)
    return [_attribute_answer(steps) for steps in reversed(by_attribute.values())]


def _attribute_answer(steps: Sequence[Step]) -> dict[str, Any]:
    value: str | list[dict[str, str]] = steps[0].label
    if steps[0].option_hash:
        value = [{"name": step.label, "value": step.value, "featureHash": step.option_hash} for step in steps]
    return {
        "name": steps[0].attribute_name,
        "value": steps[0].attribute_name.lower().replace(" ", "_"),
        "answers": value,
        "featureHash": steps[0].attribute_hash,
        "manualAnnotation": False,
    }


def _overlaps(placed: PlacedAnswer, entry: AnswerEntry, classification: Classification) -> bool:
    ranges = entry.get("range")
    if classification.is_global or not ranges:
        return True
    return any(first <= placed.last_frame and placed.first_frame <= last for first, last in ranges)


def _hashes_of(row: LabelRow, entry: AnswerEntry) -> list[str]:
    """Returns the hashes that an answer can have; none if prelabel does not write answers of this form.

    `own.py` explains what the hashes are for.
    """
    try:
        lines = []
        for answer in entry["classifications"]:
            value = answer["answers"]
            options = value if isinstance(value, str) else " ".join(sorted(option["featureHash"] for option in value))
            lines.append(f"{answer['featureHash']} {options}")
        content = "\n".join(
            [
                "prelabel answer",
                str(row["data_hash"]),
                entry["featureHash"],
                " ".join(f"{first}-{last}" for first, last in entry["range"]),
                *sorted(lines),
                f"{entry['confidence']:.5f}",
            ]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
    digests = (hashlib.sha256(f"{content}\n{nonce}".encode()).digest() for nonce in range(NUM_NONCES))
    return [base64.b64encode(digest[:6]).decode() for digest in digests]
