"""Builds videos in many ways with FFmpeg's command. Every frame shows its own number.

A file is an encoder x a way to make the file x a container. FFmpeg cannot make all of them; the others are left out.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

from tests.make_media import draw_number

WIDTH, HEIGHT, NUM_FRAMES, FPS = 96, 64, 75, 30
X264 = "-c:v libx264 -preset veryfast -qp 16 -threads 1 -x264-params"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none:pools=1:frame-threads=1:qp=14"
LEGACY = "-b:v 4M -g 12"
VPX = "-deadline realtime -cpu-used 8"
HIDDEN = "-g 30 -auto-alt-ref 1 -lag-in-frames 16 -deadline good -cpu-used 5"
NEAREST = "flags=neighbor"
ENCODERS = {
    "h264": f"{X264} keyint=12:bframes=2:scenecut=0",
    "h264-open": f"{X264} keyint=15:bframes=3:open-gop=1:b-adapt=0:scenecut=0",
    "h264-pyramid": f"{X264} keyint=30:bframes=5:b-pyramid=normal:b-adapt=0:ref=4:open-gop=1",
    "h264-no-b": f"{X264} keyint=12:bframes=0:scenecut=0",
    "h264-refresh": f"{X264} intra-refresh=1:keyint=12:bframes=0",
    "h264-interlaced": f"{X264} tff=1:keyint=12:bframes=2",
    "h264-fake-interlaced": f"{X264} fake-interlaced=1:keyint=12:bframes=2",
    "h264-long": f"{X264} keyint=250:bframes=2",
    "h264-intra": f"{X264} keyint=1",
    "h264-slices": f"{X264} keyint=12:bframes=2:slices=4:aud=1:nal-hrd=vbr:vbv-maxrate=2000:vbv-bufsize=2000",
    "h264-rgb": "-c:v libx264rgb -pix_fmt rgb24 -qp 10 -threads 1 -g 12",
    "h264-odd": f"-vf scale=98:66:{NEAREST} {X264} keyint=12:bframes=2",
    "h264-one": f"-frames:v 1 {X264} keyint=12",
    "h264-two": f"-frames:v 2 {X264} keyint=12:bframes=2",
    "h264-four": f"-frames:v 4 {X264} keyint=12:bframes=3:b-adapt=0",
    "h264-slow": f"-vf setpts=N*10/TB -r 0.1 -fps_mode passthrough {X264} keyint=12:bframes=2",
    "h264-fast": f"-vf settb=1/1000,setpts=N -r 1000 {X264} keyint=12:bframes=2",
    "h264-vfr": f"-vf settb=1/1000,setpts=floor(N*N/3)*20+N*7 -fps_mode vfr {X264} keyint=12:bframes=2",
    "h264-jitter": f"-vf settb=1/1000,setpts='N*33+mod(N*7,13)' -fps_mode vfr {X264} keyint=12:bframes=2",
    "h264-turned": f"-vf transpose=2 -metadata:s:v rotate=90 {X264} keyint=12:bframes=2",
    "hevc": f"{X265}:keyint=12:bframes=2:open-gop=0",
    "hevc-open": f"{X265}:keyint=15:bframes=3:open-gop=1:b-adapt=0",
    "hevc-headers": f"{X265}:keyint=15:bframes=3:open-gop=1:b-adapt=0:repeat-headers=1",
    "hevc-pyramid": f"{X265}:keyint=30:bframes=6:b-adapt=0:b-pyramid=1:open-gop=1:rc-lookahead=20",
    "hevc-fields": f"{X265}:keyint=12:bframes=2:interlace=tff",
    "hevc-intra": f"{X265}:keyint=1",
    "hevc-one": f"-frames:v 1 {X265}:keyint=1",
    "mpeg1": f"-c:v mpeg1video {LEGACY} -bf 2",
    "mpeg1-one": "-frames:v 1 -c:v mpeg1video -b:v 4M",
    "mpeg2": f"-c:v mpeg2video {LEGACY} -bf 2",
    "mpeg2-interlaced": f"-c:v mpeg2video {LEGACY} -bf 2 -flags +ilme+ildct -top 1",
    "mpeg2-closed": f"-c:v mpeg2video {LEGACY} -bf 2 -flags +cgop -sc_threshold 1000000000",
    "mpeg2-no-b": f"-c:v mpeg2video {LEGACY}",
    "mpeg2-422": f"-c:v mpeg2video -pix_fmt yuv422p {LEGACY} -bf 2",
    "mpeg4": f"-c:v mpeg4 {LEGACY} -bf 2",
    "mpeg4-no-b": f"-c:v mpeg4 {LEGACY}",
    "mpeg4-qpel": f"-c:v mpeg4 {LEGACY} -bf 2 -flags +qpel+mv4 -vtag XVID",
    "mpeg4-interlaced": f"-c:v mpeg4 {LEGACY} -bf 2 -flags +ilme+ildct",
    "xvid": "-c:v libxvid -q:v 3 -g 12 -bf 2",
    "msmpeg4": f"-c:v msmpeg4 {LEGACY}",
    "msmpeg4v2": f"-c:v msmpeg4v2 {LEGACY}",
    "wmv1": f"-c:v wmv1 {LEGACY}",
    "wmv2": f"-c:v wmv2 {LEGACY}",
    "flv1": f"-c:v flv {LEGACY}",
    "h261": f"-vf scale=176:144:{NEAREST} -c:v h261 {LEGACY}",
    "h263": f"-vf scale=176:144:{NEAREST} -c:v h263 {LEGACY}",
    "h263p": f"-c:v h263p {LEGACY}",
    "rv10": f"-vf scale=176:144:{NEAREST} -c:v rv10 {LEGACY}",
    "rv20": f"-vf scale=176:144:{NEAREST} -c:v rv20 {LEGACY}",
    "svq1": "-c:v svq1 -q:v 3 -g 12 -pix_fmt yuv410p",
    "vp8": f"-c:v libvpx -b:v 1M -g 12 {VPX} -auto-alt-ref 0",
    "vp8-hidden": f"-c:v libvpx -b:v 1M {HIDDEN}",
    "vp8-resilient": f"-c:v libvpx -b:v 300k -g 75 {VPX} -error-resilient 1 -drop-threshold 60",
    "vp9": f"-c:v libvpx-vp9 -b:v 1M -g 12 {VPX}",
    "vp9-hidden": f"-c:v libvpx-vp9 -b:v 400k {HIDDEN}",
    "vp9-10bit": f"-c:v libvpx-vp9 -pix_fmt yuv420p10le -b:v 1M -g 12 {VPX}",
    "vp9-lossless": f"-c:v libvpx-vp9 -lossless 1 -g 40 {VPX}",
    "av1": "-c:v libsvtav1 -preset 12 -svtav1-params keyint=12:lp=1",
    "av1-hidden": "-c:v libaom-av1 -cpu-used 8 -b:v 1M -g 30 -lag-in-frames 19 -threads 1",
    "av1-rav1e": "-c:v librav1e -speed 10 -qp 60 -g 30",
    "mjpeg": "-c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "mjpeg-vfr": "-vf settb=1/30,setpts=floor(N*N/10)+N -fps_mode vfr -c:v mjpeg -q:v 3 -pix_fmt yuvj420p",
    "jpeg2000": "-c:v jpeg2000 -q:v 3",
    "jpegls": "-c:v jpegls -pix_fmt rgb24",
    "png": "-c:v png -pix_fmt rgb24",
    "prores": "-c:v prores -pix_fmt yuv422p10le",
    "dnxhr": "-vf scale=256:128:flags=neighbor -c:v dnxhd -profile:v dnxhr_sq -pix_fmt yuv422p",
    "dv": "-vf scale=720:576:flags=neighbor -r 25 -c:v dvvideo -pix_fmt yuv420p",
    "ffv1": "-c:v ffv1",
    "ffv1-gop": f"-vf scale=97:65:{NEAREST} -c:v ffv1 -level 3 -g 12",
    "ffvhuff": "-c:v ffvhuff",
    "utvideo": "-c:v utvideo",
    "magicyuv": "-c:v magicyuv -pix_fmt yuv444p",
    "rawvideo": "-c:v rawvideo",
    "qtrle": "-c:v qtrle -pix_fmt rgb24 -g 12",
    "cinepak": "-c:v cinepak -pix_fmt rgb24 -g 12",
    "msvideo1": "-c:v msvideo1 -pix_fmt rgb555le -g 12",
    "flashsv": "-c:v flashsv -pix_fmt bgr24 -g 12",
    "zmbv": "-c:v zmbv -pix_fmt bgr0 -g 12",
    "snow": "-c:v snow -g 12 -q:v 2 -strict experimental",
    "theora": "-c:v libtheora -q:v 8 -g 12",
    "dirac": "-c:v vc2",
    "gif": "-c:v gif -pix_fmt rgb8",
    "apng": "-c:v apng -pix_fmt rgb24",
}
SUFFIXES = (
    *("mp4", "mov", "mkv", "ts", "avi", "mpg", "vob", "flv", "webm", "asf", "ogv", "nut", "mxf", "m2ts", "es"),
    *("m4v", "3gp", "f4v", "ismv", "ivf", "gxf", "dv", "wtv", "rm", "gif", "apng", "y4m", "mjpg", "mpjpeg", "obu"),
)
# FFmpeg knows these containers by another name than their suffix.
MUXERS = {"apng": "apng", "mjpg": "mjpeg", "y4m": "yuv4mpegpipe", "mpjpeg": "mpjpeg"}
ES_FORMATS = {
    "h264": "h264", "hevc": "hevc", "mpeg1": "mpeg1video", "mpeg2": "mpeg2video", "mpeg4": "m4v", "xvid": "m4v",
    "h261": "h261", "h263": "h263", "av1": "obu", "dirac": "dirac",
}  # fmt: skip
CONCATENABLE = (".ts", ".mpg", ".vob", ".es", ".m2ts", ".dv", ".mjpg")


def run_ffmpeg(*arguments: str | Path, data: bytes | None = None) -> bytes | None:
    """Returns FFmpeg's standard output; None if it fails."""
    command = ["ffmpeg", "-y", "-v", "error", *map(str, arguments)]
    stdin = None if data else subprocess.DEVNULL
    done = subprocess.run(command, check=False, input=data, stdin=stdin, capture_output=True, timeout=60)
    return done.stdout if done.returncode == 0 else None


