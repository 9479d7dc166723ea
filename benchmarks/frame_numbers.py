"""Does every reader give every frame its right number? Builds videos in many ways and compares with FFmpeg.

    uv run python -m benchmarks.frame_numbers --folder /tmp/corpus --limit 200

Encoders x containers x ways to make a file: cut, concatenated, remuxed, segmented, shifted in time, and so on. Each
frame shows its own number. The truth is what `ffmpeg -fps_mode passthrough` shows. Each reader reads all frames, some
with a stride, a range, keyframes, and the last one. Each result is `equal`, `refused` with the reason, or `WRONG`.
Where the FFmpeg on PATH and the one in PyAV show different frames, PyAV's are the truth, and that is reported.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import Media
from prelabel.errors import PrelabelError
from prelabel.media.decord import DecordReader
from prelabel.media.index import index_video
from prelabel.media.parallel import ParallelReader
from prelabel.media.pyav import PyAVReader
from prelabel.media.torchcodec import TorchCodecReader
from prelabel.plugins.protocols import VideoReader
from tests.make_media import draw_number, read_number

WIDTH, HEIGHT, NUM_FRAMES, FPS = 96, 64, 75, 30
X264 = "-c:v libx264 -preset veryfast -qp 16 -threads 1 -x264-params"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=1:frame-threads=1:qp=14"
LEGACY = "-b:v 4M -g 12"
ENCODERS = {
    "h264": f"{X264} keyint=12:bframes=2:scenecut=0",
    "h264-open": f"{X264} keyint=15:bframes=3:open-gop=1:b-adapt=0:scenecut=0",
    "h264-pyramid": f"{X264} keyint=30:bframes=5:b-pyramid=normal:b-adapt=0:ref=4:open-gop=1",
    "h264-no-b": f"{X264} keyint=12:bframes=0:scenecut=0",
    "h264-refresh": f"{X264} intra-refresh=1:keyint=12:bframes=0",
    "h264-interlaced": f"{X264} tff=1:keyint=12:bframes=2",
    "h264-long": f"{X264} keyint=250:bframes=2",
    "hevc": f"{X265}:keyint=12:bframes=2:open-gop=0",
    "hevc-open": f"{X265}:keyint=15:bframes=3:open-gop=1:b-adapt=0",
    "hevc-eos": f"{X265}:keyint=15:bframes=3:open-gop=1:b-adapt=0:repeat-headers=1",
    "mpeg1": f"-c:v mpeg1video {LEGACY} -bf 2",
    "mpeg2": f"-c:v mpeg2video {LEGACY} -bf 2",
    "mpeg2-interlaced": f"-c:v mpeg2video {LEGACY} -bf 2 -flags +ilme+ildct -top 1",
    "mpeg2-no-b": f"-c:v mpeg2video {LEGACY}",
    "mpeg4": f"-c:v mpeg4 {LEGACY} -bf 2",
    "mpeg4-no-b": f"-c:v mpeg4 {LEGACY}",
    "msmpeg4": f"-c:v msmpeg4 {LEGACY}",
    "wmv2": f"-c:v wmv2 {LEGACY}",
    "flv1": f"-c:v flv {LEGACY}",
    "vp8": "-c:v libvpx -b:v 1M -g 12 -deadline realtime -cpu-used 8 -auto-alt-ref 0",
    "vp8-hidden": "-c:v libvpx -b:v 1M -g 30 -auto-alt-ref 1 -lag-in-frames 16 -deadline good -cpu-used 5",
    "vp9": "-c:v libvpx-vp9 -b:v 1M -g 12 -deadline realtime -cpu-used 8",
    "vp9-hidden": "-c:v libvpx-vp9 -b:v 400k -g 30 -auto-alt-ref 1 -lag-in-frames 16 -deadline good -cpu-used 5",
    "av1": "-c:v libsvtav1 -preset 12 -svtav1-params keyint=12:lp=1",
    "mjpeg": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "prores": "-c:v prores -pix_fmt yuv422p10le",
    "ffv1": "-c:v ffv1",
    "theora": "-c:v libtheora -q:v 8 -g 12",
}
SUFFIXES = ("mp4", "mov", "mkv", "ts", "avi", "mpg", "vob", "flv", "webm", "asf", "ogv", "nut", "mxf", "m2ts", "es")
ES_FORMATS = {"h264": "h264", "hevc": "hevc", "mpeg1": "mpeg1video", "mpeg2": "mpeg2video", "mpeg4": "m4v"}


def run_ffmpeg(*arguments: str | Path, data: bytes | None = None) -> bytes | None:
    """Returns FFmpeg's standard output; None if it fails."""
    command = ["ffmpeg", "-y", "-v", "error", *map(str, arguments)]
    done = subprocess.run(
        command, check=False, input=data, stdin=None if data else subprocess.DEVNULL, capture_output=True, timeout=60
    )
    return done.stdout if done.returncode == 0 else None


