"""Damaged files, without end: each is read in a process of its own, and must give all its frames or one clear error.

    uv run python -m tests.fuzz --minutes 5 --seed 1     # a line of JSON at the end; exit 1 if anything is wrong
    uv run python -m tests.fuzz --seed 1 --case 4711            # one of them again

Clips of every kind that tests/make_media.py builds (and those given with --clips) are damaged in one to four ways: bits
flipped, stretches overwritten, cut out, doubled, swapped, taken from another clip, sizes and times in headers replaced,
the end cut off.

Wrong is: an exception that is none of prelabel's, fewer frames than the index promised without an error, a hang that
the watch does not end, and at the end a process, a file handle or memory that is left. A crash or a hang of the process
that decodes is the file's own error, and counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.errors import PrelabelError
from prelabel.media.isolation.process import end_idle_processes, resident_bytes
from prelabel.media.open import open_frames
from tests.make_media import CLIPS, build_clip

Random = np.random.Generator
LIMITS = {"isolate": "always", "device": "cpu", "stall_seconds": 10, "max_memory_gb": 2}
READERS = ("auto", "auto", "auto", "decord")
MAX_SECONDS = 60
EVENTS = {"killed by": "crashed", "exit code": "crashed", "hung for": "hung", "of memory": "grew", "raised": "raised"}
SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def _flip_bits(data: bytearray, random: Random, _: bytes) -> None:
    for at in random.integers(0, len(data), random.integers(1, 40)):
        data[at] ^= 1 << int(random.integers(0, 8))


def _overwrite(data: bytearray, random: Random, _: bytes) -> None:
    start, end = _stretch(data, random)
    data[start:end] = bytes(end - start) if random.random() < 0.3 else random.bytes(end - start)


def _cut_out(data: bytearray, random: Random, _: bytes) -> None:
    start, end = _stretch(data, random)
    del data[start:end]


def _double(data: bytearray, random: Random, _: bytes) -> None:
    start, end = _stretch(data, random)
    data[end:end] = data[start:end]


def _swap(data: bytearray, random: Random, _: bytes) -> None:
    start, end = _stretch(data, random)
    length = end - start
    other = int(random.integers(0, max(1, len(data) - length)))
    data[start:end], data[other : other + length] = data[other : other + length], data[start:end]


def _splice(data: bytearray, random: Random, other: bytes) -> None:
    start, end = _stretch(data, random)
    begin = int(random.integers(0, len(other)))
    data[start:end] = other[begin : begin + end - start]


def _cut_off(data: bytearray, random: Random, _: bytes) -> None:
    del data[int(random.integers(1, len(data))) :]


def _edit_head(data: bytearray, random: Random, _: bytes) -> None:
    for at in random.integers(0, min(len(data), 600), random.integers(1, 6)):
        data[at] = int(random.integers(0, 256))


def _edit_sizes(data: bytearray, random: Random, _: bytes) -> None:
    """Replaces 32-bit numbers; in an MP4 those of its boxes, where sizes, counts and times are."""
    boxes = [
        at
        for name in (b"moov", b"stsz", b"stts", b"ctts", b"stco", b"elst", b"tkhd", b"avcC", b"mdhd")
        if (at := data.find(name)) > 0
    ]
    for _ in range(int(random.integers(1, 4))):
        base = int(random.choice(boxes)) if boxes and random.random() < 0.8 else int(random.integers(0, len(data)))
        at = base + 4 * int(random.integers(-1, 12))
        data[max(at, 0) : max(at, 0) + 4] = int(random.choice(SIZES)).to_bytes(4, "big")


DAMAGES: tuple[Callable[[bytearray, Random, bytes], None], ...] = (
    *(_flip_bits, _overwrite, _cut_out, _double, _swap, _splice, _cut_off, _edit_head, _edit_sizes, _edit_sizes),
)


def _stretch(data: bytearray, random: Random) -> tuple[int, int]:
    start = int(random.integers(0, len(data)))
    return start, min(len(data), start + int(2 ** random.uniform(0, 12)))


def damage(files: list[Path], seed: int, case: int, folder: Path) -> Path:
    """Writes the damaged file that belongs to this number, and returns it."""
    random = np.random.default_rng([seed, case])
    source, other = (files[i] for i in random.integers(0, len(files), 2))
    data = bytearray(source.read_bytes())
    for _ in range(int(random.integers(1, 5))):
        if data:
            DAMAGES[int(random.integers(0, len(DAMAGES)))](data, random, other.read_bytes())
    path = folder / f"{seed}-{case}{source.suffix}"
    path.write_bytes(data)
    return path


@dataclass
class Tally:
    """What became of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    frames: int = 0
    slowest_seconds: float = 0.0

    def read(self, path: Path, use: str) -> str:
        """Reads a file as a run does, and returns what became of it."""
        began = time.monotonic()
        outcome, num_frames = "whole", 0
        try:
            section = ReaderSection.model_validate({"use": use, **LIMITS})
            with open_frames(Media("video", (path,)), section, Path()) as opened:
                wanted = opened.wanted[:2000]
                for batch in opened.batches(wanted, 8):
                    num_frames += len(batch)
            if num_frames != len(wanted):
                outcome = "wrong"
                self.wrong.append(f"{path.name}: {num_frames} of {len(wanted)} frames without an error")
        except PrelabelError as error:
            text = str(error)
            outcome = next(
                (name for part, name in EVENTS.items() if part in text), "partly" if num_frames else "refused"
            )
            if outcome not in ("refused", "partly"):
                self.reasons[text.split(": ", 1)[1]] += 1
        except Exception as error:
            outcome = "wrong"
            self.wrong.append(f"{path.name}: {type(error).__name__}: {error}")
        seconds = time.monotonic() - began
        if seconds > MAX_SECONDS:
            self.wrong.append(f"{path.name}: took {seconds:.0f} s")
        self.outcomes[outcome] += 1
        self.frames += num_frames
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        return outcome


