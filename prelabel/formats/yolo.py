"""YOLO: a text file for every frame with boxes, and the `data.yaml` that names the classes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from prelabel.files import safe_name, whole_file
from prelabel.formats.yolo_geometry import lines_of, num_keypoints
from prelabel.labelled import LabelledVideo
from prelabel.ontology import OntologyObject


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
    with whole_file(path / "data.yaml") as unfinished:
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
        with whole_file(folder / f"{stem}_{frame_index:06d}.txt") as unfinished:
            unfinished.write_text("\n".join(lines[start:end]) + "\n", encoding="utf-8")
