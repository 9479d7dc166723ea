"""The result of an evaluation, as JSON and as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from prelabel.evaluate.edits import Edits
from prelabel.evaluate.thresholds import ThresholdCurve
from prelabel.runtime.files import write_text_atomically
from prelabel.store.report import Score

Mark = Literal["untouched", "moved from", "moved to", "reclassed from", "reclassed to", "deleted", "added"]


@dataclass(frozen=True, slots=True)
class MarkedBox:
    """A box on one of the frames to show.

    Attributes:
        mark: what changed about the box.
        class_name: the written class of a written box, the current class of a current one.
        xyxy: corners in fractions of the frame.
        confidence: of a written box; None for a current one.
    """

    mark: Mark
    class_name: str
    xyxy: tuple[float, float, float, float]
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class WorstFrame:
    """A frame that took many corrections.

    Attributes:
        key: of the task.
        title: of the task.
        frame_index: 0-based.
        width: of the frame in pixels.
        height: of the frame in pixels.
        num_corrections: number of boxes moved, reclassed, deleted or added on the frame.
        boxes: all boxes of the frame, before and after.
    """

    key: str
    title: str
    frame_index: int
    width: int
    height: int
    num_corrections: int
    boxes: tuple[MarkedBox, ...]


@dataclass(frozen=True, slots=True)
class VideoEdits:
    """What annotators changed about one task's labels.

    Attributes:
        key: of the task.
        title: of the task, made unique.
        model: name of the detector, with the start of its weights' hash.
        num_frames: number of compared frames.
        by_class: the counts by class.
    """

    key: str
    title: str
    model: str
    num_frames: int
    by_class: Mapping[str, Edits]

    @property
    def total(self) -> Edits:
        """The sum over all classes."""
        return sum(self.by_class.values(), Edits())


@dataclass(frozen=True, slots=True)
class ModelEdits:
    """What annotators changed about the labels of one version of a model.

    Attributes:
        model: name of the model, with the start of its weights' hash.
        by_class: the counts by class.
    """

    model: str
    by_class: Mapping[str, Edits]

    @property
    def total(self) -> Edits:
        """The sum over all classes."""
        return sum(self.by_class.values(), Edits())


@dataclass(frozen=True, slots=True)
class Skipped:
    """A task that was not compared, and the reason."""

    title: str
    reason: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The number of current boxes that do not count, because they say nothing about the model.

    Attributes:
        before_the_run: boxes that were on the label row before the run wrote to it.
        on_other_frames: boxes on frames that the model has not seen.
        of_other_classes: boxes of classes that the model does not know, by class.
    """

    before_the_run: int = 0
    on_other_frames: int = 0
    of_other_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What annotators changed about the labels of a config's runs.

    Attributes:
        prelabel: version of prelabel.
        made_at: UTC, ISO 8601.
        config_sha256: hash of the part of the config that affects the labels.
        against: the place of the current labels, in words.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box is accepted if it is interpolated or if exact geometry is unknown.
        instances_are: `per_frame` for one instance a box; `tracks` for one instance a thing, over all its frames.
        models: the counts by version of the model.
        videos: the counts by task.
        thresholds: the threshold curves by class.
        score: mean average precision, if a ground truth was given.
        worst_frames: the frames with the most corrections, the worst first.
        skipped: tasks that were not compared.
        left_out: number of boxes that were not compared.
        warnings: what to know before trusting the figures.
    """

    prelabel: str
    made_at: str
    config_sha256: str
    against: str
    min_iou: float
    accept_iou: float
    instances_are: Literal["per_frame", "tracks"]
    models: tuple[ModelEdits, ...]
    videos: tuple[VideoEdits, ...]
    thresholds: Mapping[str, ThresholdCurve]
    score: Score | None
    worst_frames: tuple[WorstFrame, ...]
    skipped: tuple[Skipped, ...]
    left_out: LeftOut
    warnings: tuple[str, ...] = ()

    @property
    def total(self) -> Edits:
        """The sum over all models and classes."""
        return sum((model.total for model in self.models), Edits())

    def write(self, path: Path) -> None:
        """Writes the evaluation as JSON, with shares next to counts."""
        values = {
            **asdict(self),
            "total": _with_shares(self.total),
            "models": [_counted(entry, {"model": entry.model}) for entry in self.models],
            "videos": [
                _counted(
                    entry, {"key": entry.key, "title": entry.title, "model": entry.model, "frames": entry.num_frames}
                )
                for entry in self.videos
            ],
            "score": None if self.score is None else self.score.figures,
            "thresholds": {
                name: {
                    **asdict(curve),
                    "actions_in_force": curve.actions_at(curve.in_force),
                    "actions_suggested": curve.actions_at(curve.suggested),
                }
                for name, curve in self.thresholds.items()
            },
        }
        write_text_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _counted(entry: ModelEdits | VideoEdits, named: Mapping[str, str | int]) -> dict[str, object]:
    by_class = {name: _with_shares(edits) for name, edits in entry.by_class.items()}
    return {**named, "total": _with_shares(entry.total), "by_class": by_class}


def _with_shares(edits: Edits) -> dict[str, object]:
    shares = {name: getattr(edits, name) for name in ("precision", "recall", "f1", "saved", "saved_in_editor")}
    return {
        **asdict(edits),
        "written": edits.written,
        "current": edits.current,
        **{name: None if value is None else round(value, 5) for name, value in shares.items()},
    }


COLUMNS = ("boxes", "kept", "moved", "reclassed", "deleted", "added", "P", "R", "F1", "saved", "in editor")


def edit_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Yields a table for each model, with a row for each class and a row for their sum.

    P and R are precision and recall, measured by the annotators' corrections.
    """
    for entry in evaluation.models:
        table = _table("class", *COLUMNS, title=f"made by {entry.model}")
        for name, edits in entry.by_class.items():
            table.add_row(escape(name), *_cells(edits))
        if len(entry.by_class) > 1:
            table.add_row("all", *_cells(entry.total), style="bold")
        yield table


