"""Stores the labelled detections and the class probabilities of tasks in Parquet files.

Labelled detections are in one file for each task below `.prelabel/`. The run writes it once, and every output reads it.
It is a cache: it is valid for one label fingerprint and one file of raw detections, and can be made again from these.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.errors import LabelError
from prelabel.labels.filter import FilteredDetections
from prelabel.labels.keyframes import KeyframeStats
from prelabel.store.parquet import ParquetContent, open_parquet, to_arrow, to_numpy
from prelabel.store.raw_detections import (
    detection_columns,
    frames_of_ranges,
    ranges_of_frames,
    read_detections,
    video_info_from_json,
)

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LabelledDetections:
    """The labels that a config makes of a task's raw detections.

    Attributes:
        info: the video as it is shown.
        filtered: the detections that become labels, and the number of those that do not.
        fingerprint: of the config's labels section, the raw detections' config, and the media.
        raw_digest: digest of the file of raw detections.
    """

    info: VideoInfo
    filtered: FilteredDetections
    fingerprint: str
    raw_digest: str


def digest_of(content: bytes) -> str:
    """Returns the digest of a file's content."""
    return hashlib.sha256(content).hexdigest()


def write_labelled(path: Path, labelled: LabelledDetections) -> None:
    """Writes the file completely or not at all."""
    labelled_content(labelled).write(path, durable=False)


def labelled_content(labelled: LabelledDetections) -> ParquetContent:
    """Returns the content of the file."""
    filtered = labelled.filtered
    metadata = {
        "format": _FORMAT,
        "info": asdict(labelled.info),
        "inferred_frames": ranges_of_frames(filtered.detections.inferred_frames),
        "dropped": {reason: dict(by_class) for reason, by_class in filtered.dropped.items()},
        "thinning": None if filtered.thinning is None else asdict(filtered.thinning),
        "partial": filtered.partial,
        "fingerprint": labelled.fingerprint,
        "raw_digest": labelled.raw_digest,
    }
    columns = detection_columns(filtered.detections) | {
        "interpolated": to_arrow(filtered.detections.interpolated.astype(np.uint8))
    }
    return ParquetContent(columns, metadata)


def read_labelled(source: Path | bytes) -> LabelledDetections | None:
    """Returns the labelled detections of a file, given its path or bytes; None if it is missing or damaged."""
    if isinstance(source, Path) and not source.exists():
        return None
    try:
        with open_parquet(source, _FORMAT) as (table, metadata):
            interpolated = to_numpy(table.column("interpolated").chunk(0), np.uint8).astype(np.bool_)
            detections = read_detections(table, frames_of_ranges(metadata["inferred_frames"]))
            thinning = metadata["thinning"]
            return LabelledDetections(
                info=video_info_from_json(metadata["info"]),
                filtered=FilteredDetections(
                    replace(detections, interpolated=interpolated),
                    metadata["dropped"],
                    None if thinning is None else KeyframeStats(**thinning),
                    metadata.get("partial"),
                ),
                fingerprint=metadata["fingerprint"],
                raw_digest=metadata["raw_digest"],
            )
    except LabelError:
        return None


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """Class probabilities of one task.

    Attributes:
        info: the media as they are shown.
        frame_index: int64 (M,), rising, the images that the classifier saw.
        probabilities: float32 (M, C), 0..1, by the classifier's class id.
        fingerprint: of config, model, classes and media; a record with another fingerprint is made again.
        partial: why the media were not read completely; None if they were.
    """

    info: VideoInfo
    frame_index: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    fingerprint: str
    partial: str | None = None

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2 or len(self.probabilities) != len(self.frame_index):
            got, num = self.probabilities.shape, len(self.frame_index)
            raise ValueError(f"probabilities: got shape {got}, expected ({num}, C)")


def write_classes(path: Path, record: ClassRecord) -> None:
    """Writes the record completely or not at all."""
    import pyarrow as pa

    num_classes = record.probabilities.shape[1]
    flat = to_arrow(np.ascontiguousarray(record.probabilities, np.float32).reshape(-1))
    columns = {
        "frame_index": to_arrow(record.frame_index.astype(np.int64, copy=False)),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, num_classes),
    }
    metadata = {
        "format": _FORMAT,
        "info": asdict(record.info),
        "fingerprint": record.fingerprint,
        "partial": record.partial,
    }
    ParquetContent(columns, metadata, values_repeat=False).write(path)


def read_classes(path: Path) -> ClassRecord:
    """Returns the record of a file.

    Raises:
        LabelError: the file is missing, damaged, or not written by prelabel.
    """
    with open_parquet(path, _FORMAT) as (table, metadata):
        column = table.column("probabilities").chunk(0)
        return ClassRecord(
            info=video_info_from_json(metadata["info"]),
            frame_index=to_numpy(table.column("frame_index").chunk(0), np.int64),
            probabilities=to_numpy(column.flatten(), np.float32).reshape(len(table), column.type.list_size),
            fingerprint=metadata["fingerprint"],
            partial=metadata["partial"],
        )
