"""What it costs to decode in a process of its own: processor time a frame, beside the same reader in this process.

    uv run python -m benchmarks.isolation --clip street.mp4 --rounds 5

Every frame is looked at once, as a detector on the CPU would. Both ways alternate; processor time is that of both
processes together, so that what else the machine does matters little.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.media.isolation.process import end_idle_processes
from prelabel.media.isolation.reader import IsolatedReader
from prelabel.media.open import open_frames


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--readers", nargs="+", default=["pyav", "decord"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    media = Media("video", (args.clip,))
    rows = []
    for use in args.readers:
        found: dict[str, list[tuple[float, float]]] = {"never": [], "always": []}
        _read(media, use, "always", args.batch_size)  # starts the process
        for _ in range(args.rounds):
            for isolate, measured in found.items():
                measured.append(_read(media, use, isolate, args.batch_size))
        cpu = {isolate: median(cpu for cpu, _ in measured) for isolate, measured in found.items()}
        wall = {isolate: median(wall for _, wall in measured) for isolate, measured in found.items()}
        rows.append(
            {
                "reader": use,
                "cpu_ms": round(cpu["never"], 2),
                "cpu_ms_isolated": round(cpu["always"], 2),
                "cpu_ratio": round(cpu["always"] / cpu["never"], 3),
                "wall_ratio": round(wall["always"] / wall["never"], 3),
            }
        )
    start = median(_start(media) for _ in range(args.rounds))
    table = Table(*rows[0], title=f"{args.clip.name}, a frame; start of a process {start:.2f} s", box=None)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(highlight=False).print(table)
    print(json.dumps({"clip": args.clip.name, "rows": rows, "start_seconds": round(start, 2)}))


def _read(media: Media, use: str, isolate: str, batch_size: int) -> tuple[float, float]:
    """Returns processor time and wall time, in ms a frame, of reading all frames once they are open."""
    section = ReaderSection.model_validate({"use": use, "device": "cpu", "isolate": isolate})
    with open_frames(media, section, Path()) as opened:
        reader = opened.reader
        other = reader.process_id if isinstance(reader, IsolatedReader) else None
        num_frames = reader.info.num_frames
        began, cpu = time.perf_counter(), time.process_time() + _processor_seconds(other)
        total = 0
        for batch in reader.batches(np.arange(num_frames), batch_size):
            total += int(batch.data[:, ::64, ::64].sum())
        cpu = time.process_time() + _processor_seconds(other) - cpu
        return 1e3 * cpu / num_frames, 1e3 * (time.perf_counter() - began) / num_frames


def _start(media: Media) -> float:
    """Returns how long it takes to start a process and open a video in it."""
    end_idle_processes()
    began = time.perf_counter()
    with open_frames(media, ReaderSection(use="pyav", device="cpu", isolate="always"), Path()):
        return time.perf_counter() - began


def _processor_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
