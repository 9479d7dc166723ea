"""Compares written boxes with current ones: what changed about each written box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import GRID, corners_on_grid, iou_matrix, paired_iou
from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.labels.row.own import LabelRow, iterate_frames
from prelabel.labels.row.shapes import box_texts, geometry_text, plain_boxes

UNKNOWN_GEOMETRY = 0
COLUMNS = ("corners", "class_name", "instance", "confidence", "geometry", "created_at")


@dataclass(frozen=True)
class Boxes:
    """The boxes of one video's labels, one row for each object on a frame, in frame order.

    Attributes:
        frame_index: int64 (N,), 0-based, not falling.
        corners: int64 (N, 4), x1, y1, x2, y2 in hundred-thousandths of the frame.
        class_name: str (N,), the ontology object's name.
        instance: str (N,), the object hash, the same on all frames of an instance. It is empty if it is unknown; such a
            box is an instance of its own.
        confidence: float64 (N,), 0..1; 1 if a person drew the box.
        geometry: uint64 (N,), a digest of the exact geometry; `UNKNOWN_GEOMETRY` if only the box is known.
        created_at: float64 (N,), seconds since 1970; NaN if unknown. By default, all are unknown.
    """

    frame_index: NDArray[np.int64]
    corners: NDArray[np.int64]
    class_name: NDArray[np.str_]
    instance: NDArray[np.str_]
    confidence: NDArray[np.float64]
    geometry: NDArray[np.uint64]
    created_at: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if not len(self.created_at):
            object.__setattr__(self, "created_at", np.full(len(self), np.nan))
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"{name}: got {len(getattr(self, name))} rows, expected {len(self)}")
        if np.any(np.diff(self.frame_index) < 0):
            raise ValueError("frame_index: falls, expected presentation order")

    def __len__(self) -> int:
        return len(self.frame_index)

    def where(self, keep: NDArray[np.bool_]) -> Boxes:
        """Returns the rows for which `keep`, bool (N,), is true."""
        return replace(self, **{name: getattr(self, name)[keep] for name in ("frame_index", *COLUMNS)})

    @cached_property
    def instance_number(self) -> NDArray[np.int64]:
        """The number of each box's instance, int64 (N,), from 0.

        Each object hash is an instance, and so is each box without a hash.
        """
        names, number = np.unique(self.instance, return_inverse=True)
        is_unknown = self.instance == ""
        if not is_unknown.any():
            return number
        # The empty name is the first, so the known instances move down by one.
        return np.where(is_unknown, len(names) - 2 + np.cumsum(is_unknown), number - 1)


def boxes_of_row(row: LabelRow) -> Boxes:
    """Returns the boxes on a label row.

    A shape other than a box gives its bounding box, and a digest by which a change is detected. Objects without a
    bounding box, such as points, are left out.

    Raises:
        LabelError: the row is not of a video, an image or an image group, or an object has no known form.
    """
    frames: list[int] = []
    units: list[Mapping[str, Any]] = []
    labels: list[Mapping[str, Any]] = []
    for unit_hash, frame_index, on_frame in sorted(iterate_frames(row), key=lambda frame: frame[1]):
        for label in on_frame.get("objects") or ():
            if not label.get("isDeleted"):
                frames.append(frame_index)
                units.append(row["data_units"][unit_hash])
                labels.append(label)
    corners, has_box = np.zeros((len(labels), 4), np.int64), np.zeros(len(labels), np.bool_)
    geometry = np.full(len(labels), UNKNOWN_GEOMETRY, np.uint64)
    plain, hwxy = plain_boxes(labels)
    ends = hwxy[:, 2:], hwxy[:, 2:] + hwxy[:, 1::-1]
    corners[plain] = np.rint(np.concatenate([np.minimum(*ends), np.maximum(*ends)], axis=1) * GRID)
    has_box[plain] = True
    geometry[plain] = [_digest(text) for text in box_texts(np.rint(hwxy * GRID).astype(np.int64))]
    known: list[tuple[str, str, float, float]] = []
    row_number = 0
    try:
        for row_number in np.flatnonzero(~has_box).tolist():
            label = labels[row_number]
            if (found := _corners(label, units[row_number])) is not None:
                corners[row_number], has_box[row_number] = found, True
                geometry[row_number] = _digest(geometry_text(label))
        for label in labels:
            row_number = len(known)
            known.append(_known(label))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LabelError(
            f"label row {row.get('data_title')!r}: frame {frames[row_number]}: an object is of no known form: {error!r}"
        ) from error
    names, hashes, confidences, created_at = zip(*known, strict=True) if known else ((),) * 4
    boxes = Boxes(
        frame_index=np.array(frames, np.int64),
        corners=corners,
        class_name=np.array(names, np.str_),
        instance=np.array(hashes, np.str_),
        confidence=np.array(confidences, np.float64),
        geometry=geometry,
        created_at=np.array(created_at, np.float64),
    )
    return boxes.where(has_box)


def boxes_of_corners(
    frame_index: NDArray[np.int64],
    xyxy: NDArray[np.float64],
    info: VideoInfo,
    class_names: Sequence[str],
    *,
    confidence: NDArray[np.float32] | None = None,
    instance: NDArray[np.int64] | None = None,
) -> Boxes:
    """Returns boxes from corners; their exact geometry is unknown.

    Args:
        frame_index: int64 (N,), not falling.
        xyxy: (N, 4), corners in pixels of the displayed frame.
        info: the video.
        class_names: N names.
        confidence: (N,), 0..1; 1 by default.
        instance: int64 (N,), the instance of each box; negative if unknown. By default, all are unknown.
    """
    num = len(frame_index)
    number = np.full(num, -1) if instance is None else instance
    return Boxes(
        frame_index=frame_index,
        corners=corners_on_grid(xyxy.astype(np.float32), info.sizes(frame_index)),
        class_name=np.array(class_names, np.str_),
        instance=np.where(number < 0, "", number.astype(np.str_)),
        confidence=np.ones(num) if confidence is None else confidence.astype(np.float64),
        geometry=np.full(num, UNKNOWN_GEOMETRY, np.uint64),
    )


def _known(label: Mapping[str, Any]) -> tuple[str, str, float, float]:
    """Returns an object's class name, instance, confidence and creation time."""
    made_at = _seconds(str(label.get("createdAt")))
    return label["name"], label["objectHash"], float(label.get("confidence", 1.0)), made_at


