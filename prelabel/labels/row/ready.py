"""Labels that another process has made for a label row, as JSON text.

A worker cannot read rows. It makes the labels for the row that the run expects, and the run only copies their text onto
the row. If the row is another one, because people or an earlier run have labelled it, the run merges by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap
from prelabel.labels.row.own import LabelRow, WrittenRow
from prelabel.labels.row.write import write_detections

_ANSWERS = ("object_answers", "object_actions")
"""The parts of a row, apart from its data units, that new objects change."""


def unlabelled_video(data_hash: str) -> bytes:
    """Returns what `make_ready` needs of the row of a video without labels, as JSON.

    Args:
        data_hash: key of its data unit.
    """
    row = {"data_type": "video", "data_units": {data_hash: {"labels": {}}}, **{part: {} for part in _ANSWERS}}
    return orjson.dumps(row)


@dataclass(frozen=True, slots=True)
class ReadyRow:
    """Labels for one row.

    Attributes:
        expected: digest of everything on the row that the labels depend on.
        written: the labels; its row has only what changed, as JSON text: the labels of data units, and the answers.
    """

    expected: str
    written: WrittenRow

    def put_on(self, row: LabelRow, info: VideoInfo) -> WrittenRow | None:
        """Returns the row with the labels as `orjson.Fragment`s; None if it is not the expected row."""
        if _digest(row, info) != self.expected:
            return None
        text, units = self.written.row, dict(row["data_units"])
        for key, labels in text["data_units"].items():
            units[key] = {**units[key], "labels": orjson.Fragment(labels)}
        answers = {part: orjson.Fragment(text[part]) for part in _ANSWERS}
        return replace(self.written, row={**row, "data_units": units, **answers})


def make_ready(
    expected_row: bytes, detections: VideoDetections, info: VideoInfo, label_map: LabelMap, *, now: datetime
) -> ReadyRow:
    """Returns the labels that `write_detections` makes for a row; it raises the same errors.

    Args:
        expected_row: the row as JSON.
        detections: as in `write_detections`, like the other arguments.
        info: the media.
        label_map: from the detector's classes to ontology objects.
        now: creation time of the instances.
    """
    row: LabelRow = orjson.loads(expected_row)
    written = write_detections(row, detections, info, label_map, now=now)
    before, after = row["data_units"], written.row["data_units"]
    units = {key: orjson.dumps(unit["labels"]) for key, unit in after.items() if unit is not before[key]}
    answers = {part: orjson.dumps(written.row[part]) for part in _ANSWERS}
    return ReadyRow(_digest(row, info), replace(written, row={"data_units": units, **answers}))


def _digest(row: LabelRow, info: VideoInfo) -> str:
    units: list[Any] = []
    for key, unit in row["data_units"].items():
        has_size = unit.get("width") and unit.get("height")
        size = (unit["width"], unit["height"]) if has_size else (info.width, info.height)
        number = None if row["data_type"] == "video" else unit["data_sequence"]
        units.append([key, number, *size, unit.get("labels") or {}])
    content = [row["data_type"], units, *(row.get(part) or {} for part in _ANSWERS)]
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
