"""Frame numbers against what FFmpeg shows, on files that were cut, joined, remuxed or packed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.corpus import build_corpus, build_file
from benchmarks.frame_numbers import READERS, judge, shown_by_ffmpeg, shown_by_pyav
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.media.choose import choose_reader
from prelabel.media.index import index_video
from prelabel.media.packets import open_video
from prelabel.media.pyav import PyAVReader
from tests.make_fields import write_fields
from tests.make_media import RECIPES, Recipe, join_vp9_frames, pack_b_frames, remux_streams, write_clip
from tests.media.conftest import read_until_error

pytestmark = [
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg binary on PATH: it builds the files"),
]
# Encoder, ways to make a file, containers.
FAMILIES = [
    ("h264-open", ["cut", "segment", "concat-cut"], ["mkv", "mp4", "avi"]),
    ("hevc-open", ["cut", "segment", "concat-cut"], ["mkv", "mp4", "ts"]),
    ("h264-interlaced", ["plain", "from-middle"], ["mkv", "ts"]),
    ("h264", ["late", "negative", "through-ts", "fragmented"], ["mp4", "mkv", "flv"]),
    ("mpeg1", ["plain", "cut", "twice", "concat"], ["mpg", "mkv"]),
    ("mpeg2", ["plain", "cut", "from-middle", "through-mpg"], ["mpg", "ts", "mxf"]),
    ("mpeg4", ["plain", "cut", "segment", "concat-cut"], ["avi", "mp4"]),
    ("vp9", ["plain", "cut", "concat"], ["webm"]),
    ("vp8", ["negative", "late", "cut"], ["mkv"]),
    ("h264-pyramid", ["edit-start", "edit-middle", "edit-twice", "edit-empty", "dash", "coarse-times"], ["mp4", "mov"]),
    ("hevc-pyramid", ["stored-order", "repeated-times", "lost-start", "edit-middle"], ["mp4", "mkv"]),
    ("h264-slices", ["lost-gop", "wraps", "muxrate", "loop"], ["ts"]),
    ("h264-vfr", ["plain", "audio-late-video"], ["mp4"]),
    ("mjpeg-vfr", ["plain"], ["avi", "mov"]),
    ("gif", ["plain"], ["gif", "mkv"]),
    ("av1", ["plain"], ["ivf", "obu"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "ways", "suffixes"), FAMILIES, ids=[encoder for encoder, *_ in FAMILIES])
def test_every_frame_has_the_number_by_which_ffmpeg_shows_it(
    encoder: str, ways: list[str], suffixes: list[str], tmp_path: Path
):
    num_equal = 0
    for path in build_corpus(tmp_path, [encoder], ways, suffixes):
        truths = [shown_by_pyav(path), shown_by_pyav(path, "AUTO"), shown_by_ffmpeg(path)]
        if truths[0]:
            assert judge(path, "pyav", truths) == "equal", path.name
            num_equal += 1
    assert num_equal >= len(ways)


def test_packed_b_frames_are_numbered_as_they_are_shown(tmp_path: Path):
    path = pack_b_frames(write_clip(tmp_path / "plain.mp4", RECIPES["mpeg4"]).path, tmp_path / "packed.avi")
    index = index_video(path)
    assert (index.info.num_frames, index.is_counted) == (30, True)
    assert judge(path, "pyav", [list(range(30))]) == "equal"


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize("is_pair", [lambda number: number == 25, lambda number: number % 7 > 3], ids=["one", "many"])
def test_two_packets_of_a_field_each_are_one_frame(suffix: str, is_pair: Callable[[int], bool], tmp_path: Path):
    path = write_fields(tmp_path / f"fields{suffix}", 40, is_pair, "field")
    assert (index_video(path).info.num_frames, index_video(path).is_counted) == (40, True)
    results = {reader: judge(path, reader, [list(range(40))]) for reader in READERS}
    assert (results["pyav"], results["parallel"]) == ("equal", "equal")
    assert not [result for result in results.values() if result.startswith("WRONG")]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_two_fields_in_one_packet_are_one_frame(suffix: str, tmp_path: Path):
    path = write_fields(tmp_path / f"fields{suffix}", 40, lambda number: number % 7 > 3, "frame")
    assert not index_video(path).is_counted
    assert {judge(path, reader, [list(range(40))]) for reader in ("pyav", "parallel", "decord")} == {"equal"}


@pytest.mark.parametrize("suffix", [".webm", ".mp4", ".ivf"])
def test_a_vp9_packet_may_show_several_frames(suffix: str, tmp_path: Path):
    plain = write_clip(tmp_path / "plain.webm", RECIPES["vp9 webm"]).path
    path = join_vp9_frames(plain, tmp_path / f"joined{suffix}", first=16)
    assert (index_video(path).info.num_frames, index_video(path).is_counted) == (30, True)
    assert judge(path, "pyav", [list(range(30))]) == "equal"


def test_a_stride_over_repeated_times_keeps_the_numbers(tmp_path: Path):
    recipe = Recipe(suffix=".mpg", codec="mpeg1video", options={"g": "12", "bf": "2", "b": "200000"}, num_frames=60)
    path = write_clip(tmp_path / "small.mpg", recipe).path
    assert judge(path, "pyav", [list(range(60))]) == "equal"


def test_keyframes_that_the_file_marks_and_the_decoder_does_not_find_are_no_place_to_begin(tmp_path: Path):
    path = build_file(tmp_path, "h261", "plain", "mkv")
    assert path is not None
    index = index_video(path)
    assert (index.has_true_keyframes, index.seek_points.tolist()) == (False, [0, 12, 24, 36, 48, 60, 64])
    assert [judge(path, reader, [list(range(75))]) for reader in ("pyav", "parallel")] == ["equal", "equal"]


@pytest.mark.parametrize("encoder", ["vp8", "flv1"])
def test_where_seeking_goes_too_far_reading_begins_at_the_start(encoder: str, tmp_path: Path):
    path = build_file(tmp_path, encoder, "negative", "mkv")
    assert path is not None
    assert [judge(path, reader, [list(range(75))]) for reader in ("pyav", "parallel")] == ["equal", "equal"]


def test_where_a_seek_changes_times_reading_begins_at_the_start(tmp_path: Path):
    path = build_file(tmp_path, "h264-pyramid", "dash", "mp4")
    assert path is not None
    assert [judge(path, reader, [list(range(75))]) for reader in ("pyav", "parallel")] == ["equal", "equal"]


@pytest.mark.parametrize(("way", "is_inside"), [("edit-start", True), ("edit-twice", True), ("edit-late", False)])
def test_an_edit_list_that_repeats_or_ends_early_is_told_from_one_that_begins_late(
    way: str, is_inside: bool, tmp_path: Path
):
    path = build_file(tmp_path, "h264-no-b", way, "mp4")
    assert path is not None
    assert index_video(path).is_edited_inside == is_inside
    assert judge(path, "pyav", [shown_by_pyav(path), shown_by_ffmpeg(path)]) == "equal"


def test_an_edit_list_that_enters_in_mid_gop_is_decoded_to_count_its_frames(tmp_path: Path):
    path = build_file(tmp_path, "hevc-pyramid", "edit-middle", "mp4")
    assert path is not None
    assert index_video(path).info.num_frames == len(shown_by_pyav(path))
    assert judge(path, "pyav", [shown_by_pyav(path)]) == "equal"


def test_times_in_the_order_of_decoding_do_not_number_frames(tmp_path: Path):
    path = build_file(tmp_path, "hevc-pyramid", "stored-order", "mp4")
    assert path is not None
    assert index_video(path).is_counted
    assert judge(path, "pyav", [shown_by_pyav(path), shown_by_ffmpeg(path)]) == "equal"


@pytest.mark.parametrize(("encoder", "suffix"), [("h264-pyramid", "mp4"), ("hevc-headers", "mkv")])
def test_where_the_clock_jumps_between_reordered_frames_the_decoders_order_counts(
    encoder: str, suffix: str, tmp_path: Path
):
    path = build_file(tmp_path, encoder, "gap", suffix)
    assert path is not None
    assert index_video(path).is_counted
    results = {reader: judge(path, reader, [list(range(75))]) for reader in READERS}
    assert (results["pyav"], results["parallel"]) == ("equal", "equal")
    assert not [result for result in results.values() if result.startswith("WRONG")]


def test_hevc_that_lost_packets_is_read_in_the_order_of_the_decoder(tmp_path: Path):
    path = build_file(tmp_path, "hevc-open", "lost-gop", "ts")
    assert path is not None
    assert judge(path, "pyav", [shown_by_pyav(path), shown_by_ffmpeg(path)]) == "equal"


def test_a_recording_that_lost_packets_is_read_in_the_order_of_the_decoder(tmp_path: Path):
    path = build_file(tmp_path, "h264-slices", "lost-gop", "mp4")
    assert path is not None
    assert index_video(path).is_counted
    assert judge(path, "pyav", [shown_by_pyav(path), shown_by_ffmpeg(path)]) == "equal"


@pytest.mark.parametrize(
    ("encoder", "suffix", "num_frames"),
    [("mjpeg", "mpjpeg", 75), pytest.param("dv", "gxf", 64, marks=pytest.mark.slow)],
)
def test_an_error_at_the_end_of_a_file_is_its_end(encoder: str, suffix: str, num_frames: int, tmp_path: Path):
    path = build_file(tmp_path, encoder, "plain", suffix)
    assert path is not None
    assert index_video(path).info.num_frames == num_frames
    assert judge(path, "pyav", [shown_by_ffmpeg(path)]) == "equal"


def test_a_damaged_frame_costs_no_later_one_its_number(tmp_path: Path):
    path = build_file(tmp_path, "xvid", "lost-start", "wtv")
    assert path is not None
    shown = shown_by_pyav(path)
    index = index_video(path)
    assert (index.is_counted, index.num_present) == (True, len(shown))
    start = int(index.keyframes[0])
    frames, _ = read_until_error(PyAVReader(Media("video", (path,))))
    assert frames[-1] == (len(shown) - 1, shown[-1])
    assert [frame for frame in frames if frame[0] >= start] == list(enumerate(shown))[start:]


def test_the_larger_of_two_video_streams_is_read_and_the_other_is_named(tmp_path: Path):
    small = write_clip(tmp_path / "small.mp4", Recipe()).path
    large = write_clip(tmp_path / "large.mp4", Recipe(width=128, height=96)).path
    path = remux_streams([small, large], tmp_path / "both.ts")
    with open_video(path) as (_, stream):
        assert (stream.codec_context.width, stream.index) == (128, 1)
    assert index_video(path).other_streams == (0,)
    choice, _ = choose_reader(Media("video", (path,)), ReaderSection(device="cpu"))
    assert choice.reason == "the config asks for decoding on the CPU; it reads stream 1, not video stream 0"
    choice, _ = choose_reader(Media("video", (path,)), ReaderSection(use="pyav"))
    assert choice.reason == "the config names it; it reads stream 1, not video stream 0"