def _copy(source: Path, target: Path, before: str = "", after: str = "") -> bool:
    options = ES_FORMATS.get(target.stem.split("_")[0].split("-")[0], "") if target.suffix == ".es" else ""
    muxer = ["-f", options] if options else []
    if target.suffix == ".es" and not options:
        return False
    return (
        run_ffmpeg(*before.split(), "-i", source, "-map", "0:v", "-c", "copy", *after.split(), *muxer, target)
        is not None
    )


def _segment(source: Path, target: Path) -> bool:
    pattern = target.with_name(f"{target.stem}_%d{target.suffix}")
    done = _copy(source, pattern, after="-f segment -segment_time 1 -reset_timestamps 1")
    part = target.with_name(f"{target.stem}_1{target.suffix}")
    return done and part.exists() and bool(part.rename(target))


def _concat(source: Path, target: Path, cut: str = "") -> bool:
    part = source
    if cut:
        part = target.with_name(f"{target.stem}_part{source.suffix}")
        if not _copy(source, part, before=cut):
            return False
    listing = target.with_suffix(".txt")
    listing.write_text(f"file '{source}'\nfile '{part}'\n")
    return run_ffmpeg("-f", "concat", "-safe", "0", "-i", listing, "-map", "0:v", "-c", "copy", target) is not None


def _bytes_twice(source: Path, target: Path) -> bool:
    if target.suffix not in (".ts", ".mpg", ".vob", ".es", ".m2ts") or not _copy(source, target):
        return False
    target.write_bytes(target.read_bytes() * 2)
    return True


