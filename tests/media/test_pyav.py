"""What PyAVReader does beyond the contract: damage, seeking, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from prelabel.data.frames import Media
from prelabel.errors import MachineError, ReadError
from prelabel.media import nvdec
from prelabel.media.index import index_video
from prelabel.media.pyav import PyAVReader
from tests.make_media import NUM_FRAMES, RECIPES, Recipe, cut_off, read_number, remux, spoil, write_clip
from tests.media.conftest import BuildClip, FFmpegFrames, read_until_error


def _reader(path: Path) -> PyAVReader:
    return PyAVReader(Media("video", (path,)))


def set_colours(source: Path, target: Path, tags: str) -> Path:
    """Copies an H.264 video and writes other colour tags into it."""
    with av.open(source) as container:
        tagger = BitStreamFilterContext(f"h264_metadata={tags}", container.streams.video[0])
        packets = [tagged for packet in container.demux(video=0) if packet.size for tagged in tagger.filter(packet)]
        with av.open(target, "w") as output:
            stream = output.add_stream_from_template(container.streams.video[0])
            for packet in packets:
                packet.stream = stream
                output.mux(packet)
    return target


@pytest.mark.parametrize(
    "tags",
    [
        "colour_primaries=0:transfer_characteristics=0",
        "colour_primaries=3:transfer_characteristics=3:matrix_coefficients=3",
    ],
)
def test_reserved_colour_tags_change_no_pixel(tags: str, clip: BuildClip, tmp_path: Path):
    plain = clip("h264 TS").path
    tagged = set_colours(plain, tmp_path / "tagged.ts", tags)
    frames = []
    for path in (plain, tagged):
        with _reader(path) as reader:
            frames.append(np.concatenate([batch.array.copy() for batch in reader.batches(np.arange(NUM_FRAMES), 8)]))
    assert np.array_equal(*frames)


def test_colours_that_ffmpeg_does_not_convert_are_refused_by_name(clip: BuildClip, tmp_path: Path):
    path = set_colours(clip("h264 TS").path, tmp_path / "tagged.ts", "matrix_coefficients=8")  # YCgCo
    assert nvdec.refuse(index_video(path)) == "its colours are ycgco"
    reason = r"cannot convert frame 0 to RGB: .*yuv420p with the colour matrix 8 of H\.273"
    with _reader(path) as reader, pytest.raises(ReadError, match=reason):
        list(reader.batches(np.arange(NUM_FRAMES), 8))


def test_damaged_frames_are_left_out_and_named_after_all_good_ones(clip: BuildClip, tmp_path: Path):
    no_b_frames = clip("h264 no B-frames").path
    frames, error = read_until_error(_reader(spoil(no_b_frames, tmp_path / "clip.mp4", packets=[14, 15])))
    good = [*range(14), *range(16, NUM_FRAMES)]
    assert [index for index, _ in frames] == good
    assert error == "clip.mp4: 2 of 30 frames could not be decoded: 14-15"
    # The decoder hides what is lost from the frames that refer to it; from the next keyframe on all is well.
    assert all(index == number for index, number in frames if index < 14 or index >= 24)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_damage_among_b_frames_moves_no_number(suffix: str, tmp_path: Path):
    whole = write_clip(tmp_path / f"whole{suffix}", Recipe(suffix=suffix)).path
    frames, error = read_until_error(_reader(spoil(whole, tmp_path / f"clip{suffix}", [13, 17])))
    assert len(frames) < NUM_FRAMES
    assert f"{NUM_FRAMES - len(frames)} of 30 frames could not be decoded: " in error
    assert all(index == number for index, number in frames if index < 10 or index >= 24)


def test_what_a_broadcast_lost_is_no_frame_to_ffmpeg_either(
    clip: BuildClip, tmp_path: Path, ffmpeg_frames: FFmpegFrames
):
    path = spoil(clip("h264 TS").path, tmp_path / "clip.ts", [13])
    truth = ffmpeg_frames(path, 96, 64)
    with _reader(path) as reader:
        frames = np.concatenate([batch.data.numpy() for batch in reader.batches(np.arange(reader.info.num_frames), 9)])
    # How what refers to the lost frames is made up differs between FFmpeg's versions; how many there are does not.
    assert len(frames) == len(truth) < NUM_FRAMES
    assert np.array_equal(frames[:12], truth[:12])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_file_that_is_cut_off_gives_what_it_has_and_says_so(suffix: str, tmp_path: Path):
    whole = write_clip(tmp_path / f"whole{suffix}", Recipe(suffix=suffix, muxer={"movflags": "faststart"})).path
    frames, error = read_until_error(_reader(cut_off(whole, tmp_path / f"clip{suffix}")))
    assert 8 <= len(frames) < 22
    assert frames == [(index, index) for index in range(len(frames))]
    missing = f"{NUM_FRAMES - len(frames)} of 30 frames could not be decoded: {len(frames)}-29; the file is cut off"
    assert error == f"clip{suffix}: {missing}"


def test_without_times_nothing_after_damage_is_trusted(clip: BuildClip, tmp_path: Path):
    frames, error = read_until_error(_reader(spoil(clip("h264 AVI").path, tmp_path / "clip.avi", packets=[14])))
    assert frames == [(index, index) for index in range(len(frames))]
    assert f"{NUM_FRAMES - len(frames)} of 30 frames could not be decoded" in error


def test_damage_outside_the_asked_frames_is_no_error(clip: BuildClip, tmp_path: Path):
    path = spoil(clip("h264 no B-frames").path, tmp_path / "clip.mp4", packets=[14])
    with PyAVReader(Media("video", (path,))) as reader:
        numbers = [index for batch in reader.batches(np.arange(10), 4) for index in batch.frame_indices.tolist()]
    assert numbers == list(range(10))


def test_a_range_far_into_the_file_equals_the_same_frames_read_from_the_start(clip: BuildClip, tmp_path: Path):
    media = Media("video", (remux(clip("h264").path, tmp_path / "long.mp4", times=5),))
    with PyAVReader(media) as reader:
        assert reader.info.num_frames == 5 * NUM_FRAMES
        whole = np.concatenate([batch.data.numpy() for batch in reader.batches(np.arange(150), 50)])
        late = np.concatenate([batch.data.numpy() for batch in reader.batches(np.arange(131, 140, 2), 50)])
    assert np.array_equal(late, whole[131:140:2])


def test_two_readings_may_run_at_once(clip: BuildClip):
    with PyAVReader(Media("video", (clip("h264").path,))) as reader:
        numbers = [
            (read_number(one.data[0].numpy()), read_number(other.data[0].numpy()))
            for one, other in zip(reader.batches(np.arange(30), 1), reader.batches(np.arange(30)[::2], 1), strict=False)
        ]
    assert numbers == [(index, 2 * index) for index in range(15)]


def test_a_batch_that_is_still_held_is_not_written_over(clip: BuildClip):
    with PyAVReader(Media("video", (clip("h264").path,))) as reader:
        batches = list(reader.batches(np.arange(30), 4))
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.data] == list(range(30))


def test_memory_of_a_batch_is_used_again_once_nobody_holds_it(clip: BuildClip):
    with PyAVReader(Media("video", (clip("h264").path,))) as reader:
        places = [batch.data.data_ptr() for batch in reader.batches(np.arange(30), 3)]
    assert len(set(places)) <= 2


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_any_number_of_threads_gives_the_same_frames(threads: int, clip: BuildClip):
    with PyAVReader(Media("video", (clip("h264").path,)), threads=threads) as reader:
        frames = np.concatenate([batch.data.numpy() for batch in reader.batches(np.arange(30), 30)])
    assert [read_number(frame) for frame in frames] == list(range(30))


def test_another_device_is_refused(clip: BuildClip):
    with pytest.raises(MachineError, match="reader pyav on device 'cuda': it decodes on the CPU"):
        PyAVReader(Media("video", (clip("h264").path,)), device="cuda")


@pytest.mark.parametrize(
    ("wanted", "batch_size", "complaint"),
    [([3, 2], 4, "rising"), ([30], 4, "0 .. 29"), ([-1], 4, "0 .. 29"), ([1], 0, "batch_size: got 0")],
)
def test_a_wrong_request_is_refused(wanted: list[int], batch_size: int, complaint: str, clip: BuildClip):
    with (
        PyAVReader(Media("video", (clip("h264").path,))) as reader,
        pytest.raises(ValueError, match=complaint),
    ):
        next(reader.batches(np.array(wanted), batch_size))


PEAK_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from prelabel.data.frames import Media
from prelabel.media.decord import DecordReader
from prelabel.media.pyav import PyAVReader
for path in sys.argv[1:]:
    for make_reader in (PyAVReader, DecordReader):
        with make_reader(Media("video", (Path(path),)), device="cpu") as reader:
            num_frames = sum(len(batch) for batch in reader.batches(np.arange(reader.info.num_frames), 8))
    print(num_frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path: Path):
    source = write_clip(tmp_path / "clip.mp4", Recipe(width=480, height=320)).path
    short, long = (remux(source, tmp_path / f"{times}.mp4", times=times) for times in (2, 14))
    command = [sys.executable, "-c", PEAK_MEMORY, short, long]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    (num_short, peak_short), (num_long, peak_long) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (num_short, num_long) == (60, 420)
    frames_mb = (num_long - num_short) * 480 * 320 * 3 / 2**20
    assert peak_long - peak_short < frames_mb / 6, f"{peak_short} MB for 60 frames, {peak_long} MB for 420"


@pytest.mark.slow
@pytest.mark.needs_test_data
def test_real_footage_is_that_of_ffmpeg(test_data: Path, ffmpeg_frames: FFmpegFrames):
    path = test_data / "clips" / "bottles_360p.mp4"
    wanted = np.arange(0, 300, 30)
    truth = ffmpeg_frames(path, 640, 360, max_frames=271)[wanted]
    with PyAVReader(Media("video", (path,))) as reader:
        assert reader.info.num_frames == 1189
        frames = np.concatenate([batch.data.numpy() for batch in reader.batches(wanted, 4)])
    assert np.array_equal(frames, truth)


def test_index_and_decoder_agree_on_interlaced_frames(clip: BuildClip):
    index = index_video(clip("h264 interlaced").path)
    assert index.is_interlaced
    assert index.info.num_frames == RECIPES["h264 interlaced"].num_frames
