"""The page of an evaluation: what people did to the pre-labels, which thresholds to try, and where it was worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.evaluate.edits import Edits
from prelabel.evaluate.result import Evaluation, Mark, MarkedBox, WorstFrame
from prelabel.evaluate.thresholds import ThresholdCurve
from prelabel.reports.charts import WIDTH, curve, stack
from prelabel.reports.pictures import Outline, Picture, Place, ThumbnailReader
from prelabel.reports.render import Figure, counted, render_page
from prelabel.runtime.files import write_text_atomically

OUTCOMES = ("kept", "moved", "reclassed", "deleted", "added")
STYLES: Mapping[Mark, str] = {
    "untouched": "kept",
    "moved from": "moved from",
    "moved to": "moved",
    "reclassed from": "reclassed from",
    "reclassed to": "reclassed",
    "deleted": "deleted",
    "added": "added",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One outcome of a class's boxes.

    Attributes:
        name: of the outcome.
        number: boxes.
        share: of all that were written or added.
    """

    name: str
    number: int
    share: float


@dataclass(frozen=True, slots=True)
class ClassLine:
    """A class of a model, or the sum of all."""

    name: str
    edits: Edits
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class CurveView:
    """Actions by threshold of one class.

    Attributes:
        name: the class.
        curve: the figures.
        path: of the line.
        now: where the threshold in force is, 0 to 1000.
        better: where the suggested one is, 0 to 1000.
        most: actions that reach the top.
        gain: actions that the suggested threshold would have saved.
    """

    name: str
    curve: ThresholdCurve
    path: str
    now: float
    better: float
    most: float
    gain: float


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """What the template shows."""

    evaluation: Evaluation
    tiles: tuple[Figure, ...]
    models: tuple[tuple[str, tuple[ClassLine, ...]], ...]
    outcomes: tuple[str, ...]
    moved: str
    curves: tuple[CurveView, ...]
    pictures: tuple[Picture, ...]


def write_evaluation_page(assembly: Assembly, evaluation: Evaluation, path: Path) -> None:
    """Writes the page, whole or not at all.

    Args:
        assembly: of the config, for pictures of frames whose media are still on this machine.
        evaluation: what was found.
        path: of the HTML file.
    """
    shelf = ThumbnailReader(assembly)
    frames: dict[str, list[int]] = {}
    for frame in evaluation.worst_frames:
        frames.setdefault(frame.key, []).append(frame.frame_index)
    sources = {place: source for key, of_task in frames.items() for place, source in shelf.read(key, of_task).items()}
    write_text_atomically(path, render_page("evaluation.html.j2", _page_of(evaluation, sources)))


def _page_of(evaluation: Evaluation, sources: Mapping[Place, str]) -> EvaluationPage:
    moved = evaluation.total.moved_iou
    return EvaluationPage(
        evaluation=evaluation,
        tiles=tuple(_tiles(evaluation)),
        models=tuple((model.model, _lines(model.by_class, model.total)) for model in evaluation.models),
        outcomes=OUTCOMES,
        moved=stack([np.array(moved, np.float64)], max(*moved, 1))[0] if any(moved) else "",
        curves=tuple(_curve_view(name, found) for name, found in evaluation.thresholds.items()),
        pictures=tuple(_picture(frame, sources) for frame in evaluation.worst_frames),
    )


def _tiles(evaluation: Evaluation) -> list[Figure]:
    total = evaluation.total
    tiles = []
    if total.saved is not None:
        note = f"{total.actions:,} to correct, {total.from_scratch:,} from scratch"
        tiles.append(Figure("actions saved", f"{total.saved:.0%}", note))
    if total.written:
        tiles.append(Figure("left untouched", f"{total.untouched / total.written:.0%}", f"of {total.written:,} boxes"))
    for name, value in (("precision", total.precision), ("recall", total.recall), ("F1", total.f1)):
        if value is not None:
            tiles.append(Figure(name, f"{value:.3f}"))
    if (score := evaluation.score) is not None:
        tiles.append(Figure("mAP", f"{score.map_50_95:.3f}", f"AP50 {score.map_50:.3f}"))
    if evaluation.instances_are == "tracks":
        num = total.instances_untouched + total.instances_edited + total.instances_deleted
        tiles.append(Figure("tracks untouched", f"{total.instances_untouched:,}", f"of {num:,}"))
    return tiles


def _lines(by_class: Mapping[str, Edits], total: Edits) -> tuple[ClassLine, ...]:
    lines = [_line(name, edits) for name, edits in by_class.items()]
    return (*lines, _line("all", total)) if len(lines) > 1 else tuple(lines)


def _line(name: str, edits: Edits) -> ClassLine:
    numbers = (edits.untouched, edits.moved, edits.reclassed, edits.deleted, edits.added)
    whole = max(sum(numbers), 1)
    parts = (Part(part, number, number / whole) for part, number in zip(OUTCOMES, numbers, strict=True))
    return ClassLine(name, edits, tuple(parts))


def _curve_view(name: str, found: ThresholdCurve) -> CurveView:
    most = max(*found.actions, 1.0)
    return CurveView(
        name=name,
        curve=found,
        path=curve(found.thresholds, found.actions, most * 1.05),
        now=found.in_force * WIDTH,
        better=found.suggested * WIDTH,
        most=most,
        gain=found.actions_at(found.in_force) - found.actions_at(found.suggested),
    )


def _picture(frame: WorstFrame, sources: Mapping[Place, str]) -> Picture:
    corrections = counted(frame.num_corrections, "correction")
    return Picture(
        source=sources.get((frame.key, frame.frame_index), ""),
        width=frame.width,
        height=frame.height,
        caption=f"{frame.title}, frame {frame.frame_index}: {corrections}",
        description=f"{frame.title}, frame {frame.frame_index}, with {corrections}",
        outlines=tuple(map(_outline, frame.boxes)),
    )


def _outline(box: MarkedBox) -> Outline:
    x1, y1, x2, y2 = box.xyxy
    mark = "kept" if box.mark == "untouched" else box.mark
    confidence = "" if box.confidence is None else f" {box.confidence:.2f}"
    return Outline(x1, y1, x2 - x1, y2 - y1, STYLES[box.mark], "", f"{mark}: {box.class_name}{confidence}")