def _muxer(target: Path) -> list[str]:
    suffix = target.suffix[1:]
    encoder = target.stem.split("_")[0].split("-")[0]
    name = ES_FORMATS.get(encoder) if suffix == "es" else MUXERS.get(suffix)
    return ["-f", name] if name else []


def _copy(source: Path, target: Path, before: str = "", after: str = "", maps: str = "-map 0:v") -> bool:
    if target.suffix == ".es" and not _muxer(target):
        return False
    options = [*maps.split(), "-c", "copy", *after.split(), *_muxer(target)]
    return run_ffmpeg(*before.split(), "-i", source, *options, target) is not None


def _segment(source: Path, target: Path) -> bool:
    pattern = target.with_name(f"{target.stem}_%d{target.suffix}")
    done = _copy(source, pattern, after="-f segment -segment_time 1 -reset_timestamps 1")
    part = target.with_name(f"{target.stem}_1{target.suffix}")
    return done and part.exists() and bool(part.rename(target))


def _concat(source: Path, target: Path, cut: str = "", end: str = "") -> bool:
    part = source
    if cut or end:
        part = target.with_name(f"{target.stem}_part{source.suffix}")
        if not _copy(source, part, before=cut, after=end):
            return False
    listing = target.with_suffix(".txt")
    listing.write_text(f"file '{part if end else source}'\nfile '{source if end else part}'\n")
    read, copy = ["-f", "concat", "-safe", "0"], ["-map", "0:v", "-c", "copy", *_muxer(target)]
    return run_ffmpeg(*read, "-i", listing, *copy, target) is not None


