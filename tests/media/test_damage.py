"""Damage that tests/fuzz.py found a way through."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from prelabel.data.frames import Media
from prelabel.errors import ReadError
from prelabel.media.decord import DecordReader
from prelabel.media.index import index_video
from prelabel.media.pyav import PyAVReader
from tests.make_media import NUM_FRAMES, RECIPES, Recipe, draw_number, write_clip
from tests.media.conftest import BuildClip, read_until_error


def edited(source: Path, target: Path, edit: Callable[[bytearray], None]) -> Path:
    data = bytearray(source.read_bytes())
    edit(data)
    target.write_bytes(data)
    return target


def test_codec_that_ffmpeg_does_not_know(clip: BuildClip, tmp_path: Path):
    def rename_codec(data: bytearray) -> None:
        at = data.index(b"avc1", data.index(b"stsd"))
        data[at : at + 4] = b"zzzz"

    path = edited(clip("h264").path, tmp_path / "clip.mp4", rename_codec)
    with pytest.raises(ReadError, match=r"^clip\.mp4: its video is of no codec that FFmpeg knows, or its head is"):
        index_video(path)


def test_packet_larger_than_memory(clip: BuildClip, tmp_path: Path):
    def enlarge(data: bytearray) -> None:
        at = data.index(b"stsz") + 16 + 4 * 14
        data[at : at + 4] = struct.pack(">I", 0x7FFFFFF0)

    path = edited(clip("h264").path, tmp_path / "clip.mp4", enlarge)
    frames, error = read_until_error(PyAVReader(Media("video", (path,))))
    assert len(frames) < NUM_FRAMES
    assert error.startswith("clip.mp4: ")


def test_title_in_another_encoding_beside_a_damaged_table(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        container.metadata["title"] = "caf\u00e9 au lait"
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_number(number), "rgb24")))
        container.mux(stream.encode(None))

    def spoil_table_and_title(data: bytearray) -> None:
        at = data.index(b"stsz") + 16 + 4 * 14
        data[at : at + 4] = struct.pack(">I", 0x7FFFFFF0)
        at = data.index("\u00e9".encode())
        data[at : at + 2] = b"\xe9\xe9"

    index = index_video(edited(path, tmp_path / "spoilt.mp4", spoil_table_and_title))
    assert index.num_present < index.info.num_frames == NUM_FRAMES


def test_head_that_promises_more_frames_than_memory_holds(clip: BuildClip, tmp_path: Path):
    def promise(data: bytearray) -> None:
        data[4:8] = struct.pack("<I", 0x7FFFFFFF)
        at = data.index(b"strh") + 8 + 32
        data[at : at + 4] = struct.pack("<I", 0x7FFFFFFF)

    index = index_video(edited(clip("mpeg4 AVI").path, tmp_path / "clip.avi", promise))
    assert index.num_present <= NUM_FRAMES < index.info.num_frames <= 10_000_100


def test_sound_that_begins_in_mid_file_does_not_end_the_video(tmp_path: Path):
    silent = write_clip(tmp_path / "silent.ts", Recipe(suffix=".ts")).path
    _write_with_sound(tmp_path / "sound.ts")
    path = tmp_path / "clip.ts"
    path.write_bytes(silent.read_bytes() * 30 + (tmp_path / "sound.ts").read_bytes())
    frames, error = read_until_error(PyAVReader(Media("video", (path,))))
    assert (len(frames), error) == (31 * NUM_FRAMES, "")


def test_packets_that_cannot_be_copied_for_decord(tmp_path: Path):
    path = write_clip(tmp_path / "clip.mpg", RECIPES["mpeg2 PS"]).path
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(1)
    for at in random.integers(0, len(data), 3000):
        data[at] ^= 1 << int(random.integers(0, 8))
    path.write_bytes(data)
    _, error = read_until_error(DecordReader(Media("video", (path,)), device="cpu"))
    assert error.startswith("clip.mpg: ")


def _write_with_sound(path: Path) -> None:
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=30, options=RECIPES["h264"].options)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts = 48000, 0
        container.mux(sound.encode(samples))
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(draw_number(number), "rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda data: data[data.index(b"moof") - 4 :], "a segment of an MP4 without its head: join them first"),
        (lambda data: data.replace(b"tfhd", b"free"), r"cannot read the index \(moov\) of this MP4: it is damaged or"),
        (lambda data: data[: data.index(b"moov") - 4], r"no index \(moov\) in this MP4: it was cut off"),
        (  # the length of a box has 64 bits, and makes no sense
            lambda data: data[: data.index(b"moov") - 4] + b"\0\0\0\1mdat" + 8 * b"\xff",
            r"no index \(moov\) in this MP4: it was cut off",
        ),
    ],
)
def test_an_mp4_that_does_not_open_says_what_is_missing(
    edit: Callable[[bytes], bytes], reason: str, clip: BuildClip, tmp_path: Path
):
    path = tmp_path / "clip.mp4"
    path.write_bytes(edit(clip("h264 fragmented").path.read_bytes()))
    with pytest.raises(ReadError, match=reason):
        index_video(path)
