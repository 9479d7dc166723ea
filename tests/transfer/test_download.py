from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from prelabel.errors import FetchError
from prelabel.transfer.disk_cache import DiskCache
from prelabel.transfer.download import Patience, download
from tests.encord_server import (
    Delay,
    EncordServer,
    ResetInsideBody,
    Shortened,
    Status,
    Trickle,
    Truncated,
    WrongBytes,
    download_of,
)
from tests.encord_server.records import Download, StorageItem
from tests.encord_server.wire import Answer

QUICK = Patience(sleep=lambda seconds: None)
SIZE = 300_000


@dataclass
class Storage:
    """A file behind signed links, and where it is to go."""

    server: EncordServer
    item: StorageItem
    destination: Path

    def new_link(self) -> str:
        link = self.server.links.sign(self.item, 3600)
        assert link is not None
        return link

    def fetch(self, expected_bytes: int | None = SIZE, patience: Patience = QUICK) -> int:
        return download(self.new_link, self.destination, expected_bytes, "clip.mp4", patience=patience)

    def fault(self, action: Callable, **more: int | None) -> None:
        self.server.faults.add(download_of(self.item), action, **more)

    @property
    def downloads(self) -> list[Download]:
        return self.server.world.downloads

    @property
    def is_whole(self) -> bool:
        assert self.item.path is not None
        left = sorted(path.name for path in self.destination.parent.iterdir())
        return left == ["here.mp4"] and self.destination.read_bytes() == self.item.path.read_bytes()


@pytest.fixture
def storage(encord_server: EncordServer, tmp_path: Path) -> Storage:
    source = tmp_path / "there.mp4"
    source.write_bytes(bytes(n * n % 251 for n in range(SIZE)))
    (tmp_path / "here").mkdir()
    item = encord_server.world.add_other(source, "pdf").item
    return Storage(encord_server, item, tmp_path / "here" / "here.mp4")


def redirect_to(address: str) -> Callable:
    return lambda carry_out, stopping: Answer.of_bytes(b"", 302, "text/plain", headers={"Location": address})


def test_file_comes_whole(storage: Storage) -> None:
    assert storage.fetch() == SIZE
    assert storage.is_whole
    assert [found.range_header for found in storage.downloads] == [None]


@pytest.mark.parametrize("cut", [Truncated(100_000), ResetInsideBody(100_000)], ids=["closed", "reset"])
def test_cut_download_goes_on_where_it_broke(storage: Storage, cut: Callable) -> None:
    storage.fault(cut)
    storage.fetch()
    assert storage.is_whole
    ranges = [found.range_header for found in storage.downloads]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 100_000
    assert len(ranges) == 2


def test_file_that_changed_meanwhile_is_taken_from_its_beginning(storage: Storage) -> None:
    storage.fault(Truncated(100_000))

    def change(seconds: float) -> None:
        storage.item.path.write_bytes(bytes(SIZE))

    storage.fetch(patience=Patience(sleep=change))
    assert storage.is_whole


def test_expired_link_is_renewed(storage: Storage) -> None:
    links = iter([storage.new_link(), ""])
    storage.server.links.expire_all()
    fresh = storage.new_link
    download(lambda: next(links) or fresh(), storage.destination, SIZE, "clip.mp4", patience=QUICK)
    assert storage.is_whole
    assert [found.status for found in storage.downloads] == [403, 200]


def test_link_that_expires_under_way_is_renewed_and_the_rest_fetched(storage: Storage) -> None:
    storage.fault(Truncated(100_000))
    storage.fetch(patience=Patience(sleep=lambda seconds: storage.server.links.expire_all()))
    assert storage.is_whole
    assert [found.status for found in storage.downloads] == [200, 403, 206]


def test_busy_storage_is_asked_again(storage: Storage) -> None:
    waits: list[float] = []
    storage.fault(Status(503, retry_after_seconds=7))
    storage.fault(Status(504))
    storage.fetch(patience=Patience(sleep=waits.append))
    assert storage.is_whole
    assert waits == [7.0, 1.0]


def test_trickle_is_ended_and_resumed(storage: Storage) -> None:
    storage.fault(Trickle(20_000))
    storage.fetch(patience=replace(QUICK, min_bytes_per_second=1e6, window_seconds=0.5))
    assert storage.is_whole
    assert storage.downloads[-1].status == 206


