"""Rows that people have begun to work on, told by what stands on them."""

from __future__ import annotations

from datetime import datetime

from prelabel.errors import TakenError
from prelabel.label_row.answers import remove_own_answers
from prelabel.label_row.own import LabelRow, iterate_frames, remove_own
from prelabel.label_row.write import RowChange, WrittenRow


def count_labels_of_others(row: LabelRow) -> int:
    """Returns how many objects and classifications stand on a row that are not prelabel's own and untouched.

    Raises:
        LabelError: if the row is of another kind than video, image or image group.
    """
    left = remove_own_answers(remove_own(row))
    hashes = {*(left.get("object_answers") or ()), *(left.get("classification_answers") or ())}
    for _, _, labels in iterate_frames(left):
        hashes.update(label["objectHash"] for label in labels.get("objects") or ())
    return len(hashes)


def refuse_begun(title: str, row: LabelRow) -> None:
    """Returns if all that stands on a row is prelabel's own and untouched.

    Raises:
        TakenError: somebody has begun to work on it.
    """
    count = count_labels_of_others(row)
    if count:
        raise TakenError(
            f"{title}: {count} {'label' if count == 1 else 'labels'} on its row that prelabel did not write or that "
            "somebody has changed: left as it is, nothing was saved (labels.if_begun: merge would add to it)"
        )


def unless_begun(title: str, change: RowChange) -> RowChange:
    """Returns the change, which raises a TakenError now on a row that somebody has begun to work on."""

    def change_unbegun(row: LabelRow, now: datetime) -> WrittenRow:
        refuse_begun(title, row)
        return change(row, now)

    return change_unbegun
