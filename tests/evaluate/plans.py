"""Label rows whose people's edits are known, because a test made them."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from prelabel.evaluate.compare import Compared, boxes_of_row, compare_boxes
from prelabel.evaluate.edits import Edits, count_edits
from prelabel.labels.row.own import LabelRow, iterate_frames
from prelabel.labels.row.write import write_detections
from tests.labelling import MEDIA, NOW, SHAPES, detections, map_of_shapes, new_row

CELL = 12
EDITS = ("leave", "move", "reclass", "reclass and move", "redraw as other class", "delete")


@dataclass(frozen=True)
class Plan:
    """Boxes on a grid of cells that do not overlap, what is done to each, and what is drawn besides."""

    kind: str
    tracks: bool
    written: tuple[tuple[int, int, int], ...]  # frame, cell, class_id
    edits: tuple[str, ...]
    drawn: tuple[tuple[int, int, int], ...]


@st.composite
def plans(draw: st.DrawFn, *, tracks: bool | None = None) -> Plan:
    kind = "video" if tracks else draw(st.sampled_from(sorted(MEDIA)))
    frames, cells, classes = st.integers(0, MEDIA[kind].num_frames - 1), st.integers(0, 3), st.integers(0, 1)
    places = draw(st.lists(st.tuples(frames, cells), unique=True, max_size=12))
    rows = [(frame, cell, draw(classes)) for frame, cell in sorted(places)]
    num_drawn = draw(st.integers(0, len(rows)))
    drawn, written = rows[:num_drawn], rows[num_drawn:]
    edits = draw(st.lists(st.sampled_from(EDITS), min_size=len(written), max_size=len(written)))
    linked = kind == "video" and (draw(st.booleans()) if tracks is None else tracks)
    if linked:  # one instance a cell, of one class
        written = [(frame, cell, cell % 2) for frame, cell, _ in written]
    return Plan(kind, linked, tuple(written), tuple(edits), tuple(drawn))


def corners(cell: int, shift: int = 0) -> tuple[int, int, int, int]:
    x = 1 + cell * 14 + shift
    return (x, 10, x + CELL - shift, 10 + CELL)


def written_row(plan: Plan) -> LabelRow:
    info = MEDIA[plan.kind]
    scale = [info.sizes(np.array([frame]))[0] / (64, 48) for frame, _, _ in plan.written]
    rows = [
        (frame, np.array(corners(cell)) * np.tile(by, 2), 0.5 + 0.1 * cell, class_id)
        for (frame, cell, class_id), by in zip(plan.written, scale, strict=True)
    ]
    track_id = [cell if plan.tracks else -1 for _, cell, _ in plan.written]
    return write_detections(new_row(info), detections(*rows, track_id=track_id), info, map_of_shapes(), now=NOW).row


def shape_of(class_id: int) -> str:
    return SHAPES[class_id]


def geometry(shape: str, cell: int, shift: int) -> dict[str, object]:
    x1, y1, x2, y2 = (value / side for value, side in zip(corners(cell, shift), (64, 48, 64, 48), strict=True))
    box = {"h": y2 - y1, "w": x2 - x1, "x": x1, "y": y1}
    return {"boundingBox": box} if shape == "bounding_box" else {"rotatableBoundingBox": {**box, "theta": 0.0}}


def with_class(label: dict, shape: str, geometry: dict[str, object]) -> dict:
    kept = {key: value for key, value in label.items() if key not in ("boundingBox", "rotatableBoundingBox")}
    number = SHAPES.index(shape) + 1
    return {**kept, "name": shape, "shape": shape, "featureHash": f"obj{number:05d}", **geometry}


def edited_row(row: LabelRow, plan: Plan) -> LabelRow:
    """Returns the row after its people have been at it, sent over JSON as it would be."""
    edited = copy.deepcopy(row)
    edit_of = {
        (frame, cell): (edit, class_id) for (frame, cell, class_id), edit in zip(plan.written, plan.edits, strict=True)
    }
    for _, frame, labels in iterate_frames(edited):
        objects = [after for label in labels.get("objects", ()) for after in edit(label, frame, edit_of)]
        labels["objects"] = objects + [drawn(n, *place) for n, place in enumerate(plan.drawn) if place[0] == frame]
    missing = {frame for frame, _, _ in plan.drawn} - {frame for _, frame, _ in iterate_frames(edited)}
    for frame in missing:  # of a video, whose frames without labels are left out
        (unit,) = edited["data_units"].values()
        new = [drawn(n, *place) for n, place in enumerate(plan.drawn) if place[0] == frame]
        unit["labels"][str(frame)] = {"objects": new, "classifications": []}
    return json.loads(json.dumps(edited))


def edit(label: dict, frame: int, edit_of: dict) -> list[dict]:
    cell = round((label["confidence"] - 0.5) * 10)
    doing, class_id = edit_of[frame, cell]
    shape, other = shape_of(class_id), shape_of(1 - class_id)
    match doing:
        case "leave":
            return [label]
        case "move":
            return [{**label, "manualAnnotation": True, **geometry(shape, cell, 3)}]
        case "reclass":
            return [with_class(label, other, geometry(other, cell, 0))]
        case "reclass and move":
            return [with_class(label, other, geometry(other, cell, 3))]
        case "redraw as other class":
            hash_ = f"new{frame:02d}{cell:03d}"
            return [with_class({**label, "objectHash": hash_}, other, geometry(other, cell, 2))]
    return []


def drawn(number: int, frame: int, cell: int, class_id: int) -> dict:
    label = {"objectHash": f"drawn{number:03d}", "manualAnnotation": True}
    return with_class(label, shape_of(class_id), geometry(shape_of(class_id), cell, 1))


def compare(plan: Plan) -> Compared:
    row = written_row(plan)
    return compare_boxes(boxes_of_row(row), boxes_of_row(edited_row(row, plan)), min_iou=0.5, accept_iou=1.0)


def edits_of(compared: Compared) -> dict[str, Edits]:
    frames = np.union1d(compared.written.frame_index, compared.current.frame_index)
    return count_edits(compared, frames, accept_iou=0.8)
