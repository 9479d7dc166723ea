"""What a run of pre-classification takes beside its classifier: one that only waits, as for a device.

    uv run python -m benchmarks.classify_overhead --pictures photos/ --num 300 --picture-ms 0 3 8 --rounds 5

Each picture is a task: read in the process that decodes, its probabilities kept, its label row written, its entries
made. The pictures are made small first, so that decoding counts for little. Processor time is that of both processes;
busy: the share of the time in which the classifier worked. Outputs lie where `TMPDIR` says, and every file that is
written is synced to that disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.classify import processor_seconds
from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress

SIZE = (64, 64)


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of JPEG pictures")
    parser.add_argument("--num", type=int, default=300, help="pictures to make of them")
    parser.add_argument("--picture-ms", type=float, nargs="+", default=[0, 3, 8], help="that the classifier waits")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _make_small(args.pictures, folder / "pictures", args.num)
        _run(folder, 0)  # starts the process that decodes
        rounds = [[_run(folder, picture_ms) for picture_ms in args.picture_ms] for _ in range(args.rounds)]
    table = Table("classifier, ms a picture", "wall ms a picture", "processor ms", "busy", box=None)
    result = {}
    for picture_ms, measured in zip(args.picture_ms, zip(*rounds, strict=True), strict=True):
        wall, busy = (1000 * statistics.median(column) / args.num for column in zip(*measured, strict=True))
        result[str(picture_ms)] = {"wall_ms": round(wall, 2), "processor_ms": round(busy, 2)}
        table.add_row(f"{picture_ms:g}", f"{wall:.1f}", f"{busy:.2f}", f"{picture_ms / wall:.2f}")
    Console(highlight=False).print(table)
    print(json.dumps({"num_pictures": args.num, "rounds": args.rounds, "by_picture_ms": result}))


def _make_small(source: Path, target: Path, num: int) -> None:
    target.mkdir()
    files = sorted(source.glob("*.jpg"))
    for number in range(num):
        with Image.open(files[number % len(files)]) as picture:
            picture.thumbnail(SIZE)
            picture.convert("RGB").save(target / f"{number:06d}.jpg")


def _run(folder: Path, picture_ms: float) -> tuple[float, float]:
    """Returns the seconds that a run takes, and those of processor time."""
    output = folder / "out"
    values = {
        "source": {"path": str(folder / "pictures"), "output": str(output)},
        "classifier": {"use": "benchmarks.waiting:WaitingClassifier", "picture_ms": picture_ms, "batch_size": 16},
    }
    assembly = assemble(check_config(values, "benchmark"), folder)
    began, used = time.perf_counter(), processor_seconds()
    report = run_tasks(assembly, NullProgress(), StopSignal())
    seconds = time.perf_counter() - began, processor_seconds() - used
    assert not report.failed
    shutil.rmtree(output)
    return seconds


if __name__ == "__main__":
    main()
