"""Labelling anew from kept boxes, beside finding them: an hour of the clip's boxes, and what the detector takes for it.

    uv run python -m benchmarks.relabel --clip street.mp4 --weights yolo11n.pt

The detector looks at the clip's first frames. What it takes for a frame, decoding left out, times the frames of the
asked length is what another look would take; the boxes that it found, again and again up to that length, are what
`prelabel relabel` starts from. Processor seconds of one process; the first relabelling warms the libraries up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from prelabel.assembly.assemble import Assembly, assemble, assemble_stored
from prelabel.config.load import check_config
from prelabel.data.detections import Detections, concatenate
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.media.pyav import PyAVReader
from prelabel.run.checks import prepare
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.ledger import Entry
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, write_raw

WAYS: Mapping[str, Mapping[str, object]] = {
    "boxes, another threshold": {},
    "tracks": {"instances": "tracks"},
    "tracks of few boxes, filled": {"instances": "tracks", "keyframes": {}},
    "tracks of few boxes, empty": {"instances": "tracks", "keyframes": {"between": "empty"}},
}
BATCH_SIZE = 8


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        live = assemble(check_config(_config(args, output, {}), "benchmark"), output)
        prepare(live)
        found, info, detect_seconds = _look(live, args.clip, args.frames)
        num_frames = round(args.minutes * 60 * info.average_fps)
        _keep(live, _repeat(found, info, num_frames))
        rows = [
            _relabel(args, output, name, labels)
            for name, labels in [("warm-up", {"max_per_frame": 999}), *WAYS.items()]
        ][1:]
    again = detect_seconds * num_frames
    title = f"{args.clip.name}, {args.minutes:g} minutes, {num_frames:,} frames; another look: {again:,.0f} s"
    table = Table("labels", "instances", "boxes", "seconds", "times faster", title=title, box=None)
    for row in rows:
        row["times_faster"] = round(again / row["seconds"], 1)
        table.add_row(row["labels"], *(f"{row[key]:,}" for key in ("instances", "boxes", "seconds", "times_faster")))
    console.print(table)
    print(json.dumps({"frames": num_frames, "detect_ms_a_frame": round(detect_seconds * 1000, 2), "rows": rows}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--weights", default="yolo11n")
    parser.add_argument("--frames", type=int, default=150, help="that the detector looks at")
    parser.add_argument("--minutes", type=float, default=60)
    return parser.parse_args()


def _config(args: argparse.Namespace, output: Path, labels: Mapping[str, object]) -> dict[str, object]:
    return {
        "source": {"path": str(args.clip), "output": str(output)},
        "detector": {"use": "ultralytics", "weights": str(args.weights), "conf": 0.3},
        "labels": {**labels, "max_row_mb": 10_000},
    }


def _look(live: Assembly, clip: Path, num_frames: int) -> tuple[list[Detections], VideoInfo, float]:
    """Returns what the detector finds in the first frames, and the processor seconds that it takes for each."""
    found: list[Detections] = []
    with PyAVReader(Media("video", (clip,))) as reader:
        info = reader.info
        batches: list[FrameBatch] = list(reader.batches(np.arange(min(num_frames, info.num_frames)), BATCH_SIZE))
    live.detection.detector.detect(batches[0])
    began = time.process_time()
    for batch in batches:
        found += live.detection.detector.detect(batch)
    return found, info, (time.process_time() - began) / len(found)


def _repeat(found: list[Detections], info: VideoInfo, num_frames: int) -> tuple[VideoInfo, list[Detections]]:
    """Returns a video as long as asked: forwards, backwards, forwards, so that things do not jump."""
    there_and_back = [*found, *reversed(found)]
    longer = VideoInfo(info.width, info.height, num_frames, info.average_fps, num_frames / info.average_fps)
    return longer, [there_and_back[n % len(there_and_back)] for n in range(num_frames)]


def _keep(live: Assembly, video: tuple[VideoInfo, list[Detections]]) -> None:
    """Writes what a run over such a video would have kept."""
    info, found = video
    entry = Entry("clip.mp4", "clip.mp4", "inferred", "none")
    origin = DetectionProvenance(
        tuple(live.detection.detector.class_names), live.model, f"{live.detection.provider.fingerprint}:media", 0.05
    )
    write_raw(live.store.detections_path(entry), RawRecord(info, concatenate(enumerate(found)), origin))
    live.store.ledger.record(entry)


def _relabel(args: argparse.Namespace, output: Path, name: str, labels: Mapping[str, object]) -> dict[str, Any]:
    assembly = assemble_stored(check_config(_config(args, output, labels), "benchmark"), output)
    began = time.process_time()
    report = run_tasks(assembly, NullProgress(), StopSignal())
    seconds = time.process_time() - began
    assert [task.status for task in report.tasks] == ["done"], report
    return {
        "labels": name,
        "instances": sum(report.instances.values()),
        "boxes": report.num_boxes,
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    main()
