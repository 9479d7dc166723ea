"""Detections as they were found, before any filter, in one Parquet file a task.

Resume, other thresholds and comparisons start from it, without a look at the video.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, OutputSpec, geometry_as_columns, geometry_of_table
from prelabel.errors import LabelError
from prelabel.plugins.protocols import ModelRecord
from prelabel.runtime.files import atomic_write

if TYPE_CHECKING:
    import pyarrow


_METADATA_KEY = b"prelabel"


def write_columns(
    path: Path,
    columns: Mapping[str, pyarrow.Array],
    facts: Mapping[str, object],
    *,
    values_repeat: bool = True,
    durable: bool = True,
) -> None:
    """Writes a file, whole or not at all.

    Args:
        path: of the file.
        columns: by name.
        facts: what JSON can hold; `format` among them.
        values_repeat: whether a look for values that stand in a column more than once is worth its time.
        durable: whether the file survives a loss of power; a cache need not, and is cheaper without.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(dict(columns)).replace_schema_metadata({_METADATA_KEY: json.dumps(facts)})
    # A file that is open already: pyarrow looks into what kind of file system a path lies on, each time.
    with atomic_write(path, durable=durable) as unfinished, pa.OSFile(str(unfinished), "wb") as file:
        pq.write_table(table, file, compression="zstd", use_dictionary=values_repeat)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what reading a file may raise into errors that name it.

    Raises:
        LabelError: the file is missing, damaged, or none of ours.
    """
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise LabelError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise LabelError(f"{path}: not whole, or not written by prelabel: delete it and run again ({error})") from error


def facts_of(path: Path, schema: pyarrow.Schema, format: int) -> dict[str, Any]:
    """Returns the facts beside a file's columns.

    Raises:
        LabelError: they are of another format.
    """
    facts: dict[str, Any] = json.loads((schema.metadata or {})[_METADATA_KEY])
    if facts["format"] != format:
        raise LabelError(f"{path}: got format {facts['format']}, expected {format}: delete it and run again")
    return facts


def info_as_facts(info: VideoInfo) -> dict[str, Any]:
    """Returns what JSON can hold of a video's facts."""
    return {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}


def video_info_from_json(facts: Mapping[str, Any]) -> VideoInfo:
    """Returns what `info_as_facts` was given."""
    return VideoInfo(**{**facts, "frame_sizes": tuple((width, height) for width, height in facts["frame_sizes"])})


_FORMAT = 2


@dataclass(frozen=True, slots=True)
class DetectionProvenance:
    """Under which circumstances boxes were found.

    Attributes:
        class_names: the detector's, by `class_id`.
        model: which model it was; None where the detector does not say.
        fingerprint: of config, model and media; another one means that the detections are not the ones asked for.
        lowest_conf: confidence down to which boxes are kept, of a detector that gives more than become labels; None of
            one whose every box becomes a label.
        offer: what the detector can tell beyond boxes.
        digests: of the config's values that decided what was found, by key; empty in files of before they were kept.
    """

    class_names: tuple[str, ...]
    model: ModelRecord | None
    fingerprint: str
    lowest_conf: float | None = None
    offer: OutputSpec = BOXES_ONLY
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def detector_fingerprint(self) -> str:
        """The part of the fingerprint that is of config and model."""
        return self.fingerprint.partition(":")[0]

    @property
    def media_identity(self) -> str:
        """The part of the fingerprint that is of the media."""
        return self.fingerprint.partition(":")[2]


@dataclass(frozen=True, slots=True)
class RawRecord:
    """What a detector found in one task's media.

    Attributes:
        info: the video as it is shown.
        detections: as found; `inferred_frames` tells which frames were looked at.
        origin: under which circumstances.
        partial: why the media were not read whole; None if they were.
        cuts: rising, the frames with which a new shot begins.
    """

    info: VideoInfo
    detections: VideoDetections
    origin: DetectionProvenance
    partial: str | None = None
    cuts: tuple[int, ...] = ()


