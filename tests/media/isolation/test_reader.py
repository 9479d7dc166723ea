"""Reading in a process of its own: the same frames, and every way to go wrong an error of the one file."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.errors import FrameCountError, MachineError, PluginError, ReadError
from prelabel.media.isolation import process as processes
from prelabel.media.isolation.memory import KEPT_BYTES, SharedFramePool
from prelabel.media.isolation.process import end_idle_processes
from prelabel.media.isolation.reader import IsolatedReader
from prelabel.media.open import OpenFrames, open_frames, start_reading
from prelabel.testing import check_reader
from tests.make_media import NUM_FRAMES, RECIPES, draw_number, read_number, write_clip
from tests.media.isolation.clock import let_time_fly_for
from tests.media.isolation.misbehaving import INFO

ONE = np.array([0])
NOTHING = Media("video", (Path("clip.mp4"),))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Media:
    return Media("video", (write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", RECIPES["h264"]).path,))


def child_processes() -> set[str]:
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    end_idle_processes()
    handles, children = frame_memory_and_sockets(), child_processes()
    yield
    end_idle_processes()
    gc.collect()
    assert not frame_memory_and_sockets() - handles
    assert not child_processes() - children


def frame_memory_and_sockets() -> set[str]:
    handles = [str(handle.readlink()) for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
    return {goal for goal in handles if goal.startswith(("/memfd:prelabel", "socket:"))}


def isolated(media: Media, **options: object) -> IsolatedReader:
    return IsolatedReader(media, ReaderSection.model_validate({"use": "pyav", **options}), Path(), None)


def misbehaving(how: str, **options: object) -> IsolatedReader:
    use = "tests.media.isolation.misbehaving:Misbehaving"
    return isolated(NOTHING, **{"use": use, "how": how, "stall_seconds": 50, **options})


def read(reader: IsolatedReader) -> list[int]:
    with reader:
        wanted = np.arange(reader.info.num_frames)
        opened = OpenFrames("clip.mp4", reader.info, reader, reader.choice, wanted, "strict")
        return [n for batch in opened.batches(wanted, 2) for n in batch.frame_indices.tolist()]


@pytest.mark.parametrize("use", ["pyav", "decord"])
def test_reader_in_a_process_keeps_the_contract(use: str, clip: Media) -> None:
    check_reader(lambda media: isolated(media, use=use), clip)


def test_frames_are_those_of_the_reader_itself(clip: Media) -> None:
    with isolated(clip) as reader:
        frames = [frame for batch in reader.batches(np.arange(NUM_FRAMES), 4) for frame in batch.data.numpy()]
        assert [read_number(frame) for frame in frames] == list(range(NUM_FRAMES))
        assert (reader.choice.use, reader.keyframes) == ("pyav", None)


def test_batch_that_is_still_held_is_not_written_over(clip: Media) -> None:
    with isolated(clip) as reader:
        batches = list(reader.batches(np.arange(NUM_FRAMES), 4))
    assert [read_number(frame) for batch in batches for frame in batch.data.numpy()] == list(range(NUM_FRAMES))


def test_memory_is_used_again_once_nobody_holds_it(clip: Media) -> None:
    with isolated(clip) as reader:
        places = [batch.data.data_ptr() for batch in reader.batches(np.arange(NUM_FRAMES), 2)]
    assert len(set(places)) <= 3


def test_process_serves_one_video_after_the_other(clip: Media) -> None:
    with isolated(clip) as first:
        pid = first.process_id
    with isolated(clip) as second:
        assert second.process_id == pid
        with isolated(clip) as beside:
            assert beside.process_id != pid


def test_process_that_was_started_ahead_reads_the_first_media(clip: Media) -> None:
    end_idle_processes()
    start_reading(ReaderSection(isolate="always"))
    (ahead,) = processes._IDLE
    with isolated(clip) as reader:
        assert reader.process_id == ahead.pid


def test_no_process_is_started_ahead_if_none_will_decode() -> None:
    end_idle_processes()
    start_reading(ReaderSection(isolate="never"))
    assert not processes._IDLE


def test_a_reader_may_be_read_again(clip: Media) -> None:
    with isolated(clip) as reader:
        for _ in range(2):
            frames = [frame for batch in reader.batches(np.arange(NUM_FRAMES), 4) for frame in batch.data.numpy()]
            assert [read_number(frame) for frame in frames] == list(range(NUM_FRAMES))


def test_reading_that_is_given_up_leaves_the_process_usable(clip: Media) -> None:
    with isolated(clip) as reader:
        batches = reader.batches(np.arange(NUM_FRAMES), 2)
        next(batches)
        batches.close()
        pid = reader.process_id
    with isolated(clip) as reader:
        assert reader.process_id == pid


@pytest.mark.parametrize(
    ("how", "at", "where", "reason"),
    [
        ("segfault", -1, "while it was opened", "was killed by SIGSEGV"),
        ("segfault", 4, "after frame 3", "was killed by SIGSEGV"),
        ("abort", 0, "before its first frame", "was killed by SIGABRT"),
        ("killed", 4, "after frame 3", "was killed by SIGKILL, probably for want of memory"),
        ("exit", 4, "after frame 3", "ended with exit code 3"),
    ],
)
def test_crash_is_an_error_of_the_file(how: str, at: int, where: str, reason: str) -> None:
    with pytest.raises(ReadError, match=rf"^clip\.mp4: {where}: the process that decodes it {reason}; if this file"):
        read(misbehaving(how, at=at))


@pytest.mark.parametrize("how", ["hang", "hang with the interpreter locked", "stop"])
def test_hang_is_ended_and_is_an_error_of_the_file(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_fly_for(tmp_path / "begun", monkeypatch)
    with pytest.raises(ReadError, match=r"after frame 3: the process that decodes it hung for \d+ s .*stall_seconds"):
        read(misbehaving(how, begun=str(tmp_path / "begun")))


def test_hang_after_the_last_frame_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_time_fly_for(tmp_path / "begun", monkeypatch)
    reader = misbehaving("hang at the end", at=99, begun=str(tmp_path / "begun"))
    assert read(reader) == list(range(INFO.num_frames))


@pytest.mark.slow
def test_process_that_grows_is_ended() -> None:
    with pytest.raises(
        ReadError, match=r"after frame 3: .* took \d\.\d GB of memory, reader\.max_memory_gb allows 0\.4"
    ):
        read(misbehaving("grow", max_memory_gb=0.4))


def test_exception_that_is_none_of_ours_is_an_error_of_the_file() -> None:
    with pytest.raises(ReadError, match=r"^clip\.mp4: after frame 3: the reader raised RuntimeError: out of luck$"):
        read(misbehaving("raise"))


def test_error_after_the_last_frame_comes_after_it() -> None:
    with misbehaving("raise at the end", at=99) as reader:
        batches = reader.batches(np.arange(10), 5)
        assert [next(batches).frame_indices.tolist() for _ in range(2)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
        with pytest.raises(ReadError, match=r"after frame 9: .*luck"):
            next(batches)


def test_frame_after_the_last_that_was_asked_for_is_refused() -> None:
    with pytest.raises(FrameCountError, match=r"after frame 9 the reader gave \[10\]"):
        read(misbehaving("one more", at=99))


def write_picture(folder: Path, number: int, size: tuple[int, int] = (96, 64)) -> Media:
    path = folder / f"{number}.png"
    Image.fromarray(draw_number(number, *size)).save(path)
    return Media("images", (path,))


def test_memory_is_used_again_for_the_next_media(tmp_path: Path) -> None:
    end_idle_processes()
    media = [write_picture(tmp_path, number, size) for number, size in enumerate([(96, 64), (128, 96)] * 4)]
    held = []
    for one in media:
        with isolated(one, use="images") as reader:
            held += [(reader.process_id, read_number(batch.data[0].numpy())) for batch in reader.batches(ONE, 1)]
    pid = held[0][0]
    assert held == [(pid, number) for number in range(8)]
    handles = [str(handle.readlink()) for handle in Path(f"/proc/{pid}/fd").iterdir()]
    assert sum(handle.startswith("/memfd:prelabel") for handle in handles) <= 2


def test_frames_that_are_held_stay_while_the_next_media_are_read(tmp_path: Path) -> None:
    held = []
    for number in range(5):
        with isolated(write_picture(tmp_path, number), use="images") as reader:
            held += list(reader.batches(ONE, 1))
    assert [read_number(batch.data[0].numpy()) for batch in held] == [0, 1, 2, 3, 4]


def test_memory_for_the_next_media_is_bounded() -> None:
    pool = SharedFramePool()
    for _ in range(4):
        pool.take((1, 1, KEPT_BYTES // 9, 3))
    pool.free_unsent()
    pool.trim()
    assert sum(memory.pixels.nbytes for memory in pool._memories.values()) <= KEPT_BYTES
    for memory in pool._memories.values():
        os.close(memory.handle)


@pytest.mark.parametrize("how", ["twice", "other frames", "none"])
def test_frames_that_were_not_asked_for_are_refused(how: str) -> None:
    with pytest.raises(FrameCountError, match=r"clip\.mp4: after frame 3 the reader gave \["):
        read(misbehaving(how))


def test_frames_of_another_size_than_promised_are_refused() -> None:
    with pytest.raises(ReadError, match=r"frame 5 has \(4, 8\) pixels, the reader promised \[8, 4\]"):
        read(misbehaving("other size"))


def test_a_reader_that_ends_early_is_caught() -> None:
    with pytest.raises(FrameCountError, match="ended before frame 4, after 4 of 10 frames"):
        read(misbehaving("end early"))


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"use": "pyav", "device": "cuda"}, MachineError, "reader pyav on device .cuda.: it decodes on the CPU"),
        ({"use": "nowhere:Reader"}, PluginError, "importing 'nowhere'"),
    ],
)
def test_error_of_the_setup_stays_one(options: dict[str, object], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        read(isolated(NOTHING, **options))


def test_file_that_is_no_video_says_so_and_the_process_goes_on(tmp_path: Path, clip: Media) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(ReadError, match=r"^notes\.mp4: the file is text, expected a video$"):
        read(isolated(Media("video", (path,))))
    assert read(isolated(clip)) == list(range(NUM_FRAMES))


@pytest.mark.parametrize("name", ["ENCORD_SSH_KEY", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"])
def test_process_has_no_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    end_idle_processes()
    monkeypatch.setenv(name, "-----BEGIN OPENSSH PRIVATE KEY-----")
    with misbehaving("") as reader:
        environment = Path(f"/proc/{reader.process_id}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"PRIVATE KEY" not in environment
    end_idle_processes()


RUN = """
import sys
from pathlib import Path
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import Media
from prelabel.media.isolation.reader import IsolatedReader
import numpy as np
use = "tests.media.isolation.misbehaving:Misbehaving"
section = ReaderSection(use=use, how=sys.argv[1], at=0, begun=sys.argv[2])
with IsolatedReader(Media("video", (Path("clip.mp4"),)), section, Path(), None) as reader:
    print(reader.process_id, flush=True)
    list(reader.batches(np.arange(10), 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hang", "hang with the interpreter locked"])
def test_process_ends_with_a_run_that_is_killed(how: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with subprocess.Popen([sys.executable, "-c", RUN, how, str(begun)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        wait_until(begun.exists)
        os.kill(pid, 0)
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for another process, for as long as the test may take."""
    while not holds():
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_config_says_where_frames_are_decoded(clip: Media) -> None:
    where = {}
    for isolate in ("auto", "always", "never"):
        with open_frames(clip, ReaderSection(isolate=isolate, device="cpu"), Path()) as opened:
            where[isolate] = type(opened.reader).__name__
            assert opened.choice.use == "pyav"
    assert where == {"auto": "IsolatedReader", "always": "IsolatedReader", "never": "PyAVReader"}


@pytest.mark.parametrize(("cuda_is_in_use", "more"), [(False, 10), (True, 0)])
def test_it_gives_way_to_a_model_on_the_cpu_alone(
    clip: Media, monkeypatch: pytest.MonkeyPatch, cuda_is_in_use: bool, more: int
) -> None:
    end_idle_processes()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: cuda_is_in_use)
    with isolated(clip) as reader:
        niceness = os.getpriority(os.PRIO_PROCESS, reader.process_id)
    end_idle_processes()
    assert niceness == min(os.getpriority(os.PRIO_PROCESS, 0) + more, 19)


def test_keyframes_come_along(clip: Media) -> None:
    with open_frames(clip, ReaderSection(only_keyframes=True, device="cpu"), Path()) as opened:
        assert opened.wanted.tolist() == [0, 12, 24]


def test_idle_processes_are_few() -> None:
    assert len(processes._IDLE) <= 2