def main() -> int:
    """Damages and reads until the time is up; returns 1 if anything was wrong."""
    args = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [build_clip(folder / str(number), clip).path for number, clip in enumerate(CLIPS)] + args.clips
        tally = Tally()
        cases = [args.case] if args.case is not None else range(sys.maxsize)
        end = time.monotonic() + 60 * args.minutes
        warm_bytes, handles = 0, 0
        for number, case in enumerate(cases):
            if number == 100:
                warm_bytes, handles = resident_bytes(os.getpid()), _num_handles()
            path = damage(files, args.seed, case, folder)
            outcome = tally.read(path, READERS[case % len(READERS)])
            if args.keep is not None and outcome not in ("whole", "partly", "refused"):
                args.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, args.keep / f"{outcome}-{path.name}")
            path.unlink()
            if time.monotonic() > end:
                break
        end_idle_processes()
        gc.collect()
        if handles and _num_handles() > handles:
            tally.wrong.append(f"{_num_handles()} file handles, {handles} after 100 files")
        grown_mb = (resident_bytes(os.getpid()) - warm_bytes) / 1e6 if warm_bytes else 0.0
        if grown_mb > 100:
            tally.wrong.append(f"memory grew by {grown_mb:.0f} MB")
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if children:
            tally.wrong.append(f"processes left: {children}")
    report = {
        "seed": args.seed,
        "files": sum(tally.outcomes.values()),
        "outcomes": dict(tally.outcomes.most_common()),
        "frames": tally.frames,
        "slowest_seconds": round(tally.slowest_seconds, 1),
        "grown_mb": round(grown_mb, 1),
        "peak_mb_of_a_decoder": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000),
        "reasons": dict(tally.reasons.most_common(20)),
        "wrong": tally.wrong,
    }
    print(json.dumps(report))
    return 1 if tally.wrong else 0


def _num_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="more clips to damage")
    parser.add_argument("--keep", type=Path, help="folder for files that crashed, hung or went wrong")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
