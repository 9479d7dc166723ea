"""Exports MOTChallenge: a folder for each video, with results and ground truth.

Format: https://arxiv.org/abs/2003.09003, section 4; https://github.com/JonathonLuiten/TrackEval/blob/master/docs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import orjson

from prelabel.data.label_map import LabelledVideo
from prelabel.export.export import Export, refuse_file
from prelabel.runtime.files import safe_name, write_text_atomically


def export_mot(export: Export) -> list[Path]:
    """Writes `VIDEO/det/det.txt`, `VIDEO/gt/gt.txt` and `VIDEO/seqinfo.ini`; returns the files `det.txt`.

    `det.txt` has the form of results. It lists every label with its confidence and without a class, because TrackEval
    refuses a class there. `gt.txt` has the form of ground truth. It lists the labels that belong to a track, each with
    its class; class N is on line N of `gt/labels.txt`. Frames, classes and pixels count from 1.
    """
    refuse_file(export.target)
    paths = []
    for video in export.videos:
        export.count_reduced(video)
        folder = export.target / safe_name(video.title)
        paths.append(folder / "det" / "det.txt")
        _write_lines(paths[-1], _lines(video, is_truth=False))
        _write_lines(folder / "gt" / "gt.txt", _lines(video, is_truth=True))
        _write_lines(folder / "gt" / "labels.txt", (category.name for category in video.label_map.categories))
        _write_lines(folder / "seqinfo.ini", _sequence_info(video))
        export.save_frames(
            video, (folder / "img1" / f"{index + 1:06d}.jpg" for index in video.detections.frames_looked_at)
        )
    return paths


def _lines(video: LabelledVideo, *, is_truth: bool) -> list[str]:
    """Returns a line for each label: frame, track, left, top, width, height and four more values.

    In results, these are confidence, -1, -1, -1. In ground truth, they are 1, class, 1, -1. The first 1 means "consider
    this box", and the second 1 is the visibility. A confidence in place of the first 1 would be read as the integer 0,
    which means "ignore this box".
    """
    found = video.detections
    if is_truth:
        found = found.where(found.track_id >= 0)
    num = len(found)
    corners = found.xyxy.astype(np.float64)
    left, top = np.round(corners[:, :2] + 1, 3).T.tolist()
    width, height = np.round(corners[:, 2:] - corners[:, :2], 3).T.tolist()
    if is_truth:
        ending = ([1] * num, (video.label_map.category_index[found.class_id] + 1).tolist(), [1] * num, [-1] * num)
    else:
        ending = (np.round(found.confidence.astype(np.float64), 5).tolist(), [-1] * num, [-1] * num, [-1] * num)
    frames, tracks = (found.frame_index + 1).tolist(), found.track_id.tolist()
    # orjson writes numbers several times as fast as Python formats them.
    text = orjson.dumps(list(zip(frames, tracks, left, top, width, height, *ending, strict=True))).decode()
    return text[2:-2].split("],[") if num else []


def _sequence_info(video: LabelledVideo) -> Iterable[str]:
    yield "[Sequence]"
    yield f"name={safe_name(video.title)}"
    yield "imDir=img1"
    yield f"frameRate={max(1, round(video.info.average_fps))}"  # datumaro accepts whole numbers only
    yield f"seqLength={video.info.num_frames}"
    yield f"imWidth={video.info.width}"
    yield f"imHeight={video.info.height}"
    yield "imExt=.jpg"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_text_atomically(path, "".join([f"{line}\n" for line in lines]))
