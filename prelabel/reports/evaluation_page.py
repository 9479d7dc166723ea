"""Writes the page of an evaluation: what people changed, which thresholds to try, and the worst frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.evaluate.edits import Edits
from prelabel.evaluate.result import Evaluation, Mark, WorstFrame
from prelabel.reports.render import Bar, Figure, counted, curve, render_page, stack
from prelabel.reports.thumbnails import FrameKey, Outline, Thumbnail, ThumbnailReader, data_url, svg_box
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
CURVE_MARGIN = 1.05
"""The height of a chart of thresholds, as a multiple of its highest point."""


def write_evaluation_page(assembly: Assembly, evaluation: Evaluation, path: Path) -> None:
    """Writes the page completely or not at all.

    Args:
        assembly: of the config; frames are shown if their media can still be read.
        evaluation: to show.
        path: of the HTML file.
    """
    reader = ThumbnailReader(assembly)
    frames: dict[str, list[int]] = {}
    for frame in evaluation.worst_frames:
        frames.setdefault(frame.key, []).append(frame.frame_index)
    sources = {
        key: data_url(jpeg)
        for task_key, of_task in frames.items()
        for key, jpeg in reader.read(task_key, of_task).items()
    }
    moved = evaluation.total.moved_iou
    page = render_page(
        "evaluation.html.j2",
        found=evaluation,
        figures=list(_figures(evaluation)),
        models=[(model.model, _class_lines(model.by_class, model.total)) for model in evaluation.models],
        outcomes=OUTCOMES,
        tasks=sorted(evaluation.videos, key=lambda video: (_saved(video.total), video.title)),
        moved=stack([np.array(moved, np.float64)], max(*moved, 1))[0] if any(moved) else "",
        curves=[
            (name, found, curve(found.thresholds, found.actions, max(*found.actions, 1.0) * CURVE_MARGIN))
            for name, found in evaluation.thresholds.items()
        ],
        thumbnails=[_thumbnail(frame, sources) for frame in evaluation.worst_frames],
    )
    write_text_atomically(path, page)


def _figures(evaluation: Evaluation) -> Iterator[Figure]:
    total = evaluation.total
    if total.saved is not None:
        note = f"{total.actions:,} to correct, {total.from_scratch:,} from scratch"
        yield Figure("saved, a box each", f"{total.saved:.0%}", note)
    if total.saved_in_editor is not None:
        note = f"{total.actions_in_editor:,} to correct, {total.from_scratch_in_editor:,} from scratch"
        yield Figure("saved in an editor", f"{total.saved_in_editor:.0%}", note)
    if total.written:
        yield Figure("left untouched", f"{total.untouched / total.written:.0%}", f"of {total.written:,} boxes")
    if total.f1 is not None:
        parts = {"precision": total.precision, "recall": total.recall}
        note = ", ".join(f"{name} {value:.3f}" for name, value in parts.items() if value is not None)
        yield Figure("F1", f"{total.f1:.3f}", note)
    if (score := evaluation.score) is not None:
        yield Figure("mAP", f"{score.map_50_95:.3f}", f"AP50 {score.map_50:.3f}")
    if evaluation.instances_are == "tracks":
        num = total.instances_untouched + total.instances_edited + total.instances_deleted
        yield Figure("tracks untouched", f"{total.instances_untouched:,}", f"of {num:,}")


def _saved(edits: Edits) -> float:
    """Returns the share of actions saved; infinity if there were none, so that such tasks come last."""
    return math.inf if edits.saved_in_editor is None else edits.saved_in_editor


def _class_lines(by_class: Mapping[str, Edits], total: Edits) -> list[tuple[str, Edits, list[Bar]]]:
    """Returns the outcomes of each class's boxes and, if there are several classes, of all boxes."""
    lines: list[tuple[str, Edits, list[Bar]]] = []
    for name, edits in [*by_class.items(), *([("all", total)] if len(by_class) > 1 else [])]:
        counts = (edits.untouched, edits.moved, edits.reclassed, edits.deleted, edits.added)
        num = max(sum(counts), 1)
        lines.append(
            (name, edits, [Bar(*bar) for bar in zip(OUTCOMES, counts, (n / num for n in counts), strict=True)])
        )
    return lines


def _thumbnail(frame: WorstFrame, sources: Mapping[FrameKey, str]) -> Thumbnail:
    place, corrections = f"{frame.title}, frame {frame.frame_index}", counted(frame.num_corrections, "correction")
    outlines = []
    for box in frame.boxes:
        path = svg_box(np.array(box.xyxy) * [frame.width, frame.height, frame.width, frame.height])
        confidence = "" if box.confidence is None else f" {box.confidence:.2f}"
        mark = "kept" if box.mark == "untouched" else box.mark
        outlines.append(Outline(path, STYLES[box.mark], f"{mark}: {box.class_name}{confidence}"))
    return Thumbnail(
        source=sources.get((frame.key, frame.frame_index), ""),
        width=frame.width,
        height=frame.height,
        caption=f"{place}: {corrections}",
        description=f"{place}, with {corrections}",
        outlines=tuple(outlines),
    )
