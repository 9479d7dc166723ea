"""The lock of a bucket: one run at a time, from whichever folder or machine; a killed run's lock ends by itself."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prelabel.errors import MachineError, SaveError
from prelabel.runtime.buckets import Address
from prelabel.store import bucket_lock
from prelabel.store.run_folder import RunFolder
from tests.bucket_server import BucketServer

KEY = "labels/.prelabel/run.lock"
ELSEWHERE = b"process 7 on gpu-3, since noon\ngpu-3:/out\n"


@pytest.fixture(autouse=True)
def often(s3: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the lock more often, for quick tests."""
    monkeypatch.setattr(bucket_lock, "REFRESH_SECONDS", 0.05)


def store_in(folder: Path) -> RunFolder:
    return RunFolder(folder, Address("s3", "videos", "labels"))


def wait_until(holds: Callable[[], object]) -> None:
    while not holds():
        time.sleep(0.01)


def test_a_second_run_from_another_folder_is_refused_and_told_who_holds_the_bucket(tmp_path: Path) -> None:
    holder = rf"another run writes to this bucket \(process {os.getpid()} on {socket.gethostname()}, since 2"
    with store_in(tmp_path / "a").hold(), pytest.raises(MachineError, match=holder), store_in(tmp_path / "b").hold():
        pass


def test_a_bucket_is_free_after_the_run_also_after_an_error(s3: BucketServer, tmp_path: Path) -> None:
    with pytest.raises(KeyError), store_in(tmp_path / "a").hold():
        raise KeyError
    assert s3.get(KEY) == b""
    with store_in(tmp_path / "b").hold():
        assert s3.get(KEY)


def test_a_killed_run_does_not_keep_the_next_one_in_its_folder_waiting(s3: BucketServer, tmp_path: Path) -> None:
    s3.put(KEY, f"process 7 on it\n{socket.gethostname()}:{tmp_path}\n3\n".encode())
    with store_in(tmp_path).hold():
        assert f"process {os.getpid()} ".encode() in s3.get(KEY)


def test_the_lock_of_a_run_that_was_killed_elsewhere_expires(
    s3: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    s3.put(KEY, ELSEWHERE)
    monkeypatch.setattr(bucket_lock, "EXPIRY_SECONDS", 0.5)
    with store_in(tmp_path).hold():
        assert f"process {os.getpid()} ".encode() in s3.get(KEY)
    assert "waiting to see whether this run still goes on: process 7 on gpu-3, since noon" in caplog.text


def test_a_run_whose_lock_another_one_has_taken_uploads_nothing_more(s3: BucketServer, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with store.hold():
        store.publish([tmp_path / "a.json"])
        while not store._bucket_lock._taken_by:  # again, since the run may write over it if it has just read its own
            s3.put(KEY, ELSEWHERE)
            time.sleep(0.01)
        with pytest.raises(SaveError, match=r"another run has taken over \(process 7 on gpu-3, since noon\)"):
            store.publish([tmp_path / "a.json"])
    assert s3.get(KEY) == ELSEWHERE


def test_a_run_that_goes_on_shows_it(s3: BucketServer, tmp_path: Path) -> None:
    with store_in(tmp_path).hold():
        first = s3.get(KEY)
        wait_until(lambda: s3.get(KEY) != first)


def test_a_later_run_of_the_same_process_uploads_again(s3: BucketServer, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    store._bucket_lock._taken_by = "process 7 on gpu-3, since noon"
    with store.hold():
        store.publish([tmp_path / "a.json"])
    assert s3.get("labels/a.json") == b"{}"


def test_a_full_disk_does_not_end_the_refreshing_of_the_lock(
    s3: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed = bucket_lock.BucketLock._write, []

    def full_once(self: bucket_lock.BucketLock, content: bytes) -> None:
        if not failed:
            failed.append(content)
            raise OSError(28, "No space left on device")
        write(self, content)

    with store_in(tmp_path).hold():
        first = s3.get(KEY)
        monkeypatch.setattr(bucket_lock.BucketLock, "_write", full_once)
        deadline = time.monotonic() + 60
        while not (failed and s3.get(KEY) != first):
            assert time.monotonic() < deadline
            time.sleep(0.01)