def _joined_with(other: str, source: Path, target: Path) -> bool:
    """Joins the video with one of another encoder, as a broadcast does between programmes."""
    second = source.with_name(f"{other}_master.mkv")
    if target.suffix not in CONCATENABLE or not second.exists() or not _copy(source, target):
        return False
    part = target.with_name(f"{other}_part{target.suffix}")
    if not _copy(second, part):
        return False
    target.write_bytes(target.read_bytes() + part.read_bytes())
    return True


def _bytes_twice(source: Path, target: Path) -> bool:
    if target.suffix not in CONCATENABLE or not _copy(source, target):
        return False
    target.write_bytes(target.read_bytes() * 2)
    return True


def _bytes_from_middle(source: Path, target: Path) -> bool:
    if target.suffix not in CONCATENABLE or not _copy(source, target):
        return False
    data = target.read_bytes()
    packet = 192 if target.suffix == ".m2ts" else 188
    target.write_bytes(data[len(data) // 3 // packet * packet :])
    return True


def _through(middle: str, source: Path, target: Path) -> bool:
    between = target.with_name(f"{target.stem}_between.{middle}")
    return _copy(source, between) and _copy(between, target, before="-fflags +genpts")


def _with_audio(source: Path, target: Path, maps: str, late: str = "") -> bool:
    codec = {"webm": "libopus", "ogv": "libvorbis", "mxf": "pcm_s16le", "avi": "mp2", "mpg": "mp2", "vob": "mp2"}
    audio = f"-f lavfi -t 2.5 -i sine=sample_rate=48000 {late}"
    encode = ["-c:v", "copy", "-c:a", codec.get(target.suffix[1:], "aac"), *_muxer(target)]
    return run_ffmpeg(*audio.split(), "-i", source, *maps.split(), *encode, target) is not None


def _with_cover(source: Path, target: Path) -> bool:
    cover = source.with_name("cover.jpg")
    if not cover.exists() and run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=640x640", "-frames:v", "1", cover) is None:
        return False
    maps = "-map 1 -map 0:v -c copy -disposition:v:0 attached_pic"
    return run_ffmpeg("-i", source, "-i", cover, *maps.split(), target) is not None


def _edited(edits: list[tuple[float, float]], source: Path, target: Path) -> bool:
    """Writes an MP4 with this edit list: (first second, seconds) of each part; a first second of -1 shows nothing."""
    if target.suffix not in (".mp4", ".mov", ".m4v") or not _copy(source, target, after="-use_editlist 0"):
        return False
    data = target.read_bytes()
    moov = data.rindex(b"moov") - 4
    head, body = data[:moov], data[moov:]
    movie_scale = _scale(body, b"mvhd")
    media_scale = _scale(body, b"mdhd")
    entries = b"".join(
        struct.pack(">IiI", round(seconds * movie_scale), round(first * media_scale) if first >= 0 else -1, 1 << 16)
        for first, seconds in edits
    )
    elst = _box(b"elst", struct.pack(">II", 0, len(edits)) + entries)
    edts = _box(b"edts", elst)
    at = body.index(b"mdia") - 4
    body = body[:at] + edts + body[at:]
    trak = body.index(b"trak") - 4
    body = _grown(_grown(body, 0, len(edts)), trak, len(edts))
    target.write_bytes(head + body)
    return True


def _box(name: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) + 8) + name + payload


def _scale(body: bytes, name: bytes) -> int:
    """Returns the time scale of a version 0 `mvhd` or `mdhd` box (ISO/IEC 14496-12, 8.2.2)."""
    at = body.index(name) + 4 + 12
    return int.from_bytes(body[at : at + 4], "big")


def _grown(body: bytes, at: int, num_bytes: int) -> bytes:
    size = int.from_bytes(body[at : at + 4], "big") + num_bytes
    return body[:at] + size.to_bytes(4, "big") + body[at + 4 :]


WAYS: dict[str, Callable[[Path, Path], bool]] = {
    "plain": _copy,
    "cut": partial(_copy, before="-ss 0.7"),
    "cut-end": partial(_copy, after="-t 1.23"),
    "cut-both": partial(_copy, before="-ss 0.55 -t 1.3"),
    "cut-last-second": partial(_copy, before="-sseof -1"),
    "cut-keep-times": partial(_copy, before="-ss 0.9", after="-copyts -avoid_negative_ts disabled"),
    "cut-copy-unknown": partial(_copy, before="-ss 0.9", after="-copyinkf -avoid_negative_ts make_zero"),
    "segment": _segment,
    "concat": _concat,
    "concat-cut": partial(_concat, cut="-ss 0.7"),
    "concat-cut-end": partial(_concat, end="-t 1.1"),
    "loop": partial(_copy, before="-stream_loop 1"),
    "late": partial(_copy, after="-output_ts_offset 95444"),
    "wraps": partial(_copy, after="-output_ts_offset 95442.5"),
    "negative": partial(_copy, after="-output_ts_offset -0.5 -avoid_negative_ts disabled"),
    "gap": partial(_copy, after="-bsf:v setts=pts='PTS+if(gte(N,36),5/TB,0)':dts='DTS+if(gte(N,36),5/TB,0)'"),
    "stored-order": partial(_copy, after="-bsf:v setts=ts=DTS"),
    "lost-gop": partial(_copy, after="-bsf:v noise=drop='between(n,24,35)'"),
    "lost-start": partial(_copy, after="-bsf:v noise=drop='lt(n,5)' -copyinkf"),
    "repeated-times": partial(_copy, after="-bsf:v setts=pts='if(mod(N,10),PTS,PREV_OUTPTS)'"),
    "coarse-times": partial(_copy, after="-video_track_timescale 20"),
    "fragmented": partial(_copy, after="-movflags frag_keyframe+empty_moov"),
    "frame-fragments": partial(_copy, after="-movflags frag_every_frame+empty_moov+default_base_moof"),
    "dash": partial(_copy, after="-movflags dash+delay_moov+frag_keyframe+negative_cts_offsets+global_sidx"),
    "negative-cts": partial(_copy, after="-movflags negative_cts_offsets+faststart"),
    "no-edit-list": partial(_copy, after="-use_editlist 0"),
    "edit-start": partial(_edited, [(0.5, 1.5)]),
    "edit-middle": partial(_edited, [(0, 0.8), (1.5, 0.8)]),
    "edit-twice": partial(_edited, [(0.4, 1.0), (0.4, 1.0)]),
    "edit-empty": partial(_edited, [(-1, 0.7), (0.1, 2.0)]),
    "edit-late": partial(_edited, [(0.5, 9)]),
    "live": partial(_copy, after="-live 1 -cluster_time_limit 100"),
    "muxrate": partial(_copy, after="-muxrate 3M -muxdelay 1.4"),
    "headers": partial(_copy, after="-bsf:v dump_extra=freq=all"),
    "audio-first": partial(_with_audio, maps="-map 0:a -map 1:v"),
    "audio-late-video": partial(_with_audio, maps="-map 1:v -map 0:a", late="-itsoffset 0.45"),
    "cover": _with_cover,
    "twice": _bytes_twice,
    "from-middle": _bytes_from_middle,
    "then-h264": partial(_joined_with, "h264-open"),
    "then-mpeg2": partial(_joined_with, "mpeg2"),
    "through-ts": partial(_through, "ts"),
    "through-avi": partial(_through, "avi"),
    "through-mpg": partial(_through, "mpg"),
    "through-flv": partial(_through, "flv"),
    "through-mp4": partial(_through, "mp4"),
}


def build_master(folder: Path, encoder: str) -> Path | None:
    """Returns the file from which all others of an encoder are made; None if FFmpeg cannot encode it here."""
    raw = b"".join(draw_number(number, WIDTH, HEIGHT).tobytes() for number in range(NUM_FRAMES))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-"]
    options = ENCODERS[encoder].split()
    options += [] if "-pix_fmt" in options else ["-pix_fmt", "yuv420p"]
    # libvpx spins while it waits for its other threads: on a busy machine an encoder of these small frames never ended.
    options += [] if "-threads" in options else ["-threads", "1"]
    # Not every container takes every codec, and Matroska loses a rotation.
    for suffix in ("mov", "mkv", "nut") if encoder in ("prores", "h264-turned") else ("mkv", "nut", "avi"):
        master = folder / f"{encoder}_master.{suffix}"
        if master.exists() or run_ffmpeg(*source, *options, master, data=raw) is not None:
            return master
        master.unlink(missing_ok=True)
    return None


def build_file(folder: Path, encoder: str, way: str, suffix: str) -> Path | None:
    """Returns a file of the corpus; None if FFmpeg cannot make it."""
    master = build_master(folder, encoder)
    target = folder / f"{encoder}_{way}.{suffix}"
    if master is None or (not target.exists() and not WAYS[way](master, target)):
        return None
    return target if target.exists() and target.stat().st_size else None


def build_corpus(folder: Path, encoders: list[str], ways: list[str], suffixes: list[str]) -> Iterator[Path]:
    """Yields all files that FFmpeg can make of these."""
    for encoder, suffix, way in product(encoders, suffixes, ways):
        path = build_file(folder, encoder, way, suffix)
        if path is not None:
            yield path


MOV = ("mp4", "mov", "m4v", "3gp", "f4v", "ismv")
# Elsewhere these ways give the same file as `plain`, or none.
SUFFIXES_OF_WAYS = {
    **dict.fromkeys(("coarse-times", "fragmented", "frame-fragments", "dash", "negative-cts", "no-edit-list"), MOV),
    **{way: ("mp4", "mov", "m4v") for way in WAYS if way.startswith("edit-")},
    **dict.fromkeys(("twice", "from-middle", "then-h264", "then-mpeg2"), tuple(name[1:] for name in CONCATENABLE)),
    "live": ("mkv", "webm"),
    "muxrate": ("ts", "m2ts", "mpg", "vob"),
    "cover": ("mp4", "mov", "m4v", "mkv"),
}
# These containers hold these encoders' videos only; FFmpeg writes others, and does not read them.
ENCODERS_OF_SUFFIXES = {
    "gif": ("gif",),
    "apng": ("apng",),
    "y4m": ("rawvideo",),
    "obu": ("av1", "av1-hidden", "av1-rav1e"),
    "mjpg": ("mjpeg", "mjpeg-vfr"),
    "mpjpeg": ("mjpeg", "mjpeg-vfr"),
    "dv": ("dv",),
    "gxf": ("dv", "mjpeg", "mpeg2", "mpeg2-no-b"),
    "rm": ("rv10", "rv20"),
    "asf": tuple(name for name in ENCODERS if not name.startswith(("h264", "hevc"))),
}


# Decoders of other codecs make up what they show before the first keyframe, each time anew.
BEGINS_AT_KEYFRAME = ("h264", "hevc", "mpeg1", "mpeg2", "vp", "av1")


def is_possible(encoder: str, way: str, suffix: str) -> bool:
    """Returns whether this may give a file that differs from all others."""
    has_suffix = suffix in SUFFIXES_OF_WAYS.get(way, SUFFIXES)
    has_suffix = has_suffix and (way != "lost-start" or encoder.startswith(BEGINS_AT_KEYFRAME))
    return has_suffix and encoder in ENCODERS_OF_SUFFIXES.get(suffix, ENCODERS)


def spread(only: str = "", seed: int = 0) -> list[tuple[str, str, str]]:
    """Returns (encoder, way, suffix) of every possible file in an order that is random and always the same.

    Args:
        only: leave out files whose name does not contain this.
        seed: another number gives another order.
    """
    names = [name for name in product(ENCODERS, WAYS, SUFFIXES) if is_possible(*name)]
    random.Random(seed).shuffle(names)
    return [(encoder, way, suffix) for encoder, way, suffix in names if only in f"{encoder}_{way}.{suffix}"]
