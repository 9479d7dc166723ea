"""YOLO: a text file for every frame with boxes, and the `data.yaml` that names the classes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import xyxy_to_xywh_norm
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelledVideo, LabelMap
from prelabel.data.masks import trace_mask
from prelabel.data.ontology import OntologyObject
from prelabel.runtime.files import atomic_write, safe_name

TOLERANCE_PX = 1.0
"""How far the polygon of a bitmask may lie from its edge."""

Values = NDArray[np.float64]
"""Of one line, in fractions of the frame."""


def num_keypoints(label_map: LabelMap) -> int:
    """Returns how many keypoints each line has; 0 where labels are no poses, or skeletons of several sizes."""
    if label_map.offer.kind != "keypoints":
        return 0
    numbers = {len(category.skeleton) for category in label_map.categories if category.skeleton}
    return numbers.pop() if len(numbers) == 1 else 0


def lines_of(video: LabelledVideo) -> Iterator[Values]:
    """Yields the values of each detection: all lines of a file are of one form, as Ultralytics takes a file's."""
    found, sizes = video.detections, video.info.sizes(video.detections.frame_index)
    label_map = video.label_map
    xywh = xyxy_to_xywh_norm(found.xyxy, sizes)
    boxes = np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], axis=1)
    as_line: Callable[[Values, Geometry | None, Values, Values], Values] = _box
    if num := num_keypoints(label_map):
        as_line = partial(_pose, num)
    elif label_map.wants_geometry and label_map.offer.kind != "keypoints":
        as_line = _ring
    columns = (boxes, found.geometry.tolist(), found.xyxy.astype(np.float64), sizes.astype(np.float64))
    for values in zip(*columns, strict=True):
        yield as_line(*values)


def _box(box: Values, known: Geometry | None, xyxy: Values, size: Values) -> Values:
    return box


def _pose(num: int, box: Values, known: Geometry | None, xyxy: Values, size: Values) -> Values:
    """Returns box and points; visibility is 2 of those that are seen, 1 of others: labelled, but not visible."""
    points = np.zeros((num, 3))
    if isinstance(known, Keypoints):
        points[:, :2], points[:, 2] = known.xy / size, np.where(known.confidence >= SEEN_FROM, 2, 1)
    return np.concatenate([box, points.reshape(-1)])


def _ring(box: Values, known: Geometry | None, xyxy: Values, size: Values) -> Values:
    x1, y1, x2, y2 = xyxy
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    match trace_mask(known, TOLERANCE_PX) if isinstance(known, Mask) else known:
        case Polygons(parts=parts):
            corners = _joined([rings[0].astype(np.float64) for rings in parts])
        case RotatedBox() as turned:
            corners = turned.corners.astype(np.float64)
    return (corners / size).clip(0, 1).reshape(-1)


def _joined(rings: list[Values]) -> Values:
    """Returns parts as one ring, which goes from the first to each other and back on the same line; holes are filled.

    >>> _joined([np.array([[0, 0], [1, 0], [0, 1.0]]), np.array([[5, 5], [6, 5], [5, 6.0]])]).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [5.0, 5.0], [6.0, 5.0], [5.0, 6.0], [5.0, 5.0]]
    """
    first, *others = rings
    if not others:
        return first
    there_and_back = [part for ring in others for part in (first[:1], ring, ring[:1])]
    return np.concatenate([first, *there_and_back])


def write_yolo(path: Path, videos: Iterable[LabelledVideo]) -> None:
    """Writes `labels/VIDEO_000012.txt` and `data.yaml`, as Ultralytics trains from; frames go to `images/` beside them.

    A line is class, centre x, centre y, width, height in fractions of the frame. Where labels hold more, it is what the
    model of that task trains from: for -seg a polygon, parts joined and holes filled; for -obb four corners; for -pose
    the box and x, y, visibility of each point. There is no place for confidences: a sixth column would be refused.
    Frames without boxes have no file and count as background.

    Args:
        path: a folder; what stands there under other names stays.
        videos: taken one at a time.
    """
    class_ids: dict[OntologyObject, int] = {}
    poses = ""
    for video in videos:
        if num := num_keypoints(video.label_map):
            poses = f"kpt_shape: [{num}, 3]\n"
        for category in video.label_map.categories:
            class_ids.setdefault(category, len(class_ids))
        _write_video(path / "labels", video, class_ids)
    names = "".join(f"  {number}: {json.dumps(category.name)}\n" for category, number in class_ids.items())
    with atomic_write(path / "data.yaml") as unfinished:
        unfinished.write_text(f"path: .\ntrain: images\nval: images\n{poses}names:\n{names}", encoding="utf-8")


def _write_video(folder: Path, video: LabelledVideo, class_ids: dict[OntologyObject, int]) -> None:
    found = video.detections
    ids = np.array([-1 if obj is None else class_ids[obj] for obj in video.label_map.objects], np.int64)[found.class_id]
    lines = [
        f"{class_id} " + " ".join(f"{value:.6f}" for value in values.tolist())
        for class_id, values in zip(ids.tolist(), lines_of(video), strict=True)
    ]
    frames, starts = np.unique(found.frame_index, return_index=True)
    spans = pairwise([*starts.tolist(), len(lines)])
    stem = safe_name(video.title)
    for frame_index, (start, end) in zip(frames.tolist(), spans, strict=True):
        with atomic_write(folder / f"{stem}_{frame_index:06d}.txt") as unfinished:
            unfinished.write_text("\n".join(lines[start:end]) + "\n", encoding="utf-8")
