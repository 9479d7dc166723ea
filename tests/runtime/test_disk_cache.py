"""Disk for downloads: bounded over threads and processes, clean also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prelabel.errors import FetchError
from prelabel.runtime.disk_cache import DiskCache


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for room again soon, for quick tests."""
    monkeypatch.setattr("prelabel.runtime.disk_cache._POLL_SECONDS", 0.02)


def test_room_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 100)
    with cache.room(60, "a") as folder:
        (folder / "file").write_bytes(bytes(60))
    assert not folder.exists()
    cache.close()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_file_larger_than_the_cache_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(FetchError, match=r"clip.mp4: takes 3\.000 GB .* raise source\.cache_gb"),
        DiskCache(tmp_path, 2_000_000_000).room(3_000_000_000, "clip.mp4"),
    ):
        pass


def test_room_is_waited_for_and_shared_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = DiskCache(tmp_path, 100), DiskCache(tmp_path, 100)
    entered, looks = threading.Event(), threading.Semaphore(0)
    count = second._sweep_and_count

    def count_and_tell() -> int:
        looks.release()
        return count()

    monkeypatch.setattr(second, "_sweep_and_count", count_and_tell)

    def enter() -> None:
        with second.room(60, "b"):
            entered.set()

    thread = threading.Thread(target=enter)
    with first.room(60, "a") as folder:
        thread.start()
        assert all(looks.acquire(timeout=50) for _ in range(3))
        assert not entered.is_set()
        assert folder.exists()
    assert entered.wait(50)
    thread.join()


def test_closing_gives_everything_up_and_room_may_be_had_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    with cache.room(60, "a") as folder:
        cache.close()
        assert not folder.exists()
        with cache.room(100, "b") as again:
            assert again.is_dir()


def test_closing_ends_the_wait_for_room(tmp_path: Path) -> None:
    other, cache, ended = DiskCache(tmp_path, 100), DiskCache(tmp_path, 100), threading.Event()

    def close_until_ended() -> None:
        while not ended.wait(0.1):  # a wait that has not begun yet is none to end
            cache.close()

    closing = threading.Thread(target=close_until_ended)
    with other.room(60, "a"):
        closing.start()
        with pytest.raises(FetchError, match=r"b: given up .* the run is ending"), cache.room(60, "b"):
            pass
    ended.set()
    closing.join()


def test_wait_for_room_that_never_comes_ends(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100, patience_seconds=0.05)
    with (
        cache.room(60, "a"),
        pytest.raises(FetchError, match=r"b: waited .*raise source\.cache_gb"),
        cache.room(60, "b"),
    ):
        pass


def test_what_a_killed_process_left_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / "0123" / "4567-100"
    left.mkdir(parents=True)
    (left / "file").write_bytes(bytes(100))
    (tmp_path / "0123" / ".lock").touch()
    with DiskCache(tmp_path, 100).room(100, "a"):
        assert not left.parent.exists()


WORKER = """
import sys, time
from pathlib import Path
from prelabel.runtime.disk_cache import DiskCache
folder, log, name, times = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
cache = DiskCache(folder, 100)
for number in range(times):
    with cache.room(60, name) as place:
        (place / "file").write_bytes(bytes(60))
        with log.open("a") as file:
            file.write(f"{name} in\\n")
        print("in", flush=True)
        time.sleep(600 if times == 1 else 0.02)
        assert (place / "file").stat().st_size == 60
        with log.open("a") as file:
            file.write(f"{name} out\\n")
"""


def start(folder: Path, log: Path, name: str, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), str(log), name, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_the_bound_and_leave_each_other_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(tmp_path / "cache", log, name, 5) for name in "abc"]
    assert [worker.communicate(timeout=50) and worker.returncode for worker in workers] == [0, 0, 0]
    lines = log.read_text().split("\n")[:-1]
    assert len(lines) == 30
    for entered, left in zip(lines[::2], lines[1::2], strict=True):  # never two within at the same time
        assert (entered.split()[0], entered.split()[1], left.split()[1]) == (left.split()[0], "in", "out")


def test_what_a_killed_process_left_goes_at_the_next_start_and_what_a_live_one_has_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    killed = start(folder, tmp_path / "log", "killed", 1)
    assert killed.stdout is not None
    killed.stdout.readline()
    cache = DiskCache(folder, 1000)
    with cache.room(60, "alive") as mine:
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert len(list(folder.glob("*/*/file"))) == 1
        DiskCache(folder, 1000).sweep()
        assert not list(folder.glob("*/*/file"))
        assert mine.is_dir()
    cache.close()
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_sweeping_makes_no_folder(tmp_path: Path) -> None:
    DiskCache(tmp_path / "cache", 100).sweep()
    assert not (tmp_path / "cache").exists()