def _digest(text: str | None) -> int:
    # `hash` differs between processes, so digests must not be stored. It may be 0, which is `UNKNOWN_GEOMETRY`.
    return UNKNOWN_GEOMETRY if text is None else hash(text) % 2**64 or 1


@lru_cache(maxsize=1024)
def _seconds(time: str) -> float:
    """Returns a label row's time in seconds since 1970; NaN if the text is not a time.

    >>> _seconds("Thu, 02 Jan 2025 03:04:05 UTC")
    1735787045.0
    """
    try:
        return datetime.strptime(time, "%a, %d %b %Y %H:%M:%S UTC").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return float("nan")


def _corners(label: Mapping[str, Any], unit: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Returns the corners of the box around an object; None if it has none.

    Args:
        label: the object on a frame, other than a plain box.
        unit: the frame's data unit.
    """
    if box := label.get("boundingBox"):
        return _on_grid([box["x"], box["x"] + box["w"]], [box["y"], box["y"] + box["h"]])
    if box := label.get("rotatableBoundingBox"):
        width, height = unit.get("width"), unit.get("height")
        return _on_grid(*_turned(box, width / height if width and height else 1.0))
    if mask := label.get("bitmask"):
        return _mask_corners(mask)
    points = list(_points(label))
    return _on_grid([x for x, _ in points], [y for _, y in points]) if len(points) > 1 else None


def _on_grid(xs: list[float], ys: list[float]) -> tuple[int, int, int, int]:
    return (round(min(xs) * GRID), round(min(ys) * GRID), round(max(xs) * GRID), round(max(ys) * GRID))


def _turned(box: Mapping[str, float], aspect: float) -> tuple[list[float], list[float]]:
    """Returns the x and y of a rotated box's corners, in fractions of the frame.

    The rotation by `theta` degrees is one of pixels, so it needs the aspect ratio of the frame.
    """
    centre_x, centre_y = box["x"] + box["w"] / 2, box["y"] + box["h"] / 2
    turn = np.exp(1j * np.deg2rad(box["theta"]))
    corners = np.array([complex(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    turned = turn * (corners.real * box["w"] * aspect + 1j * corners.imag * box["h"])
    return (turned.real / aspect + centre_x).tolist(), (turned.imag + centre_y).tolist()


def _mask_corners(mask: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    from faster_coco_eval.core import mask as coco_mask

    # COCO's run lengths go down the columns, Encord's along the rows. So COCO reads this text as the transposed mask.
    width, height = mask["width"], mask["height"]
    coded = {"size": [width, height], "counts": mask["rleString"].encode()}
    top, left, rows, columns = coco_mask.toBbox(coded).tolist()
    if not rows or not columns:
        return None
    return _on_grid([left / width, (left + columns) / width], [top / height, (top + rows) / height])


def _points(label: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    for polygon in label.get("polygons") or ():
        for ring in polygon:
            yield from zip(ring[::2], ring[1::2], strict=True)
    for key in ("polygon", "polyline", "skeleton"):
        points = label.get(key) or {}
        for point in points.values() if isinstance(points, Mapping) else points:
            yield point["x"], point["y"]


BoxChange = Literal["untouched", "moved", "reclassed", "deleted"]
BOX_CHANGES: tuple[BoxChange, ...] = ("untouched", "moved", "reclassed", "deleted")
UNTOUCHED, MOVED, RECLASSED, DELETED = range(4)


@dataclass(frozen=True, slots=True)
class Compared:
    """The boxes of one video before and after.

    Attributes:
        written: the N boxes that prelabel wrote.
        current: the M boxes that are there now.
        current_row: int64 (N,), row of the current box that each written box became; -1 if it is gone.
        change: int64 (N,), index into `BOX_CHANGES`.
        iou: float64 (N,), overlap of each written box with the box that it became; 0 if it is gone.
        is_moved: bool (N,), whether the geometry changed, also of reclassed boxes.
        is_added: bool (M,), whether no written box became this current box.
    """

    written: Boxes
    current: Boxes
    current_row: NDArray[np.int64]
    change: NDArray[np.int64]
    iou: NDArray[np.float64]
    is_moved: NDArray[np.bool_]
    is_added: NDArray[np.bool_]

    @property
    def became(self) -> NDArray[np.str_]:
        """The current class of each written box, str (N,); empty if the box is gone."""
        if not len(self.current):
            return np.full(len(self.written), "", np.str_)
        return np.where(self.current_row < 0, "", self.current.class_name[self.current_row])

    def without_added(self, drop: NDArray[np.bool_]) -> Compared:
        """Returns the comparison without some of the added boxes.

        Args:
            drop: bool (M,), the added boxes to leave out.
        """
        if (drop & ~self.is_added).any():
            raise ValueError("drop: got a box that a written box became, expected added boxes only")
        place = np.cumsum(~drop) - 1
        return replace(
            self,
            current=self.current.where(~drop),
            current_row=np.array([place[row] if row >= 0 else -1 for row in self.current_row.tolist()], np.int64),
            is_added=self.is_added[~drop],
        )


def compare_boxes(written: Boxes, current: Boxes, *, min_iou: float, accept_iou: float) -> Compared:
    """Returns what changed about each box.

    Args:
        written: the boxes that prelabel wrote.
        current: the boxes that are there now.
        min_iou: overlap from which boxes of different instances may be the same thing.
        accept_iou: overlap from which a box counts as untouched if the exact geometry of either box is unknown. If both
            are known, they must be equal.
    """
    row = match_boxes(written, current, min_iou)
    is_there = row >= 0
    iou, is_same, same_class = np.zeros(len(row)), np.zeros(len(row), np.bool_), np.zeros(len(row), np.bool_)
    iou[is_there] = paired_iou(written.corners[is_there], current.corners[row[is_there]])
    same_class[is_there] = written.class_name[is_there] == current.class_name[row[is_there]]
    before, after = written.geometry[is_there], current.geometry[row[is_there]]
    # One step of the grid is within rounding.
    is_near = np.abs(written.corners[is_there] - current.corners[row[is_there]]).max(axis=1, initial=0) <= 1
    is_same[is_there] = np.select(
        # Objects of another class may have another shape, whose exact geometry is never the same.
        [(before == UNKNOWN_GEOMETRY) | (after == UNKNOWN_GEOMETRY), ~same_class[is_there]],
        [iou[is_there] >= accept_iou, is_near],
        before == after,
    )
    is_added = np.ones(len(current), np.bool_)
    is_added[row[is_there]] = False
    return Compared(
        written=written,
        current=current,
        current_row=row,
        change=np.select([~is_there, ~same_class, ~is_same], [DELETED, RECLASSED, MOVED], UNTOUCHED).astype(np.int64),
        iou=iou,
        is_moved=is_there & ~is_same,
        is_added=is_added,
    )


def link_unknown_instances(compared: Compared) -> Compared:
    """Returns the comparison with the unknown instances of current boxes filled in.

    Such a box gets the instance of the written box that became it. So a ground truth without tracks neither splits nor
    joins written instances.
    """
    current, row = compared.current, compared.current_row
    if not (current.instance == "").any():
        return compared
    names = current.instance.astype(object)
    is_there = row >= 0
    names[row[is_there]] = compared.written.instance[is_there]
    linked = np.where(current.instance == "", names, current.instance).astype(np.str_)
    return replace(compared, current=replace(current, instance=linked))


def match_boxes(written: Boxes, current: Boxes, min_iou: float) -> NDArray[np.int64]:
    """Returns the row of the current box that each written box became, int64 (N,); -1 if it is gone.

    Boxes match by object hash and frame first, even if they no longer overlap. The others are assigned frame by frame
    (Kuhn 1955). The weight of a pair is its overlap times the number of frames on which its instances overlap. So two
    instances that cross keep their things, as in HOTA (Luiten et al. 2021, https://arxiv.org/abs/2009.07736). Boxes of
    the same class are assigned first, then all others.

    Args:
        written: the boxes that prelabel wrote.
        current: the boxes that are there now.
        min_iou: overlap from which boxes with different hashes may be the same thing.
    """
    from scipy.optimize import linear_sum_assignment

    keys = zip(current.instance.tolist(), current.frame_index.tolist(), strict=True)
    place = {key: row for row, key in enumerate(keys) if key[0]}
    keys = zip(written.instance.tolist(), written.frame_index.tolist(), strict=True)
    matched = np.array([place.get(key, -1) for key in keys], np.int64)
    is_taken = np.zeros(len(current), np.bool_)
    is_taken[matched[matched >= 0]] = True
    one, other, overlap = _overlapping(
        written, current, np.flatnonzero(matched < 0), np.flatnonzero(~is_taken), min_iou
    )
    instances = written.instance_number[one] * (len(current) + 1) + current.instance_number[other]
    _, number, num_frames = np.unique(instances, return_inverse=True, return_counts=True)
    weight = overlap * num_frames[number]
    for same_class in (True, False):
        is_open = (matched[one] < 0) & ~is_taken[other]
        if same_class:
            is_open &= written.class_name[one] == current.class_name[other]
        ends = np.flatnonzero(np.diff(written.frame_index[one[is_open]])) + 1
        for pairs in np.split(np.flatnonzero(is_open), ends):
            rows, row = np.unique(one[pairs], return_inverse=True)
            others, column = np.unique(other[pairs], return_inverse=True)
            weights = np.zeros((len(rows), len(others)))
            weights[row, column] = weight[pairs]
            chosen, partner = linear_sum_assignment(weights, maximize=True)
            is_pair = weights[chosen, partner] > 0
            matched[rows[chosen[is_pair]]] = others[partner[is_pair]]
            is_taken[others[partner[is_pair]]] = True
    return matched


def _overlapping(
    written: Boxes, current: Boxes, rows: NDArray[np.int64], others: NDArray[np.int64], min_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Returns the pairs of boxes that overlap by `min_iou` or more, in frame order: row, other row, overlap, each (K,).

    Args:
        written: the boxes that prelabel wrote.
        current: the boxes that are there now.
        rows: the written rows to compare, rising.
        others: the current rows to compare, rising.
        min_iou: least overlap.
    """
    before, after = written.frame_index[rows], current.frame_index[others]
    pairs = [(rows[:0], others[:0], np.zeros(0))]
    for frame_index in np.intersect1d(before, after).tolist():
        on_frame = [frame_index, frame_index + 1]
        here = rows[slice(*np.searchsorted(before, on_frame).tolist())]
        there = others[slice(*np.searchsorted(after, on_frame).tolist())]
        overlap = iou_matrix(written.corners[here].astype(np.float32), current.corners[there].astype(np.float32))
        one, other = np.nonzero(overlap >= min_iou)
        pairs.append((here[one], there[other], overlap[one, other].astype(np.float64)))
    one, other, overlaps = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return one, other, overlaps
