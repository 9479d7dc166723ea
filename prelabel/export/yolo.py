"""Exports YOLO: a label file for each frame, and the `data.yaml` that Ultralytics trains from.

Format: https://docs.ultralytics.com/datasets/detect/, and the pages segment, obb and pose next to it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import xyxy_to_xywh_norm
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelledVideo, LabelMap
from prelabel.data.masks import trace_mask
from prelabel.data.ontology import OntologyObject
from prelabel.export.export import Export, refuse_file
from prelabel.runtime.files import atomic_write, safe_name

OUTLINE_TOLERANCE_PX = 1.0
"""The largest distance of a bitmask's polygon from the mask's edge."""
VALIDATION_SHARE = 5
"""One of this many videos is for validation."""

Values = NDArray[np.float64]
"""The numbers that follow the class on a line, in fractions of the frame."""


def export_yolo(export: Export) -> list[Path]:
    """Writes `labels/VIDEO_000012.txt` and `data.yaml`; with frames also `images`, `train.txt` and `val.txt`.

    A line is class, centre x, centre y, width, height in fractions of the frame. For labels with more geometry, a line
    has the form that the models of that task train from:

    - -seg: a polygon, with parts joined and holes filled;
    - -obb: four corners;
    - -pose: the box, and x, y, visibility of each point.

    Confidences are not written, because Ultralytics refuses a sixth value. Frames without a label file are background.
    Files with other names in the target stay.

    Images are split by video. Frames of one video look too much alike to validate a model that was trained on some of
    them.
    """
    refuse_file(export.target)
    class_ids: dict[OntologyObject, int] = {}
    num_videos = num_points = 0
    with ExitStack() as stack:
        lists = []
        if export.media is not None:
            paths = [stack.enter_context(atomic_write(export.target / name)) for name in ("train.txt", "val.txt")]
            lists = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for video in export.videos:
            for category in video.label_map.categories:
                class_ids.setdefault(category, len(class_ids))
            if video.label_map.offer.kind == "keypoints" and not keypoints_per_line(video.label_map):
                export.count_reduced(video)  # Ultralytics takes one number of points for all classes
            num_points = max(num_points, keypoints_per_line(video.label_map))
            # Ultralytics finds a label file by replacing the last `/images/` of the image's path.
            stem = safe_name(video.title).replace("images/", "images_/")
            names = [f"{stem}_{index:06d}" for index in video.detections.frames_looked_at.tolist()]
            export.save_frames(video, (export.target / "images" / f"{name}.jpg" for name in names))
            _write_labels(export, video, stem, class_ids)
            if lists:
                lists[num_videos % VALIDATION_SHARE == 1].writelines(f"./images/{name}.jpg\n" for name in names)
            num_videos += 1
    train, val = "images", "images"
    if export.media is not None:
        train, val = "train.txt", "val.txt" if num_videos > 1 else "train.txt"
    # Without `path`, Ultralytics starts at this file's folder. With a relative one, it starts at the working directory.
    text = f"train: {train}\nval: {val}\n" + (f"kpt_shape: [{num_points}, 3]\n" if num_points else "") + "names:\n"
    text += "".join(f"  {number}: {json.dumps(category.name)}\n" for category, number in class_ids.items())
    with atomic_write(export.target / "data.yaml") as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    images = export.written_images(export.target / "images")
    return [export.target / "data.yaml", export.target / "labels", *images]


def _write_labels(export: Export, video: LabelledVideo, stem: str, class_ids: dict[OntologyObject, int]) -> None:
    found = video.detections
    ids = np.array([-1 if obj is None else class_ids[obj] for obj in video.label_map.objects], np.int64)[found.class_id]
    lines = [
        f"{class_id} {' '.join([f'{value:.6f}' for value in values])}\n"
        for class_id, values in zip(ids.tolist(), label_lines(video), strict=True)
    ]
    # An image without labels gets an empty file, which replaces the file of an earlier export.
    frames = found.frames_looked_at if export.media else np.unique(found.frame_index)
    ends = pairwise([*np.searchsorted(found.frame_index, frames).tolist(), len(lines)])
    for frame_index, (start, end) in zip(frames.tolist(), ends, strict=True):
        # To wait for the disk after each file would take most of the time, and an export can be made again.
        with atomic_write(export.target / "labels" / f"{stem}_{frame_index:06d}.txt", durable=False) as unfinished:
            unfinished.write_text("".join(lines[start:end]), encoding="utf-8")


def keypoints_per_line(label_map: LabelMap) -> int:
    """Returns the number of keypoints on each line; 0 without skeletons, or if their sizes differ."""
    if label_map.offer.kind != "keypoints":
        return 0
    numbers = {len(category.skeleton) for category in label_map.categories if category.skeleton}
    return numbers.pop() if len(numbers) == 1 else 0


def label_lines(video: LabelledVideo) -> list[list[float]]:
    """Returns the values of each label, all in one form.

    Ultralytics ignores a file that has both boxes and polygons.
    """
    found, label_map = video.detections, video.label_map
    sizes = video.info.sizes(found.frame_index)
    xywh = xyxy_to_xywh_norm(found.xyxy, sizes)
    boxes: list[list[float]] = np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], axis=1).tolist()
    if num_points := keypoints_per_line(label_map):
        columns = zip(boxes, found.geometry, sizes, strict=True)
        return [[*box, *_points(geometry, num_points, size).tolist()] for box, geometry, size in columns]
    if label_map.refined or (label_map.wants_geometry and label_map.offer.kind != "keypoints"):
        rings = zip(found.geometry, found.xyxy.astype(np.float64), sizes, strict=True)
        return [(_ring(geometry, xyxy) / size).clip(0, 1).reshape(-1).tolist() for geometry, xyxy, size in rings]
    return boxes


def _points(geometry: Geometry | None, num_points: int, size: NDArray[np.int64]) -> Values:
    """Returns x, y and visibility of each keypoint.

    The visibility is 2 for visible, 1 for labelled but not visible, and 0 for not labelled.
    """
    points = np.zeros((num_points, 3))
    if isinstance(geometry, Keypoints):
        points[:, :2], points[:, 2] = geometry.xy / size, np.where(geometry.confidence >= SEEN_FROM, 2, 1)
    return points.reshape(-1)


def _ring(geometry: Geometry | None, xyxy: Values) -> Values:
    """Returns the geometry as one ring, (K, 2) in pixels; without geometry, the corners of the box."""
    match trace_mask(geometry, OUTLINE_TOLERANCE_PX) if isinstance(geometry, Mask) else geometry:
        case Polygons(parts=parts):
            return join_rings([rings[0].astype(np.float64) for rings in parts])
        case RotatedBox() as rotated:
            return rotated.corners.astype(np.float64)
    x1, y1, x2, y2 = xyxy
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def join_rings(rings: list[Values]) -> Values:
    """Returns several rings joined to one.

    It goes from the first ring to each other ring, and back along the same line.

    >>> join_rings([np.array([[0, 0], [1, 0], [0, 1.0]]), np.array([[5, 5], [6, 5], [5, 6.0]])]).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [5.0, 5.0], [6.0, 5.0], [5.0, 6.0], [5.0, 5.0]]
    """
    first, *others = rings
    if not others:
        return first
    return np.concatenate([first, *(part for ring in others for part in (first[:1], ring, ring[:1]))])
