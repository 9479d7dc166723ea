"""Label rows as the platform has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prelabel.label_row import LabelRow

if TYPE_CHECKING:
    from encord.objects import LabelRowV2


def labels_as_sent(row: LabelRowV2) -> LabelRow:
    """Returns the row's labels as the platform sends them, not as the SDK writes them after parsing.

    A row that has no labels yet is made on the platform: ask for its `label_hash` first where nothing may change.
    """
    documents: list[LabelRow] = []
    # The SDK (encord 0.1.211) hands what it got to this method, which would parse it.
    row.from_labels_dict = documents.append  # type: ignore[method-assign,assignment]
    try:
        row.initialise_labels(include_archived=True)  # else a save would delete the labels of archived features
    finally:
        del row.from_labels_dict  # the class's own again; else the row would hold its labels for as long as it lives
    return dict(documents[0])
