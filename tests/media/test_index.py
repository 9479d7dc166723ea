"""The index against what each file is known to hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from prelabel.errors import ReadError
from prelabel.media.index import index_video
from tests.make_media import CLIPS, FPS, RECIPES, Recipe, add_exif, cut_off, remux, write_audio, write_clip
from tests.media.conftest import BuildClip


@pytest.mark.parametrize("name", CLIPS)
def test_every_shown_frame_is_counted(name: str, clip: BuildClip):
    built = clip(name)
    index = index_video(built.path)
    assert index.info.num_frames == index.num_present == len(index.pts_seconds) == len(built.numbers)
    assert index.pts_seconds[0] == 0
    assert (np.diff(index.pts_seconds) > 0).all()


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("h264", {"codec": "h264", "pixel_format": "yuv420p", "bits": 8, "stream_index": 0}),
        ("h264", {"has_timestamps": True, "has_duration": True, "is_interlaced": False}),
        ("hevc open GOP", {"codec": "hevc"}),
        ("h264 10-bit", {"bits": 10, "pixel_format": "yuv420p10le"}),
        ("h264 interlaced", {"is_interlaced": True}),
        ("h264 BT.709", {"color_space": "bt709", "color_range": "tv"}),
        ("h264 full range", {"color_range": "pc"}),
        ("h264 edit list", {"has_unshown_packets": True}),
        ("vp8 hidden frame", {"has_unshown_packets": True}),
        ("h264 negative start", {"start_seconds": 0, "has_unshown_packets": False}),
        ("h264 raw", {"has_timestamps": False, "has_duration": False}),
        ("h264 AVI", {"has_timestamps": False}),
        ("mpeg4 AVI", {"has_timestamps": True, "container": "avi"}),
        ("h264 mkv no duration", {"has_duration": False, "container": "matroska,webm"}),
        ("av1", {"codec": "av1"}),
    ],
)
def test_facts_of_the_file(name: str, facts: dict[str, object], clip: BuildClip):
    index = index_video(clip(name).path)
    assert {fact: getattr(index, fact) for fact in facts} == pytest.approx(facts)


@pytest.mark.parametrize(
    ("value", "rotation", "mirrored"), [(1, 0, False), (2, 0, True), (3, 180, False), (6, 90, False)]
)
def test_exif_of_a_cameras_jpeg_frames_says_how_they_are_turned(
    value: int, rotation: int, mirrored: bool, tmp_path: Path
):
    plain = write_clip(tmp_path / "plain.avi", RECIPES["mjpeg AVI"]).path
    index = index_video(add_exif(plain, tmp_path / "camera.avi", value))
    assert (index.info.rotation_degrees, index.orientation.is_mirrored) == (rotation, mirrored)
    assert index.info.num_frames == 30


@pytest.mark.parametrize(
    ("name", "width", "height", "rotation", "mirrored"),
    [
        ("h264", 96, 64, 0, False),
        ("h264 rotated 90", 96, 64, 90, False),
        ("h264 rotated 180", 96, 64, 180, False),
        ("h264 rotated 270", 96, 64, 270, False),
        ("h264 mirrored", 96, 64, 0, True),
        ("ffv1 odd size", 97, 65, 0, False),
    ],
)
def test_size_is_that_of_the_displayed_frame(
    name: str, width: int, height: int, rotation: int, mirrored: bool, clip: BuildClip
):
    index = index_video(clip(name).path)
    info = index.info
    assert (info.width, info.height, info.rotation_degrees) == (width, height, rotation)
    assert index.orientation.is_mirrored == mirrored
    assert index.orientation.displayed_size(*index.coded_size) == (width, height)


@pytest.mark.parametrize(
    ("name", "keyframes", "closed_gop_starts"),
    [
        ("h264", [0, 12, 24], [0, 12, 24]),
        ("hevc", [0, 12, 24], [0, 12, 24]),
        ("hevc open GOP", [0, 12, 24], [0]),
        ("h264 edit list", [7, 19], [7, 19]),
        ("h264 joined TS", [0, 12, 24, 30, 42, 54], [0, 12, 24, 30, 42, 54]),
        ("h264 raw", [0, 12, 24], [0]),
    ],
)
def test_keyframes_by_their_frame_numbers(
    name: str, keyframes: list[int], closed_gop_starts: list[int], clip: BuildClip
):
    index = index_video(clip(name).path)
    assert index.keyframes.tolist() == keyframes
    assert index.closed_gop_starts.tolist() == closed_gop_starts


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pictures_that_are_refreshed_little_by_little_have_no_keyframe_but_the_first(suffix: str, tmp_path: Path):
    recipe = replace(RECIPES["h264 intra refresh"], suffix=suffix)
    index = index_video(write_clip(tmp_path / f"clip{suffix}", recipe).path)
    assert (index.keyframes.tolist(), index.closed_gop_starts.tolist()) == ([0], [0])


def test_times_follow_a_variable_rate(clip: BuildClip):
    index = index_video(clip("h264 variable rate").path)
    assert index.pts_seconds == pytest.approx(np.array(RECIPES["h264 variable rate"].pts) / FPS)


def test_time_goes_on_where_two_broadcasts_are_joined(clip: BuildClip):
    index = index_video(clip("h264 joined TS").path)
    assert index.pts_seconds == pytest.approx(np.arange(60) / FPS)
    assert index.info.duration_seconds == pytest.approx(2)


def test_late_start_shows_in_the_start_only(clip: BuildClip):
    index = index_video(clip("h264 late start").path)
    assert index.start_seconds == pytest.approx(100 / FPS, abs=0.001)
    assert index.pts_seconds == pytest.approx(np.arange(30) / FPS)


def test_rate_and_duration(clip: BuildClip):
    info = index_video(clip("h264").path).info
    assert (info.average_fps, info.duration_seconds) == pytest.approx((30, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_frames_that_were_cut_off_are_counted_and_not_present(suffix: str, tmp_path: Path):
    recipe = RECIPES["mpeg4 AVI"] if suffix == ".avi" else Recipe(suffix=suffix)
    index = index_video(cut_off(write_clip(tmp_path / f"whole{suffix}", recipe).path, tmp_path / f"cut{suffix}"))
    assert index.info.num_frames == len(index.pts_seconds) == 30
    assert 8 <= index.num_present <= 22
    assert index.keyframes.max() < index.num_present
    assert index.pts_seconds == pytest.approx(np.arange(30) / FPS, abs=0.002)


def _nothing(path: Path) -> None:
    del path


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("once upon a time\n" * 99)


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(9999))


def _without_moov(path: Path) -> None:
    data = write_clip(path, Recipe()).path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])


def _no_frames(path: Path) -> None:
    with av.open(path, "w", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()


@pytest.mark.parametrize(
    ("write", "name", "complaint"),
    [
        (_nothing, "gone.mp4", "no such file"),
        (_empty, "clip.mp4", "the file is empty"),
        (_text, "clip.mp4", "the file is text"),
        (_text, "notes.txt", "the file is text"),
        (_noise, "clip.mp4", "not a video that FFmpeg can open"),
        (_without_moov, "clip.mp4", r"no index \(moov\)"),
        (_no_frames, "clip.mp4", "no frames"),
        (write_audio, "song.mp4", "no video stream: the file holds audio"),
        (lambda path: write_audio(path, cover=True), "song.mp4", r"no video stream \(its only image is cover art\)"),
    ],
)
def test_what_is_no_video_is_named_for_what_it_is(write, name: str, complaint: str, tmp_path: Path):
    write(tmp_path / name)
    with pytest.raises(ReadError, match=f"^{name}: {complaint}"):
        index_video(tmp_path / name)


def test_a_file_that_changes_is_indexed_anew(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write_clip(path, Recipe(num_frames=5))
    assert index_video(path).info.num_frames == 5
    write_clip(path, Recipe(num_frames=9))
    assert index_video(path).info.num_frames == 9


@pytest.mark.slow
def test_two_hundred_thousand_frames_take_seconds(tmp_path: Path):
    recipe = Recipe(suffix=".mkv", codec="mpeg4", options={"g": "1"}, width=16, height=16, num_frames=30)
    source = write_clip(tmp_path / "short.mkv", recipe).path
    path = _repeat(source, tmp_path / "long.mkv", 200_000)
    assert index_video(path).info.num_frames == 200_000


def _repeat(source: Path, target: Path, num_frames: int) -> Path:
    """Writes the first packet of a video over and over."""
    with av.open(source) as container, av.open(target, "w") as output:
        video = container.streams.video[0]
        data = bytes(next(packet for packet in container.demux(video)))
        stream = output.add_stream_from_template(video)
        for number in range(num_frames):
            packet = av.Packet(data)
            packet.pts = packet.dts = number * 33
            packet.time_base, packet.stream, packet.is_keyframe = video.time_base, stream, True
            output.mux(packet)
    return target


def test_remuxing_changes_no_frame_number(clip: BuildClip, tmp_path: Path):
    source = index_video(clip("h264").path)
    copy = index_video(remux(source.path, tmp_path / "copy.mkv"))
    assert copy.keyframes.tolist() == source.keyframes.tolist()
    assert copy.pts_seconds == pytest.approx(source.pts_seconds, abs=0.002)
