"""Small videos whose every frame carries its number, in each of the shapes that break decoders."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

ROWS, COLUMNS = 3, 4  # twelve bits: numbers below 4096
NUM_FRAMES = 30
FPS = 30


@dataclass(frozen=True)
class Clip:
    """A file, and the numbers that its frames show when they are displayed in order."""

    path: Path
    numbers: tuple[int, ...] = tuple(range(NUM_FRAMES))


def draw_number(number: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Returns a picture (H, W, 3) that shows `number` as twelve dark or bright blocks, on colours that differ."""
    y, x = np.mgrid[:height, :width]
    bit = (y * ROWS // height) * COLUMNS + x * COLUMNS // width
    bright = (number >> bit) & 1
    tint = np.stack([x * 50 // width, y * 50 // height, (x + y + number * 7) % 50], axis=-1)
    return (np.where(bright, 170, 20)[..., None] + tint).astype(np.uint8)


def read_number(frame: NDArray[np.uint8]) -> int:
    """Returns the number that a decoded picture (H, W, 3) shows."""
    height, width = frame.shape[:2]
    grey = frame.astype(np.float32).mean(axis=2)
    number = 0
    for bit in range(ROWS * COLUMNS):
        row, column = divmod(bit, COLUMNS)
        top, left = height * (4 * row + 1) // (4 * ROWS), width * (4 * column + 1) // (4 * COLUMNS)
        bottom, right = height * (4 * row + 3) // (4 * ROWS), width * (4 * column + 3) // (4 * COLUMNS)
        number |= int(grey[top:bottom, left:right].mean() > 120) << bit
    return number


X264 = {"preset": "veryfast", "qp": "14", "threads": "1", "x264-params": "keyint=12:bframes=2:scenecut=0"}
X265 = {
    "preset": "ultrafast",
    "x265-params": "keyint=12:bframes=2:qp=14:pools=1:frame-threads=1:log-level=none:open-gop=0",
}
X265_OPEN = {**X265, "x265-params": X265["x265-params"].replace("open-gop=0", "open-gop=1")}
MPEG = {"g": "12", "bf": "2", "b": "4000000"}
VP9 = {"g": "12", "b": "1000000", "deadline": "realtime", "cpu-used": "8"}
VP9_HIDDEN = {"b": "200000", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "cpu-used": "5"}


@dataclass(frozen=True)
class Recipe:
    """How to write a clip; what is left out makes a plain H.264 MP4 with B-frames and a closed GOP of 12."""

    suffix: str = ".mp4"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: dict(X264))
    pix_fmt: str = "yuv420p"
    num_frames: int = NUM_FRAMES
    width: int = 96
    height: int = 64
    pts: Sequence[int] | None = None  # in units of 1 / FPS
    rotation: int = 0  # clockwise degrees that the file asks for
    hflip: bool = False  # mirrored after that turn
    muxer: dict[str, str] = field(default_factory=dict)
    color_range: int = 1
    colorspace: int | None = None


RECIPES = {
    "h264": Recipe(),
    "h264 open GOP": Recipe(options={**X264, "x264-params": "open-gop=1:bframes=3:keyint=10:scenecut=0"}),
    "h264 no B-frames": Recipe(options={**X264, "x264-params": "bframes=0:keyint=12:scenecut=0"}),
    "h264 intra refresh": Recipe(options={**X264, "x264-params": "intra-refresh=1:bframes=0:keyint=12:scenecut=0"}),
    "h264 interlaced": Recipe(options={**X264, "x264-params": "tff=1:bframes=2:keyint=12"}),
    "h264 10-bit": Recipe(pix_fmt="yuv420p10le"),
    "h264 4:2:2": Recipe(pix_fmt="yuv422p"),
    "h264 4:4:4": Recipe(pix_fmt="yuv444p"),
    "h264 grey": Recipe(pix_fmt="gray"),
    "h264 full range": Recipe(color_range=2),
    "h264 BT.709": Recipe(colorspace=1),
    "h264 variable rate": Recipe(pts=[number * (number + 3) // 2 for number in range(NUM_FRAMES)]),
    "h264 late start": Recipe(pts=[number + 100 for number in range(NUM_FRAMES)]),
    "h264 negative start": Recipe(suffix=".mkv", pts=[number - 7 for number in range(NUM_FRAMES)]),
    "h264 one frame": Recipe(num_frames=1),
    "h264 rotated 90": Recipe(rotation=90),
    "h264 rotated 180": Recipe(rotation=180),
    "h264 rotated 270": Recipe(rotation=270),
    "h264 mirrored": Recipe(hflip=True),
    "h264 rotated 90 mirrored": Recipe(rotation=90, hflip=True),
    "h264 mov": Recipe(suffix=".mov"),
    "h264 mkv": Recipe(suffix=".mkv"),
    "h264 mkv no duration": Recipe(suffix=".mkv", muxer={"live": "1"}),
    "h264 fragmented": Recipe(muxer={"movflags": "frag_keyframe+empty_moov"}),
    "h264 TS": Recipe(suffix=".ts"),
    "h264 AVI": Recipe(suffix=".avi"),
    "h264 raw": Recipe(suffix=".h264"),
    "hevc": Recipe(codec="libx265", options=X265),
    "hevc open GOP": Recipe(codec="libx265", options=X265_OPEN),
    "hevc 10-bit": Recipe(codec="libx265", options=X265, pix_fmt="yuv420p10le"),
    "hevc raw": Recipe(suffix=".hevc", codec="libx265", options=X265),
    "mpeg4": Recipe(codec="mpeg4", options=MPEG),
    "mpeg4 AVI": Recipe(suffix=".avi", codec="mpeg4", options=MPEG),
    "mpeg2 PS": Recipe(suffix=".mpg", codec="mpeg2video", options=MPEG),
    "mjpeg AVI": Recipe(suffix=".avi", codec="mjpeg", pix_fmt="yuvj420p", options={"q": "3"}, color_range=2),
    "vp8 webm": Recipe(suffix=".webm", codec="libvpx", options=VP9),
    "vp9 webm": Recipe(suffix=".webm", codec="libvpx-vp9", options=VP9),
    "vp9 hidden frames": Recipe(suffix=".webm", codec="libvpx-vp9", options=VP9_HIDDEN),
    "av1": Recipe(codec="libsvtav1", options={"preset": "12", "svtav1-params": "keyint=12:lp=1"}),
    "ffv1 odd size": Recipe(suffix=".mkv", codec="ffv1", options={}, width=97, height=65),
}


_ENCODED: dict[str, bytes] = {}


def write_once(path: Path, content: str, encode: Callable[[Path], object]) -> None:
    """Writes a file by `encode`, or by copying where the same content was encoded before."""
    key = f"{path.suffix} {content}"
    if key not in _ENCODED:
        encode(path)
        _ENCODED[key] = path.read_bytes()
    else:
        path.write_bytes(_ENCODED[key])


def write_clip(path: Path, recipe: Recipe) -> Clip:
    """Writes frames that show 0, 1, 2 ... when displayed as the file asks."""
    write_once(path, repr(recipe), lambda path: _encode(path, recipe))
    return Clip(path, tuple(range(recipe.num_frames)))


def _encode(path: Path, recipe: Recipe) -> None:
    turned = recipe.rotation % 180 == 90
    with av.open(path, "w", options=recipe.muxer) as container:
        stream = container.add_stream(recipe.codec, rate=FPS, options=recipe.options)
        stream.width, stream.height = (recipe.height, recipe.width) if turned else (recipe.width, recipe.height)
        stream.pix_fmt = recipe.pix_fmt
        stream.codec_context.time_base = Fraction(1, FPS)
        stream.codec_context.color_range = recipe.color_range
        if recipe.colorspace is not None:
            stream.codec_context.colorspace = recipe.colorspace
        if recipe.rotation or recipe.hflip:
            stream.set_display_rotation(-recipe.rotation, hflip=recipe.hflip)
        for number in range(recipe.num_frames):
            frame = _stored_frame(number, recipe)
            frame.pts = recipe.pts[number] if recipe.pts else number
            frame.time_base = Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _stored_frame(number: int, recipe: Recipe) -> av.VideoFrame:
    displayed = draw_number(number, recipe.width, recipe.height)
    unmirrored = displayed[:, ::-1] if recipe.hflip else displayed
    stored = np.ascontiguousarray(np.rot90(unmirrored, recipe.rotation // 90))
    return av.VideoFrame.from_ndarray(stored, "rgb24").reformat(
        format=recipe.pix_fmt, dst_colorspace=recipe.colorspace, dst_color_range=recipe.color_range
    )


def remux(
    source: Path,
    target: Path,
    *,
    edit: Callable[[int, av.Packet], av.Packet] = lambda _, packet: packet,
    times: int = 1,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Copies a video's packets `times` times over, each as `edit` gives it back."""
    with av.open(target, "w", options=muxer or {}) as output:
        stream = None
        for turn in range(times):
            with av.open(source) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                shift = turn * round(NUM_FRAMES / FPS / video.time_base)
                for number, packet in enumerate(p for p in container.demux(video) if p.size):
                    copy = edit(number, packet)
                    copy.pts, copy.dts, copy.stream = copy.pts + shift, copy.dts + shift, stream
                    output.mux(copy)
    return target


def remux_streams(sources: Sequence[Path], target: Path) -> Path:
    """Copies the videos of several files side by side into one file."""
    with av.open(target, "w") as output:
        copies = []
        for source in sources:
            with av.open(source) as container:
                video = container.streams.video[0]
                copies.append((output.add_stream_from_template(video), source))
        for stream, source in copies:
            with av.open(source) as container:
                for packet in container.demux(container.streams.video[0]):
                    if packet.size:
                        packet.stream = stream
                        output.mux(packet)
    return target


def pack_b_frames(source: Path, target: Path) -> Path:
    """Writes MPEG-4 as DivX 5 did: a reference and the first B-frame after it share a packet of an AVI.

    The packet that this leaves over holds a frame that is not coded.
    """
    start, user_data = b"\0\0\1\xb6", b"\0\0\1\xb2"
    with av.open(source) as container:
        video = container.streams.video[0]
        header = bytes(video.codec_context.extradata or b"").split(user_data)[0] + user_data + b"DivX503b1393p"
        units = [bytes(packet) for packet in container.demux(video) if packet.size]
    chunks: list[bytes] = []
    at = 0
    while at < len(units):
        end = at + 1
        while end < len(units) and units[end][units[end].find(start) + 4] >> 6 == 2:  # vop_coding_type B
            end += 1
        between = units[at + 1 : end]
        not_coded = [*between[1:], start + bytes([0x50, 0x4F])]
        chunks += [units[at] + between[0], *not_coded] if between else [units[at]]
        at = end
    chunks[0] = header + chunks[0][chunks[0].find(start) :]
    with av.open(target, "w") as output:
        with av.open(source) as container:
            stream = output.add_stream_from_template(container.streams.video[0])
        stream.codec_context.codec_tag = "DX50"
        for number, data in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, FPS), number, number
            output.mux(packet)
    return target


def add_exif(source: Path, target: Path, orientation: int) -> Path:
    """Writes JPEG frames as a camera does, each with EXIF that says how it is turned (tag 0x0112)."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif

    def edit(_: int, packet: av.Packet) -> av.Packet:
        start, rest = bytes(packet)[:2], bytes(packet)[2:]
        copy = av.Packet(start + segment + rest)
        copy.pts, copy.dts, copy.time_base, copy.is_keyframe = packet.pts, packet.dts, packet.time_base, True
        return copy

    return remux(source, target, edit=edit)


def join_vp9_frames(source: Path, target: Path, first: int) -> Path:
    """Puts two frames of a VP9 video into one packet, as recordings with several layers have them.

    Args:
        source: its frames are all shown.
        target: to write.
        first: the earlier of the two frames.
    """
    with av.open(source) as container, av.open(target, "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        pair = [bytes(packet) for packet in packets[first : first + 2]]
        marker = bytes([0b110_11_000 | len(pair) - 1])  # sizes of 4 bytes; VP9 specification, annex B
        joined = av.Packet(
            b"".join(pair) + marker + b"".join(len(data).to_bytes(4, "little") for data in pair) + marker
        )
        joined.pts, joined.dts, joined.time_base = packets[first].pts, packets[first].dts, packets[first].time_base
        for packet in [*packets[:first], joined, *packets[first + 2 :]]:
            packet.stream = stream
            output.mux(packet)
    return target


def _edit_list(folder: Path) -> Clip:
    """The first 5 frames are discarded, one of them stored: the rest refers to it."""
    source = write_clip(folder / "whole.mp4", Recipe()).path

    def earlier(_: int, packet: av.Packet) -> av.Packet:
        shift = round(5 / FPS / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        return packet

    path = remux(source, folder / "edit_list.mp4", edit=earlier, muxer={"avoid_negative_ts": "disabled"})
    return Clip(path, tuple(range(5, NUM_FRAMES)))


def _joined(folder: Path, second: Recipe) -> Clip:
    """Two broadcasts one after the other: the clock starts anew."""
    first = write_clip(folder / "first.ts", Recipe(suffix=".ts")).path
    then = write_clip(folder / "then.ts", second).path
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + then.read_bytes())
    return Clip(path, (*range(NUM_FRAMES), *range(second.num_frames)))


def _lost_start(folder: Path, name: str, suffix: str) -> Clip:
    """A recording begun in mid-stream: its first 5 packets are gone, so it shows nothing before the next keyframe."""
    source = build_clip(folder / "whole", name).path
    path = folder / f"late{suffix}"
    with av.open(source) as container, av.open(path, "w") as output:
        video = container.streams.video[0]
        stream = output.add_stream_from_template(video)
        for packet in [packet for packet in container.demux(video) if packet.size][5:]:
            packet.stream = stream
            output.mux(packet)
    return Clip(path, tuple(range(12, NUM_FRAMES)))


def _vp8_hidden_frame(folder: Path) -> Clip:
    """Frame 7 is there to be referred to and not shown."""
    source = write_clip(folder / "whole.webm", RECIPES["vp8 webm"]).path

    def hide(number: int, packet: av.Packet) -> av.Packet:
        if number != 7:
            return packet
        data = bytearray(packet)
        data[0] &= ~0x10
        hidden = av.Packet(bytes(data))
        hidden.pts, hidden.dts, hidden.time_base = packet.pts, packet.dts, packet.time_base
        return hidden

    path = remux(source, folder / "hidden.webm", edit=hide)
    return Clip(path, tuple(number for number in range(NUM_FRAMES) if number != 7))


BUILDERS: dict[str, Callable[[Path], Clip]] = {
    "h264 edit list": _edit_list,
    "h264 joined TS": lambda folder: _joined(folder, Recipe(suffix=".ts")),
    "h264 size changes": lambda folder: _joined(folder, Recipe(suffix=".ts", width=128, height=96)),
    "h264 lost start": lambda folder: _lost_start(folder, "h264 TS", ".ts"),
    "hevc lost start": lambda folder: _lost_start(folder, "hevc open GOP", ".mkv"),
    "mpeg2 lost start": lambda folder: _lost_start(folder, "mpeg2 PS", ".mpg"),
    "vp8 hidden frame": _vp8_hidden_frame,
}
CLIPS = (*RECIPES, *BUILDERS)


def build_clip(folder: Path, name: str) -> Clip:
    """Builds one of CLIPS."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in BUILDERS:
        return BUILDERS[name](folder)
    return write_clip(folder / f"clip{RECIPES[name].suffix}", RECIPES[name])


def cut_off(source: Path, target: Path, share: float = 0.6) -> Path:
    """Keeps the first part of a file; an MP4 gets its index moved to the front first."""
    if source.suffix == ".mp4":
        source = remux(source, target.with_name(f"faststart_{source.name}"), muxer={"movflags": "faststart"})
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def spoil(source: Path, target: Path, packets: Sequence[int], keep: int = 8) -> Path:
    """Overwrites packets with noise, all but their first `keep` bytes: with 4 an H.264 packet is no frame at all."""
    with av.open(source) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for at, size in (places[number] for number in packets):
        data[at + keep : at + size] = bytes((7 * byte * byte + 3) % 256 for byte in range(size - keep))
    target.write_bytes(bytes(data))
    return target


def write_audio(path: Path, cover: bool = False) -> Path:
    """Writes a second of silence, with a picture on its cover if asked."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        picture = container.add_stream("mjpeg", rate=1) if cover else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 96, 64, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if picture is not None:
            container.mux(
                picture.encode(av.VideoFrame.from_ndarray(draw_number(1), "rgb24").reformat(format="yuvj420p"))
            )
            container.mux(picture.encode(None))
    return path
