"""Every kind of file through the whole run, sound ones and others side by side: never short without a word."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from prelabel.errors import ReadError
from prelabel.files.folder_source import FolderSource
from prelabel.media.index import index_video
from prelabel.store.raw_detections import read_raw
from prelabel.store.report import TaskReport
from tests.make_media import (
    CLIPS,
    NUM_FRAMES,
    RECIPES,
    Recipe,
    build_clip,
    cut_off,
    remux,
    spoil,
    write_audio,
    write_clip,
)
from tests.run.test_run import DETECTOR, assembly_of
from tests.running import run_whole

MORE = {
    "alpha.mov": Recipe(suffix=".mov", codec="png", pix_fmt="rgba", options={}),
    "alpha.webm": Recipe(suffix=".webm", codec="libvpx-vp9", pix_fmt="yuva420p", options={"b": "1M", "cpu-used": "8"}),
    "grey.mkv": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="gray", options={}),
    "grey of 16 bits.mkv": Recipe(suffix=".mkv", codec="ffv1", pix_fmt="gray16le", options={}),
}


def _write_loop(path: Path) -> None:
    path.symlink_to(path.with_name("around.mp4"))
    path.with_name("around.mp4").symlink_to(path)


def _write_no_frames(path: Path) -> None:
    with av.open(path, "w", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()


def _write_without_index(path: Path) -> None:
    whole = write_clip(path.parent.with_name("whole.mp4"), RECIPES["h264"]).path
    path.write_bytes(whole.read_bytes()[:2000])


FINDS_NOTHING = """
from prelabel import Detections

class Nothing:
    class_names = ("thing",)

    def __init__(self, log):
        self.found = Detections.empty()

    def detect(self, batch):
        return [self.found] * len(batch)
"""


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.mp4": (lambda path: path.write_text("called a video\n"), "the file is text, expected a video"),
    "empty.mp4": (Path.touch, "the file is empty: fetch it again"),
    "audio.mp4": (write_audio, "no video stream: the file holds audio"),
    "cover.mp4": (lambda path: write_audio(path, cover=True), "its only image is cover art"),
    "loop.mp4": (_write_loop, "cannot be opened: Too many levels of symbolic links"),
    "around.mp4": (Path, "cannot be opened: Too many levels of symbolic links"),
    "no frames.mp4": (_write_no_frames, "no frames: "),
    "noise.mp4": (lambda path: path.write_bytes(bytes(n * n % 251 for n in range(5000))), "not a video that FFmpeg"),
    "no index.mp4": (_write_without_index, "no index (moov) in this MP4"),
}
DAMAGED: dict[str, Callable[[Path, Path], object]] = {
    "cut.mp4": cut_off,
    "cut.mkv": lambda whole, path: cut_off(remux(whole, whole.with_suffix(".mkv")), path),
    "spoilt.mp4": lambda whole, path: spoil(whole, path, packets=[14, 15]),
}


@dataclass(frozen=True)
class Videos:
    """A folder of videos, and which numbers the sound ones show."""

    folder: Path
    numbers: dict[str, list[int]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Videos:
    made = tmp_path_factory.mktemp("videos")
    folder = made / "clips"
    folder.mkdir()
    numbers = {}
    for name in CLIPS:
        clip = build_clip(made / name, name)
        path = clip.path.rename(folder / f"{name}{clip.path.suffix}")
        numbers[path.name] = list(clip.numbers)
    for name, recipe in MORE.items():
        numbers[name] = list(write_clip(folder / name, recipe).numbers)
    for name, (write, _) in BROKEN.items():
        write(folder / name)
    for name, damage in DAMAGED.items():
        damage(write_clip(made / "whole.mp4", RECIPES["h264 no B-frames"]).path, made / name)
        (made / name).rename(folder / name)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return Videos(folder, numbers)


def _outcomes(folder: Path, videos: Path, frames: str) -> Iterator[tuple[TaskReport, list[int], list[int]]]:
    """Yields each task with the frames that were looked at, and the numbers that the detector read on them."""
    (folder / "mine.py").write_text(DETECTOR)
    assembly = assembly_of(folder, frames=frames, source={"path": str(videos)})
    for task in run_whole(assembly).tasks:
        path = assembly.store.detections_path(task)
        if task.status == "failed":
            assert not path.exists()
            yield task, [], []
        else:
            found = read_raw(path).detections
            yield task, found.frame_index.tolist(), np.rint(found.xyxy[:, 0]).astype(int).tolist()


@pytest.mark.parametrize("frames", ["strict", "warn"])
def test_every_kind_of_file_has_the_outcome_that_it_should(frames: str, videos: Videos, tmp_path: Path) -> None:
    titles = []
    for task, indices, numbers in _outcomes(tmp_path, videos.folder, frames):
        titles.append(task.title)
        if task.title in videos.numbers:
            assert (task.status, task.reason, task.partial) == ("done", "", None), task.title
            assert (indices, numbers) == (list(range(task.num_frames)), videos.numbers[task.title]), task.title
        elif task.title in BROKEN:
            assert (task.status, BROKEN[task.title][1] in task.reason) == ("failed", True), task
        elif frames == "strict":
            assert (task.status, "of 30 frames could not be decoded" in task.reason) == ("failed", True), task
        else:
            assert task.status == "done"
            assert f"{NUM_FRAMES - len(indices)} of 30 frames could not be decoded" in (task.partial or "")
            assert 8 <= len(indices) < NUM_FRAMES
            assert all(index == number for index, number in zip(indices, numbers, strict=True) if index < 14)
    assert sorted(titles) == sorted([*videos.numbers, *BROKEN, *DAMAGED])


@pytest.mark.slow
def test_two_hundred_thousand_frames_are_all_looked_at(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with av.open(tmp_path / "clips" / "long.mkv", "w") as container:
        stream = container.add_stream("rawvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = 8, 8, "gray"
        container.start_encoding()
        for number in range(200_000):
            packet = av.Packet(bytes([number % 256]) * 64)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 30), True
            packet.pts = packet.dts = number
            container.mux(packet)
    (tmp_path / "mine.py").write_text(FINDS_NOTHING)
    (task,) = run_whole(assembly_of(tmp_path, detector={"use": "mine.py:Nothing", "batch_size": 500})).tasks
    assert (task.status, task.num_frames, task.num_inferred) == ("done", 200_000, 200_000)


@pytest.fixture
def as_anybody(tmp_path: Path) -> Iterator[None]:
    """Takes root's rights away: root may read all."""
    secret = tmp_path / "clips" / "secret"
    secret.mkdir(parents=True)
    user = os.geteuid()
    if user == 0:
        for folder in (*tmp_path.parents[:3], tmp_path):
            folder.chmod(folder.stat().st_mode | 0o055)
        for folder in (secret.parent, secret):
            os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_file_that_may_not_be_read_says_so(tmp_path: Path, as_anybody: None) -> None:
    path = write_clip(tmp_path / "clips" / "mine.mp4", RECIPES["h264 one frame"]).path
    path.chmod(0)
    with pytest.raises(ReadError, match=r"^mine\.mp4: may not be read by this user: /.*: change its permissions"):
        index_video(path)


def test_folder_that_may_not_be_looked_into_is_told(tmp_path: Path, as_anybody: None) -> None:
    write_clip(tmp_path / "clips" / "clip.mp4", RECIPES["h264 one frame"])
    (tmp_path / "clips" / "secret").chmod(0)
    source = FolderSource(tmp_path / "clips", tmp_path / "out")
    assert source.count() == 1
    assert source.warnings == [f"{tmp_path}/clips/secret: cannot be listed: Permission denied: its files are left out"]