def _bytes_from_middle(source: Path, target: Path) -> bool:
    if target.suffix not in (".ts", ".mpg", ".vob", ".es", ".m2ts") or not _copy(source, target):
        return False
    data = target.read_bytes()
    target.write_bytes(data[len(data) // 3 // 188 * 188 :])
    return True


def _through(middle: str, source: Path, target: Path) -> bool:
    between = target.with_name(f"{target.stem}_between.{middle}")
    return _copy(source, between) and _copy(between, target, before="-fflags +genpts")


WAYS: dict[str, Callable[[Path, Path], bool]] = {
    "plain": _copy,
    "cut": partial(_copy, before="-ss 0.7"),
    "cut-end": partial(_copy, after="-t 1.23"),
    "cut-keep-times": partial(_copy, before="-ss 0.9", after="-copyts -avoid_negative_ts disabled"),
    "segment": _segment,
    "concat": _concat,
    "concat-cut": partial(_concat, cut="-ss 0.7"),
    "late": partial(_copy, after="-output_ts_offset 95444"),
    "negative": partial(_copy, after="-output_ts_offset -0.5 -avoid_negative_ts disabled"),
    "fragmented": partial(_copy, after="-movflags frag_keyframe+empty_moov"),
    "twice": _bytes_twice,
    "from-middle": _bytes_from_middle,
    "through-ts": partial(_through, "ts"),
    "through-avi": partial(_through, "avi"),
    "through-mpg": partial(_through, "mpg"),
}


def build_corpus(folder: Path, encoders: list[str], ways: list[str], suffixes: list[str]) -> Iterator[Path]:
    """Yields the files that FFmpeg can make."""
    raw = b"".join(draw_number(number, WIDTH, HEIGHT).tobytes() for number in range(NUM_FRAMES))
    for encoder in encoders:
        master = folder / f"{encoder}_master.{'mov' if encoder == 'prores' else 'nut' if encoder == 'wmv2' else 'mkv'}"
        options = ENCODERS[encoder].split()
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-"]
        if "-pix_fmt" not in options:
            options += ["-pix_fmt", "yuv420p"]
        if not master.exists() and run_ffmpeg(*source, *options, master, data=raw) is None:
            print(f"{encoder}: FFmpeg cannot encode it here")
            continue
        for suffix in suffixes:
            for way, make in ((way, WAYS[way]) for way in ways):
                target = folder / f"{encoder}_{way}.{suffix}"
                if target.exists() or make(master, target):
                    yield target


def shown_by_ffmpeg(path: Path) -> list[int]:
    """Returns the numbers that FFmpeg's command shows."""
    out = run_ffmpeg(
        "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-"
    )
    frames = np.frombuffer(out or b"", np.uint8)
    frames = frames[: len(frames) // (WIDTH * HEIGHT * 3) * WIDTH * HEIGHT * 3].reshape(-1, HEIGHT, WIDTH, 3)
    return [read_number(frame) for frame in frames]


def shown_by_pyav(path: Path, threads: str = "SLICE") -> list[int]:
    """Returns the numbers that the FFmpeg in PyAV shows, from the first frame to the first error."""
    numbers: list[int] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return []
            container.streams.video[0].thread_type = threads
            for frame in container.decode(video=0):
                numbers.append(read_number(frame.to_ndarray(format="rgb24")))
    except av.error.FFmpegError:
        pass
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
    wanted = {"all": everything, "stride": everything[::3], "range": everything[20:41], "last": everything[-1:]}
    wanted["keyframes"] = index_video(path).keyframes
    return {name: frames for name, frames in wanted.items() if len(frames)}


def judge(path: Path, reader: str, truths: list[list[int]]) -> str:
    """Returns `equal`, `refused: reason` or `WRONG: what`."""
    media, refusal = Media("video", (path,)), ""
    try:
        with READERS[reader](media) as opened:
            num_frames = opened.info.num_frames
            wanted = requests(path, num_frames)
    except PrelabelError as error:
        return f"refused: {error}"
    truth = next((truth for truth in truths if len(truth) == num_frames), None)
    for name, frames in wanted.items():
        try:
            with READERS[reader](media) as opened:
                for batch in opened.batches(frames, 4):
                    for index, frame in zip(batch.frame_indices.tolist(), batch.data.numpy(), strict=True):
                        right = {truth[index] for truth in truths if index < len(truth)}
                        if truth is not None:
                            right = {each[index] for each in truths if len(each) == num_frames}
                        if read_number(frame) not in right:
                            return f"WRONG: {name}: frame {index} shows {read_number(frame)}, expected {sorted(right)}"
        except PrelabelError as error:
            refusal = refusal or f"refused: {name}: {error}"
    if not refusal and truth is None:
        return f"WRONG: {num_frames} frames, expected {[len(truth) for truth in truths]}"
    return refusal or "equal"


def main() -> None:
    """Builds, compares, prints what is not equal, and a summary; exits with 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--suffixes", nargs="+", default=list(SUFFIXES), choices=list(SUFFIXES))
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--limit", type=int, help="stop after so many files")
    args = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("no ffmpeg on PATH")
    args.folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    for number, path in enumerate(build_corpus(args.folder, args.encoders, args.ways, args.suffixes)):
        if number == args.limit:
            break
        by_command, by_library = shown_by_ffmpeg(path), shown_by_pyav(path)
        truths = [by_library] if by_command == by_library else [by_library, by_command]
        by_threads = shown_by_pyav(path, "AUTO")  # frames that refer to lost ones have other contents
        truths += [by_threads] if by_threads not in truths else []
        counts["files"] += 1
        counts["files on which FFmpeg's versions differ"] += len(truths) - 1
        if not by_library:
            counts["files of which FFmpeg shows nothing"] += 1
            continue
        for reader in args.readers:
            result = judge(path, reader, truths)
            counts[f"{reader}: {result.partition(':')[0]}"] += 1
            if result.startswith("WRONG") or (reader == "pyav" and result != "equal"):
                print(f"{path.name}: {reader}: {result}", flush=True)
    print(dict(sorted(counts.items())))
    sys.exit(any("WRONG" in name for name in counts))


if __name__ == "__main__":
    main()
