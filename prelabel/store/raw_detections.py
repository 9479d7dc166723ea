"""Stores a task's raw detections in a Parquet file, as the detector gave them.

A resumed run, a run with other thresholds, and `evaluate` start from this file. They decode no frame and run no
detector again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, OutputSpec
from prelabel.plugins.protocols import ModelRecord
from prelabel.store.parquet import (
    ParquetContent,
    geometry_as_columns,
    geometry_of_table,
    open_metadata,
    open_parquet,
    to_arrow,
    to_numpy,
)

if TYPE_CHECKING:
    import pyarrow


def video_info_from_json(values: Mapping[str, Any]) -> VideoInfo:
    """Returns the video's info from its fields in JSON, which has no tuples."""
    return VideoInfo(**{**values, "frame_sizes": tuple((width, height) for width, height in values["frame_sizes"])})


_FORMAT = 2


@dataclass(frozen=True, slots=True)
class DetectionProvenance:
    """The detector and the config that made raw detections.

    Attributes:
        class_names: the detector's, by `class_id`.
        model: which model it was; None if the detector does not say.
        fingerprint: of config, model and media; if it differs, the run detects again.
        lowest_conf: lowest confidence of stored boxes; None if every box of the detector becomes a label.
        offer: what the detector gives in addition to boxes.
        digests: of the config's values that affect the detections, by key.
    """

    class_names: tuple[str, ...]
    model: ModelRecord | None
    fingerprint: str
    lowest_conf: float | None = None
    offer: OutputSpec = BOXES_ONLY
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def detector_fingerprint(self) -> str:
        """The part of the fingerprint for config and model."""
        return self.fingerprint.partition(":")[0]

    @property
    def media_identity(self) -> str:
        """The part of the fingerprint for the media."""
        return self.fingerprint.partition(":")[2]


@dataclass(frozen=True, slots=True)
class RawRecord:
    """Raw detections of one task.

    Attributes:
        info: the video as it is shown.
        detections: as the detector gave them; `inferred_frames` are the frames that it saw.
        origin: which detector and which config made them.
        partial: why the media were not read completely; None if they were.
        cuts: the first frame of each new shot, rising.
    """

    info: VideoInfo
    detections: VideoDetections
    origin: DetectionProvenance
    partial: str | None = None
    cuts: tuple[int, ...] = ()


def write_raw(path: Path, record: RawRecord) -> None:
    """Writes the record completely or not at all."""
    raw_content(record).write(path)


def raw_content(record: RawRecord) -> ParquetContent:
    """Returns the content of the record's file."""
    metadata = {
        "format": _FORMAT,
        "info": dataclasses.asdict(record.info),
        "inferred_frames": ranges_of_frames(record.detections.inferred_frames),
        "origin": dataclasses.asdict(record.origin),
        "partial": record.partial,
        "cuts": list(record.cuts),
    }
    return ParquetContent(detection_columns(record.detections), metadata)


def detection_columns(detections: VideoDetections) -> dict[str, pyarrow.Array]:
    """Returns a column for each field of the detections, except `inferred_frames` and `interpolated`."""
    import pyarrow as pa

    corners = np.ascontiguousarray(detections.xyxy, np.float32).reshape(-1)
    return {
        "frame_index": to_arrow(detections.frame_index.astype(np.int64, copy=False)),
        "xyxy": pa.FixedSizeListArray.from_arrays(to_arrow(corners), 4),
        "confidence": to_arrow(detections.confidence.astype(np.float32, copy=False)),
        "class_id": to_arrow(detections.class_id.astype(np.int64, copy=False)),
        "track_id": to_arrow(detections.track_id.astype(np.int64, copy=False)),
        **geometry_as_columns(detections.geometry),
    }


def read_raw(source: Path | bytes) -> RawRecord:
    """Returns the record of a file, given its path or its bytes.

    Raises:
        LabelError: the file is missing, damaged, or not written by prelabel.
    """
    with open_parquet(source, _FORMAT) as (table, metadata):
        return RawRecord(
            info=video_info_from_json(metadata["info"]),
            detections=read_detections(table, frames_of_ranges(metadata["inferred_frames"])),
            origin=_read_origin(metadata["origin"]),
            partial=metadata["partial"],
            cuts=tuple(metadata["cuts"]),
        )


def read_origin(path: Path) -> DetectionProvenance:
    """Returns which detector and config made the detections of a file, without reading the detections.

    Raises:
        LabelError: the file is missing, damaged, or not written by prelabel.
    """
    with open_metadata(path, _FORMAT) as metadata:
        return _read_origin(metadata["origin"])


def _read_origin(values: Mapping[str, Any]) -> DetectionProvenance:
    model, offer = values["model"], values["offer"]
    return DetectionProvenance(
        class_names=tuple(values["class_names"]),
        model=None if model is None else ModelRecord(**model),
        fingerprint=values["fingerprint"],
        lowest_conf=values["lowest_conf"],
        offer=OutputSpec(offer["kind"], tuple(offer["keypoint_names"])),
        digests=values["digests"],
    )


def read_detections(table: pyarrow.Table, inferred_frames: NDArray[np.int64]) -> VideoDetections:
    """Returns the detections of a table with the columns of `detection_columns`."""
    return VideoDetections(
        frame_index=to_numpy(table.column("frame_index").chunk(0), np.int64),
        xyxy=to_numpy(table.column("xyxy").chunk(0).flatten(), np.float32).reshape(-1, 4),
        confidence=to_numpy(table.column("confidence").chunk(0), np.float32),
        class_id=to_numpy(table.column("class_id").chunk(0), np.int64),
        track_id=to_numpy(table.column("track_id").chunk(0), np.int64),
        inferred_frames=inferred_frames,
        geometry=geometry_of_table(table),
    )


def ranges_of_frames(frames: NDArray[np.int64]) -> list[list[int]]:
    """Returns rising frames as ranges [first, number of frames, step].

    So a video of any length that is read with a stride is one range.

    >>> ranges_of_frames(np.array([0, 2, 4, 6, 10, 11, 12]))
    [[0, 4, 2], [10, 3, 1]]
    """
    steps = np.diff(frames)
    breaks = np.flatnonzero(np.diff(steps)) + 1
    runs: list[list[int]] = []
    start = 0
    while start < len(frames):
        after = np.searchsorted(breaks, start, side="right")
        last = int(breaks[after]) if after < len(breaks) else len(frames) - 1
        step = int(steps[start]) if last > start else 1
        runs.append([int(frames[start]), last - start + 1, step])
        start = last + 1
    return runs


def frames_of_ranges(runs: list[list[int]]) -> NDArray[np.int64]:
    """Returns the frames of the ranges that `ranges_of_frames` made.

    >>> frames_of_ranges([[0, 4, 2], [10, 3, 1]]).tolist()
    [0, 2, 4, 6, 10, 11, 12]
    """
    frames = [first + step * np.arange(num, dtype=np.int64) for first, num, step in runs]
    return np.concatenate(frames) if frames else np.zeros(0, np.int64)