def threshold_table(evaluation: Evaluation) -> Table | None:
    """Returns a table of thresholds that would have needed fewer corrections; None if there are none."""
    table = _table("class", "threshold", "suggested", "actions", "with it", "boxes detected")
    for name, curve in evaluation.thresholds.items():
        if curve.suggested != curve.in_force:
            before, after = curve.actions_at(curve.in_force), curve.actions_at(curve.suggested)
            thresholds = (f"{curve.in_force:.2f}", f"{curve.suggested:.2f}")
            table.add_row(escape(name), *thresholds, f"{before:,.0f}", f"{after:,.0f}", f"{curve.num_boxes:,}")
    return table if table.row_count else None


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Yields the parts of the evaluation that are not in tables, line by line."""
    total = evaluation.total
    num = len(evaluation.videos)
    yield f"compared {num} task{'s' if num > 1 else ''} with {evaluation.against}"
    if total.saved is not None:
        yield (
            f"a box each: {total.actions:,} actions to correct, {total.from_scratch:,} from scratch, "
            f"{total.saved:.0%} saved"
        )
    if total.saved_in_editor is not None:
        yield (
            f"in an editor that interpolates: {total.actions_in_editor:,} actions to correct, "
            f"{total.from_scratch_in_editor:,} from scratch, {total.saved_in_editor:.0%} saved "
            "(docs/evaluation.md: Actions)"
        )
    if total.written and not total.actions:
        yield "no label differs from what was written: has anybody reviewed these labels yet?"
    if (score := evaluation.score) is not None:
        yield f"mAP {score.map_50_95:.3f} (AP50 {score.map_50:.3f}) against the truth"
    left_out = evaluation.left_out
    if left_out.before_the_run:
        yield f"not counted: {left_out.before_the_run:,} boxes that were there before the run"
    if left_out.on_other_frames:
        yield f"not counted: {left_out.on_other_frames:,} boxes on frames that the model was not shown"
    for name, number in left_out.of_other_classes.items():
        yield f"not counted: {number:,} boxes of {name!r}, which the model does not know"


def _cells(edits: Edits) -> list[str]:
    counts = (edits.written, edits.untouched, edits.moved, edits.reclassed, edits.deleted, edits.added)
    shares = (edits.precision, edits.recall, edits.f1)
    saved = (edits.saved, edits.saved_in_editor)
    return [
        *(f"{count:,}" for count in counts),
        *("" if value is None else f"{value:.2f}" for value in shares),
        *("" if value is None else f"{value:.0%}" for value in saved),
    ]


def _table(first: str, *numbers: str, title: str | None = None) -> Table:
    shown = None if title is None else escape(title)
    # Eleven numbers and the names fit into the 80 columns of a terminal: names give way first, and wrap.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title=shown, title_justify="left")
    table.add_column(first, min_width=8)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table
