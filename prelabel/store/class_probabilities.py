"""Class probabilities of a task in a Parquet file, as the classifier gave them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import VideoInfo
from prelabel.store.parquet import open_parquet, to_arrow, to_numpy, write_parquet
from prelabel.store.raw_detections import video_info_from_json, video_info_to_json

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """Class probabilities of one task.

    Attributes:
        info: the media as they are shown.
        frame_index: int64 (M,), rising, the images that the classifier saw.
        probabilities: float32 (M, C), 0..1, by the classifier's class id.
        fingerprint: of config, model, classes and media; a record of another one is made again.
        partial: why the media were not read whole; None if they were.
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
    """Writes the record, whole or not at all."""
    import pyarrow as pa

    num_classes = record.probabilities.shape[1]
    flat = to_arrow(np.ascontiguousarray(record.probabilities, np.float32).reshape(-1))
    columns = {
        "frame_index": to_arrow(record.frame_index.astype(np.int64, copy=False)),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, num_classes),
    }
    metadata = {
        "format": _FORMAT,
        "info": video_info_to_json(record.info),
        "fingerprint": record.fingerprint,
        "partial": record.partial,
    }
    write_parquet(path, columns, metadata, values_repeat=False)


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
