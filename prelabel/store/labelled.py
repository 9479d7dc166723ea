"""Detections that became labels, one Parquet file a task below `.prelabel/`: made once, read by every output.

The file is a cache. It holds for one label fingerprint and one file of raw detections, and is made again from these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.labels.filter import FilteredDetections
from prelabel.labels.keyframes import KeyframeStats
from prelabel.store.parquet import open_parquet, to_arrow, to_numpy, write_parquet
from prelabel.store.raw_detections import (
    detection_columns,
    frames_of_ranges,
    ranges_of_frames,
    read_detections,
    video_info_from_json,
    video_info_to_json,
)

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LabelledDetections:
    """What a config makes of a task's raw detections.

    Attributes:
        info: the video as it is shown.
        filtered: the detections that become labels, and how many do not.
        fingerprint: of the config's labels section, the raw detections' config, and the media.
        raw_stamp: size and time of change in nanoseconds of the file of raw detections.
    """

    info: VideoInfo
    filtered: FilteredDetections
    fingerprint: str
    raw_stamp: tuple[int, int]


def stamp_of(path: Path) -> tuple[int, int]:
    """Returns size and time of change of a file; another stamp means another content."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def write_labelled(path: Path, labelled: LabelledDetections) -> None:
    """Writes the file, whole or not at all."""
    filtered = labelled.filtered
    metadata = {
        "format": _FORMAT,
        "info": video_info_to_json(labelled.info),
        "inferred_frames": ranges_of_frames(filtered.detections.inferred_frames),
        "dropped": {reason: dict(by_class) for reason, by_class in filtered.dropped.items()},
        "thinning": None if filtered.thinning is None else asdict(filtered.thinning),
        "fingerprint": labelled.fingerprint,
        "raw_stamp": labelled.raw_stamp,
    }
    columns = detection_columns(filtered.detections) | {
        "interpolated": to_arrow(filtered.detections.interpolated.astype(np.uint8))
    }
    write_parquet(path, columns, metadata, durable=False)


def read_labelled(path: Path) -> LabelledDetections | None:
    """Returns what a file holds; None where there is none, or it is damaged."""
    if not path.exists():
        return None
    try:
        with open_parquet(path, _FORMAT) as (table, metadata):
            interpolated = to_numpy(table.column("interpolated").chunk(0), np.uint8).astype(np.bool_)
            detections = read_detections(table, frames_of_ranges(metadata["inferred_frames"]))
            thinning = metadata["thinning"]
            return LabelledDetections(
                info=video_info_from_json(metadata["info"]),
                filtered=FilteredDetections(
                    replace(detections, interpolated=interpolated),
                    metadata["dropped"],
                    None if thinning is None else KeyframeStats(**thinning),
                ),
                fingerprint=metadata["fingerprint"],
                raw_stamp=tuple(metadata["raw_stamp"]),
            )
    except LabelError:
        return None