def write_raw(path: Path, record: RawRecord) -> None:
    """Writes the record, whole or not at all."""
    write_columns(path, detection_columns(record.detections), _facts(record))


def detection_columns(detections: VideoDetections) -> dict[str, pyarrow.Array]:
    """Returns a column for each field of the detections, but for `inferred_frames` and `interpolated`."""
    import pyarrow as pa

    corners = np.ascontiguousarray(detections.xyxy, np.float32).reshape(-1)
    return {
        "frame_index": pa.array(detections.frame_index, pa.int64()),
        "xyxy": pa.FixedSizeListArray.from_arrays(pa.array(corners), 4),
        "confidence": pa.array(detections.confidence, pa.float32()),
        "class_id": pa.array(detections.class_id, pa.int64()),
        "track_id": pa.array(detections.track_id, pa.int64()),
        **geometry_as_columns(detections.geometry),
    }


def read_raw(path: Path) -> RawRecord:
    """Returns the record of a file.

    Raises:
        LabelError: if the file is missing, damaged, or none of ours.
    """
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        table = file.read()
        facts = facts_of(path, table.schema, _FORMAT)
        return RawRecord(
            info=video_info_from_json(facts["info"]),
            detections=read_detections(table, frames_of_ranges(facts["inferred_frames"])),
            origin=_read_origin(facts["origin"]),
            partial=facts["partial"],
            cuts=tuple(facts["cuts"]),
        )


def read_origin(path: Path) -> DetectionProvenance:
    """Returns under which circumstances the boxes of a file were found; they themselves are not read.

    Raises:
        LabelError: if the file is missing, damaged, or none of ours.
    """
    import pyarrow.parquet as pq

    with reading(path):
        return _read_origin(facts_of(path, pq.read_schema(path), _FORMAT)["origin"])


def _facts(record: RawRecord) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "info": info_as_facts(record.info),
        "inferred_frames": ranges_of_frames(record.detections.inferred_frames),
        "origin": dataclasses.asdict(record.origin),
        "partial": record.partial,
        "cuts": list(record.cuts),
    }


def _read_origin(values: Mapping[str, Any]) -> DetectionProvenance:
    model = values["model"]
    return DetectionProvenance(
        class_names=tuple(values["class_names"]),
        model=None if model is None else ModelRecord(**model),
        fingerprint=values["fingerprint"],
        lowest_conf=values["lowest_conf"],
        offer=_read_offer(values["offer"]) if "offer" in values else BOXES_ONLY,  # of before there was any
        digests=values.get("digests", {}),
    )


def _read_offer(values: Mapping[str, Any]) -> OutputSpec:
    return OutputSpec(values["kind"], tuple(values["keypoint_names"]))


def read_detections(table: pyarrow.Table, inferred_frames: NDArray[np.int64]) -> VideoDetections:
    """Returns the detections of a table with the columns of `detection_columns`."""
    columns = {
        name: table.column(name).to_numpy().astype(dtype, copy=False)
        for name, dtype in (
            ("frame_index", np.int64),
            ("confidence", np.float32),
            ("class_id", np.int64),
            ("track_id", np.int64),
        )
    }
    boxes = table.column("xyxy").combine_chunks()
    values = boxes.flatten().to_numpy() if table.num_rows else np.zeros(0, np.float32)
    return VideoDetections(
        **columns, xyxy=values.reshape(-1, 4), inferred_frames=inferred_frames, geometry=geometry_of_table(table)
    )


def ranges_of_frames(frames: NDArray[np.int64]) -> list[list[int]]:
    """Returns rising frames as [first, number, step] runs: a stride is one run, however long the video.

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
    """Returns the frames of runs.

    >>> frames_of_ranges([[0, 4, 2], [10, 3, 1]]).tolist()
    [0, 2, 4, 6, 10, 11, 12]
    """
    frames = [first + step * np.arange(num, dtype=np.int64) for first, num, step in runs]
    return np.concatenate(frames) if frames else np.zeros(0, np.int64)
