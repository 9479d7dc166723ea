"""An evaluation for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from prelabel.evaluation.edits import Edits
from prelabel.evaluation.result import Evaluation

COLUMNS = ("boxes", "kept", "moved", "reclassed", "deleted", "added", "P", "R", "F1", "saved")


def edit_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Yields what became of the boxes: a table a model, a line a class, and their sum.

    P and R are precision and recall as people's corrections have them.
    """
    for entry in evaluation.models:
        table = _table("class", *COLUMNS, title=f"made by {entry.model}")
        for name, edits in entry.by_class.items():
            table.add_row(escape(name), *_cells(edits))
        if len(entry.by_class) > 1:
            table.add_row("all", *_cells(entry.total), style="bold")
        yield table


def threshold_table(evaluation: Evaluation) -> Table | None:
    """Returns which thresholds would have cost fewer corrections; None where none would."""
    table = _table("class", "threshold", "suggested", "actions", "with it", "of boxes found")
    for name, curve in evaluation.thresholds.items():
        if curve.suggested != curve.in_force:
            before, after = curve.actions_at(curve.in_force), curve.actions_at(curve.suggested)
            thresholds = (f"{curve.in_force:.2f}", f"{curve.suggested:.2f}")
            table.add_row(escape(name), *thresholds, f"{before:,.0f}", f"{after:,.0f}", f"{curve.num_boxes:,}")
    return table if table.row_count else None


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yields what else there is to say, a line each."""
    total = evaluation.total
    num = len(evaluation.videos)
    yield f"compared {num} task{'s' if num > 1 else ''} with {evaluation.against}"
    if total.saved is not None:
        yield (
            f"{total.actions:,} actions to correct, {total.from_scratch:,} from scratch: "
            f"{total.saved:.0%} saved (how this is counted: docs/evaluation.md)"
        )
    if total.written and not total.actions:
        yield "nothing differs from what was written: has anybody looked at these labels yet?"
    if (score := evaluation.score) is not None:
        yield f"mAP {score.map_50_95:.3f} (AP50 {score.map_50:.3f}) against the truth"
    if evaluation.left_out.on_other_frames:
        yield f"{evaluation.left_out.on_other_frames:,} boxes on frames that the model was not shown: not counted"
    for name, number in evaluation.left_out.of_other_classes.items():
        yield f"{number:,} boxes of {name!r}, which the model does not know: not counted"


def _cells(edits: Edits) -> list[str]:
    counts = (edits.written, edits.untouched, edits.moved, edits.reclassed, edits.deleted, edits.added)
    shares = (edits.precision, edits.recall, edits.f1)
    saved = "" if edits.saved is None else f"{edits.saved:.0%}"
    return [*(f"{count:,}" for count in counts), *("" if value is None else f"{value:.2f}" for value in shares), saved]


def _table(first: str, *numbers: str, title: str | None = None) -> Table:
    shown = None if title is None else escape(title)
    table = Table(first, box=None, pad_edge=False, title=shown, title_justify="left")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table