def test_stalled_storage_is_ended(storage: Storage) -> None:
    storage.fault(Delay(30.0))
    storage.fetch(patience=replace(QUICK, read_seconds=0.3))
    assert storage.is_whole


def test_size_that_differs_from_the_promise_is_never_taken(storage: Storage) -> None:
    storage.fault(Shortened(200_000), times=None)
    with pytest.raises(FetchError, match=r"clip\.mp4: .* the storage has 200000 bytes, the platform promises 300000"):
        storage.fetch()
    assert list(storage.destination.parent.iterdir()) == []


def test_size_that_is_right_the_second_time_is_taken(storage: Storage) -> None:
    storage.fault(Shortened(200_000))
    storage.fetch()
    assert storage.is_whole


def test_file_of_unknown_size_is_held_to_what_the_storage_says(storage: Storage) -> None:
    storage.fault(Truncated(100_000))
    assert storage.fetch(expected_bytes=None) == SIZE
    assert storage.is_whole


def test_download_that_keeps_failing_is_given_up(storage: Storage) -> None:
    storage.fault(Truncated(0), times=None)
    with pytest.raises(FetchError, match="given up at 0 of 300000 bytes, after 7 failures: the connection broke"):
        storage.fetch()
    assert len(storage.downloads) == 7


def test_progress_makes_up_for_failures(storage: Storage) -> None:
    storage.fault(Truncated(30_000), times=9)
    storage.fetch(patience=replace(QUICK, max_failures=1, progress_bytes=20_000))
    assert storage.is_whole


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/clip.mp4"])
def test_redirect_leads_to_http_only(storage: Storage, target: str) -> None:
    storage.fault(redirect_to(target))
    with pytest.raises(FetchError, match=r"not an http\(s\) address"):
        storage.fetch()


def test_redirect_to_another_link_is_followed(storage: Storage) -> None:
    storage.fault(redirect_to(storage.new_link()))
    storage.fetch()
    assert storage.is_whole


def test_link_is_in_no_log_and_no_error(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in (ResetInsideBody(1000), Status(503), redirect_to("file:///secret?sig=1"), WrongBytes()):
        storage.fault(fault)
    with pytest.raises(FetchError) as raised:
        storage.fetch()
    assert "clip.mp4: download: " in caplog.text
    for text in (caplog.text, str(raised.value), repr(raised.value.__context__)):
        assert "sig=" not in text
        assert "nonce=" not in text


def test_file_that_cannot_be_written_names_the_folder(storage: Storage) -> None:
    with pytest.raises(FetchError, match="nowhere cannot be written: No such file"):
        download(storage.new_link, storage.destination.parent / "nowhere" / "a", SIZE, "clip.mp4", patience=QUICK)


def test_download_ends_when_its_folder_is_deleted(storage: Storage, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", SIZE)
    storage.fault(Trickle(10_000))
    threading.Timer(0.5, cache.close).start()
    with (
        cache.room(SIZE, "clip.mp4") as folder,
        pytest.raises(FetchError, match=r"clip\.mp4: download given up: .* is gone"),
    ):
        download(storage.new_link, folder / "a.mp4", SIZE, "clip.mp4", patience=QUICK)


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


def test_room_is_waited_for_and_shared_by_processes(tmp_path: Path) -> None:
    first, second = DiskCache(tmp_path, 100), DiskCache(tmp_path, 100)
    entered = threading.Event()

    def enter() -> None:
        with second.room(60, "b"):
            entered.set()

    thread = threading.Thread(target=enter)
    with first.room(60, "a") as folder:
        thread.start()
        assert not entered.wait(0.5)
        assert folder.exists()
    assert entered.wait(10)
    thread.join()


def test_closing_ends_the_wait_and_gives_everything_up(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100)
    with cache.room(60, "a") as folder:
        threading.Timer(0.2, cache.close).start()
        with pytest.raises(FetchError, match=r"b: given up .* the run is ending"), cache.room(60, "b"):
            pass
    assert not folder.exists()
    with cache.room(100, "c") as again:
        assert again.is_dir()


def test_wait_for_room_that_never_comes_ends(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 100, patience_seconds=0.3)
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
