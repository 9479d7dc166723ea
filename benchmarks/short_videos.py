"""How busy a device is kept by many short videos: opened ahead as a run does it, beside one after the other.

    uv run python -m benchmarks.short_videos --clip street.mp4 --videos 20 --frames 32

The detector waits for as long as a device would work, so that the CPU is free to read meanwhile.
Both ways alternate. Busy: the share of the time in which the detector worked.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.waiting import WaitingDetector
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.inference.batch_runner import BatchRunner
from prelabel.inference.decoding import Video
from prelabel.inference.pipeline import Pipeline
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--frames", type=int, default=32, help="looked at in each video")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--frame-ms", type=float, default=25, help="that the device works on a frame")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    video = Video(Media("video", (args.clip,)), args.clip.name)
    ways: dict[str, list[list[Video]]] = {
        "one after the other": [[video]] * args.videos,
        "opened ahead": [[video] * args.videos],
    }
    busy: dict[str, list[float]] = {name: [] for name in ways}
    _busy_share(args, [[video]])  # starts the process that decodes
    for _ in range(args.rounds):
        for name, groups in ways.items():
            busy[name].append(_busy_share(args, groups))
    shares = {name: round(median(values), 3) for name, values in busy.items()}
    table = Table("way", "busy", title=f"{args.videos} videos of {args.frames} frames, {args.clip.name}", box=None)
    for name, share in shares.items():
        table.add_row(name, str(share))
    Console(highlight=False).print(table)
    print(json.dumps({"clip": args.clip.name, "busy": shares, "all": busy}))


def _busy_share(args: argparse.Namespace, groups: Iterable[list[Video]]) -> float:
    """Returns the share of the time in which the detector worked, on all groups of videos one after the other."""
    runner = BatchRunner(WaitingDetector(args.frame_ms))
    reader = ReaderSection.model_validate({"device": "cpu", "frame_ranges": [[0, args.frames - 1]]})
    pipeline = Pipeline(reader, Path(), runner, args.batch_size, "strict", NullProgress(), StopSignal())
    began = time.perf_counter()
    for videos in groups:
        for result in pipeline.infer(videos):
            if isinstance(result, Exception):
                raise result
    return runner.busy_seconds / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
