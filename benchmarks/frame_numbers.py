"""Does every reader give every frame its right number? Compares with FFmpeg on a thousand files of `benchmarks.corpus`.

    uv run python -m benchmarks.frame_numbers --folder /tmp/corpus --files 200 --jobs 2

The truth is what `ffmpeg -fps_mode passthrough` shows. Each reader reads all frames, some with a stride, ranges,
keyframes, and the last one. Each result is `equal`, `refused` with the reason, or `WRONG`. Where the FFmpeg on PATH
and the one in PyAV show different frames, either is right, and the summary counts such files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import HEIGHT, WIDTH, build_file, run_ffmpeg, spread
from prelabel.data.frames import Media
from prelabel.errors import PrelabelError
from prelabel.media.decord import DecordReader
from prelabel.media.index import index_video
from prelabel.media.parallel import ParallelReader
from prelabel.media.pyav import PyAVReader
from prelabel.media.torchcodec import TorchCodecReader
from prelabel.plugins.protocols import VideoReader
from tests.make_media import read_number


def shown_by_ffmpeg(path: Path) -> list[int]:
    """Returns the numbers that FFmpeg's command shows."""
    size = ["-s", f"{WIDTH}x{HEIGHT}"]
    out = run_ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", *size, "-")
    frames = np.frombuffer(out or b"", np.uint8)
    frames = frames[: len(frames) // (WIDTH * HEIGHT * 3) * WIDTH * HEIGHT * 3].reshape(-1, HEIGHT, WIDTH, 3)
    return [read_number(frame) for frame in frames]


def shown_by_pyav(path: Path, threads: str = "SLICE") -> list[int]:
    """Returns the numbers that the FFmpeg in PyAV shows; none if it reports damage."""
    numbers: list[int] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return []
            stream = next((s for s in container.streams.video if not s.disposition & 0x400), container.streams.video[0])
            stream.thread_type = threads
            for frame in container.decode(stream):
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                numbers.append(read_number(pixels))
    except av.error.FFmpegError:
        return []
    return numbers


READERS: dict[str, Callable[[Media], VideoReader]] = {
    "pyav": lambda media: PyAVReader(media, device="cpu"),
    "parallel": lambda media: ParallelReader(media, lambda: PyAVReader(media, device="cpu"), 3, 1e9, None),
    "decord": lambda media: DecordReader(media, device="cpu"),
    "torchcodec": lambda media: TorchCodecReader(media, device="cpu"),
}


def requests(path: Path, num_frames: int) -> dict[str, NDArray[np.int64]]:
    """Returns frames to ask for, by the way in which a config asks."""
    everything = np.arange(num_frames)
    wanted = {
        "all": everything,
        "stride": everything[::3],
        "range": everything[20:41],
        "two ranges": np.concatenate([everything[5:7], everything[50:53]]),
        "last": everything[-1:],
        "keyframes": index_video(path).keyframes,
    }
    return {name: frames for name, frames in wanted.items() if len(frames)}


LATE = "while reading"
"""Marks a refusal after the file was opened, when a run can no longer choose another reader."""


def judge(path: Path, reader: str, truths: list[list[int]]) -> str:
    """Returns `equal`, `refused: reason` or `WRONG: what`."""
    media, refusal = Media("video", (path,)), ""
    try:
        with READERS[reader](media) as opened:
            num_frames = opened.info.num_frames
            wanted = requests(path, num_frames)
    except PrelabelError as error:
        return f"refused: {error}"
    same_length = [truth for truth in truths if len(truth) == num_frames]
    for name, frames in wanted.items():
        try:
            with READERS[reader](media) as opened:
                for batch in opened.batches(frames, 4):
                    for index, frame in zip(batch.frame_indices.tolist(), batch.data.numpy(), strict=True):
                        right = {truth[index] for truth in same_length or truths if index < len(truth)}
                        if read_number(frame) not in right:
                            return f"WRONG: {name}: frame {index} shows {read_number(frame)}, expected {sorted(right)}"
        except PrelabelError as error:
            refusal = refusal or f"refused: {LATE}, {name}: {error}"
    if not refusal and not same_length:
        return f"WRONG: {num_frames} frames, expected {[len(truth) for truth in truths]}"
    return refusal or "equal"


@dataclass(frozen=True)
class Verdict:
    """What came out for one file.

    Attributes:
        kind: (encoder, way, suffix).
        num_truths: versions of FFmpeg, or of its threads, that show different frames.
        results: of each reader.
    """

    kind: tuple[str, str, str]
    num_truths: int
    results: dict[str, str]


def examine(kind: tuple[str, str, str], folder: Path, readers: list[str]) -> Verdict | None:
    """Builds a file and lets each reader read it; returns None if FFmpeg cannot make it, or reports damage."""
    path = build_file(folder, *kind)
    if path is None:
        return None
    by_library = shown_by_pyav(path)
    if not by_library:
        return None
    truths: list[list[int]] = []
    # Frames that refer to lost ones have other contents with frame threads.
    for truth in (by_library, shown_by_ffmpeg(path), shown_by_pyav(path, "AUTO")):
        truths += [truth] if truth and truth not in truths else []
    return Verdict(kind, len(truths), {reader: judge(path, reader, truths) for reader in readers})


def print_summary(verdicts: list[Verdict]) -> None:
    """Prints tables: results by reader, by way to make the file, by encoder, by container; then reasons."""
    columns = ("equal", "refused", "WRONG")
    rows: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for verdict in verdicts:
        for reader, result in verdict.results.items():
            outcome, _, detail = result.partition(": ")
            rows[f"reader {reader}", outcome] += 1
            names = dict(zip(("encoder", "way", "suffix"), verdict.kind, strict=True))
            for name in [f"{what} {value}" for what, value in names.items()] if reader == "pyav" else []:
                rows[name, outcome] += 1
            if outcome == "refused":
                reason = re.sub(r"\S+_\S+\.\w+: ?", "", detail)
                reasons[f"{reader}: {re.sub(r'[0-9]+([-,. ]+[0-9]+)*', 'N', reason)}"] += 1
    print(f"\n{'':32}" + "".join(f"{column:>9}" for column in columns))
    for name in sorted({name for name, _ in rows}):
        print(f"{name:32}" + "".join(f"{rows[name, column] or '-':>9}" for column in columns))
    print("\nreasons of refusals")
    for reason, num in reasons.most_common():
        print(f"{num:6}  {reason}")
    differ = sum(verdict.num_truths > 1 for verdict in verdicts)
    print(f"\n{len(verdicts)} files; {differ} of them FFmpeg shows in more than one way")


def main() -> None:
    """Builds and compares files, prints what is not equal, and a summary; exits with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="files that are there are not built again")
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--files", type=int, default=1000, help="stop after so many files")
    parser.add_argument("--only", default="", help="part of the names, e.g. h264-open_cut. or .mkv")
    parser.add_argument("--seed", type=int, default=0, help="takes other files")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("no ffmpeg on PATH")
    args.folder.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        work = partial(examine, folder=args.folder, readers=args.readers)
        for verdict in pool.imap_unordered(work, spread(args.only, args.seed)):
            if verdict is None:
                continue
            verdicts.append(verdict)
            encoder, way, suffix = verdict.kind
            for reader, result in verdict.results.items():
                if result.startswith("WRONG") or LATE in result or (reader == "pyav" and result != "equal"):
                    print(f"{encoder}_{way}.{suffix}: {reader}: {result}", flush=True)
            if len(verdicts) == args.files:
                break
    print_summary(verdicts)
    sys.exit(any(result.startswith("WRONG") for verdict in verdicts for result in verdict.results.values()))


if __name__ == "__main__":
    main()
