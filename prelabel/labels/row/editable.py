"""A label row that a user's function edits: the SDK's own object, but the run saves and moves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prelabel.errors import LabelError
from prelabel.labels.row.own import LabelRow

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


@dataclass
class EditableRow:
    """A label row to edit, and its content before.

    `save` and `set_priority` only note what the function asks for: an error after them leaves nothing half done, and a
    dry run changes nothing. `workflow_complete` and `workflow_reopen` raise an error.

    Attributes:
        sdk: the row with its labels.
        sent: its JSON from the platform or the file.
        before: its JSON as the SDK writes it before any edit.
        priority: set by the function.
    """

    sdk: LabelRowV2
    sent: LabelRow
    before: LabelRow = field(init=False)
    priority: object = None

    def __post_init__(self) -> None:
        self.sdk.from_labels_dict(self.sent)
        self.before = self.sdk.to_encord_dict()
        # Replaces methods of this object only, not of the SDK's class (encord 0.1.211).
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
    """Replaces `save`: the run saves the changes."""


def _refuse_to_move(*_: object, **__: object) -> None:
    raise LabelError("the run moves the task, once its labels are saved: return the pathway instead")


def labels_of(row: LabelRow) -> dict[str, Any]:
    """Returns the labels of a row, without links and times."""
    units = {key: unit.get("labels") or {} for key, unit in row["data_units"].items()}
    parts = ("object_answers", "classification_answers", "object_actions", "spaces")
    return {"data_units": units, **{part: row.get(part) or {} for part in parts}}


def added_labels(before: LabelRow, after: LabelRow) -> dict[str, str]:
    """Returns the names of new instances, by object or classification hash."""
    known = _names(before)
    return {key: name for key, name in _names(after).items() if key not in known}


def count_names(added: Mapping[str, str]) -> dict[str, int]:
    """Returns the number of instances of each name.

    >>> count_names({"a": "Car", "b": "Car"})
    {'Car': 2}
    """
    return dict(Counter(added.values()))


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
