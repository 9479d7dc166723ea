"""MOTChallenge: a folder a video with `det/det.txt` and `seqinfo.ini`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from prelabel.data.label_map import LabelledVideo
from prelabel.runtime.files import atomic_write, safe_name


def write_mot(path: Path, videos: Iterable[LabelledVideo]) -> None:
    """Writes `VIDEO/det/det.txt`, `VIDEO/det/labels.txt` and `VIDEO/seqinfo.ini`.

    A line of `det.txt` is frame (from 1), track (-1: none), left, top, width, height in pixels (from 1, as MOTChallenge
    has them), confidence, class, -1, -1. The class, from 1, is the line of `labels.txt`; MOTChallenge's own detections
    have -1 there, its ground truth the class.

    Args:
        path: a folder.
        videos: taken one at a time.
    """
    for video in videos:
        folder = path / safe_name(video.title)
        _write_lines(folder / "det" / "det.txt", _lines(video))
        _write_lines(folder / "det" / "labels.txt", (category.name for category in video.label_map.categories))
        _write_lines(folder / "seqinfo.ini", _sequence_info(video))


def _lines(video: LabelledVideo) -> Iterable[str]:
    found = video.detections
    class_ids = video.label_map.category_index[found.class_id] + 1
    columns = (found.frame_index, found.track_id, found.xyxy.astype(np.float64), found.confidence, class_ids)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for frame_index, track_id, (x1, y1, x2, y2), confidence, class_id in rows:
        box = f"{x1 + 1:.3f},{y1 + 1:.3f},{x2 - x1:.3f},{y2 - y1:.3f}"
        yield f"{frame_index + 1},{track_id},{box},{confidence:.5f},{class_id},-1,-1"


def _sequence_info(video: LabelledVideo) -> Iterable[str]:
    yield "[Sequence]"
    yield f"name={safe_name(video.title)}"
    yield f"frameRate={video.info.average_fps:g}"
    yield f"seqLength={video.info.num_frames}"
    yield f"imWidth={video.info.width}"
    yield f"imHeight={video.info.height}"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
