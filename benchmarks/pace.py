"""Whether the slowest stage alone sets the pace: the whole run beside each of its stages by itself.

    uv run python -m benchmarks.pace --clip street.mp4 --frame-ms 2 4 8 16 32

The detector waits for as long as a device would work, so that it takes no processor time from the stages around it.
Its time a frame is raised step by step: at first decoding is the slowest stage, then the device. All ways alternate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

from prelabel.runtime.process_settings import set_up_process

set_up_process()  # as the command line does, for all ways alike

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import waiting
from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media
from prelabel.media.open import open_frames
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--frame-ms", type=float, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--frames", type=int, default=280, help="of the clip, looked at in each run")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    _run(args, 1)  # starts the process that decodes
    rows = [_row(args, frame_ms) for frame_ms in args.frame_ms]
    table = Table(*rows[0], title=f"{args.clip.name}, {args.frames} frames, ms a frame", box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(highlight=False).print(table)
    print(json.dumps({"clip": args.clip.name, "frames": args.frames, "rounds": args.rounds, "rows": rows}))


def _row(args: argparse.Namespace, frame_ms: float) -> dict[str, float | str]:
    """Returns the medians for one detector, in ms a frame, and the median ratio of the slowest stage to the run."""
    decode, detect, run, ratios = [], [], [], []
    for _ in range(args.rounds):
        decode.append(_decode(args))
        detect.append(_detect(args, frame_ms))
        run.append(_run(args, frame_ms))
        ratios.append(max(decode[-1], detect[-1]) / run[-1])
    alone = {"decode": median(decode), "detect": median(detect)}
    return {
        **{f"{name} alone": round(value, 2) for name, value in alone.items()},
        "run": round(median(run), 2),
        "slowest": max(alone, key=lambda name: alone[name]),
        "of its pace": round(median(ratios), 3),
    }


def _decode(args: argparse.Namespace) -> float:
    """Reads the frames as a run does, in a process of their own, and looks at none."""
    with open_frames(Media("video", (args.clip,)), ReaderSection(), Path()) as opened:
        began = time.perf_counter()
        num = sum(len(batch) for batch in opened.reader.batches(np.arange(args.frames), args.batch_size))
        return 1e3 * (time.perf_counter() - began) / num


def _detect(args: argparse.Namespace, frame_ms: float) -> float:
    import torch

    detector = waiting.WaitingDetector(frame_ms)
    frames = torch.zeros((args.batch_size, 4, 4, 3), dtype=torch.uint8)
    indices = np.arange(args.batch_size)
    batch = FrameBatch(frames, indices, indices / 30)
    num_batches = -(-args.frames // args.batch_size)
    began = time.perf_counter()
    for _ in range(num_batches):
        detector.detect(batch)
    return 1e3 * (time.perf_counter() - began) / (num_batches * args.batch_size)


def _run(args: argparse.Namespace, frame_ms: float) -> float:
    """Runs the whole job: index, decode, detect, raw store, label row."""
    with tempfile.TemporaryDirectory() as output:
        values = {
            "source": {"use": "folder", "path": str(args.clip), "output": output},
            "detector": {
                "use": f"{waiting.__file__}:WaitingDetector",
                "frame_ms": frame_ms,
                "batch_size": args.batch_size,
            },
            "reader": {"frame_ranges": [[0, args.frames - 1]]},
        }
        report = run_tasks(assemble(check_config(values, "benchmark"), Path()), NullProgress(), StopSignal())
    assert not report.failed, report.failed
    return 1e3 * report.seconds / report.num_inferred


if __name__ == "__main__":
    main()
