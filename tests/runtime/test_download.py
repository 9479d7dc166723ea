from __future__ import annotations

import logging
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from prelabel.errors import FetchError
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DOWNLOAD_BACKOFF, DownloadLimits, RefusedRedirectError, check_redirect, download
from prelabel.testing.encord_server import (
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
from prelabel.testing.encord_server.records import Download, StorageItem
from prelabel.testing.encord_server.wire import Answer


def limits_with(sleep: Callable[[float], None] = lambda seconds: None, attempts: int = 7) -> DownloadLimits:
    return DownloadLimits(backoff=replace(DOWNLOAD_BACKOFF, sleep=sleep, attempts=attempts, draw=lambda: 1.0))


QUICK = limits_with()
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

    def fetch(self, expected_bytes: int | None = SIZE, limits: DownloadLimits = QUICK) -> int:
        return download(self.new_link, self.destination, expected_bytes, "clip.mp4", limits=limits)

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

    storage.fetch(limits=limits_with(change))
    assert storage.is_whole


def test_expired_link_is_renewed(storage: Storage) -> None:
    links = iter([storage.new_link(), ""])
    storage.server.links.expire_all()
    fresh = storage.new_link
    download(lambda: next(links) or fresh(), storage.destination, SIZE, "clip.mp4", limits=QUICK)
    assert storage.is_whole
    assert [found.status for found in storage.downloads] == [403, 200]


def test_link_that_expires_under_way_is_renewed_and_the_rest_fetched(storage: Storage) -> None:
    storage.fault(Truncated(100_000))
    storage.fetch(limits=limits_with(lambda seconds: storage.server.links.expire_all()))
    assert storage.is_whole
    assert [found.status for found in storage.downloads] == [200, 403, 206]


def test_busy_storage_is_asked_again(storage: Storage) -> None:
    waits: list[float] = []
    storage.fault(Status(503, retry_after_seconds=7))
    storage.fault(Status(504))
    storage.fetch(limits=limits_with(waits.append))
    assert storage.is_whole
    assert waits == [7.0, 1.0]


def test_trickle_is_ended_and_resumed(storage: Storage) -> None:
    storage.fault(Trickle(20_000))
    storage.fetch(limits=replace(QUICK, min_bytes_per_second=1e6, window_seconds=0.5))
    assert storage.is_whole
    assert storage.downloads[-1].status == 206


def test_stalled_storage_is_ended(storage: Storage) -> None:
    storage.fault(Delay(30.0))
    storage.fetch(limits=replace(QUICK, read_seconds=0.3))
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
    storage.fetch(limits=replace(limits_with(attempts=2), progress_bytes=20_000))
    assert storage.is_whole


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/clip.mp4"])
def test_redirect_leads_to_http_only(storage: Storage, target: str) -> None:
    storage.fault(redirect_to(target))
    with pytest.raises(FetchError, match=r"not an http\(s\) address"):
        storage.fetch()


def test_redirects_without_an_end_are_not_followed_for_ever(storage: Storage) -> None:
    storage.fault(redirect_to("/media/elsewhere"), times=None)
    storage.server.faults.add(lambda call: "elsewhere" in call.path, redirect_to("/media/elsewhere"), times=None)
    with pytest.raises(FetchError, match=r"redirects more than 10 times"):
        storage.fetch()


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [
        ("https://1.1.1.1/a", "http://169.254.169.254/latest/meta-data", "from https to http"),
        ("http://1.1.1.1/a", "http://169.254.169.254/latest/meta-data", "of this machine's own"),
        ("https://1.1.1.1/a", "https://[fe80::1]/a", "of this machine's own"),
        ("https://1.1.1.1/a", "https://localhost:8080/a", "of this machine's own"),
        ("https://1.1.1.1/a", "https://2130706433/a", "of this machine's own"),
        ("https://1.1.1.1/a", "https:///a", r"not an http\(s\) address"),
        ("https://1.1.1.1/a", "gopher://1.1.1.1/a", r"not an http\(s\) address"),
    ],
)
def test_redirect_leads_to_no_address_of_this_machine(link: str, target: str, reason: str) -> None:
    with pytest.raises(RefusedRedirectError, match=reason) as raised:
        check_redirect(link, target)
    assert target not in str(raised.value)


@pytest.mark.parametrize("target", ["https://1.0.0.1/b", "https://10.0.0.7/b", "https://no.such.host.invalid/b"])
def test_redirect_to_another_storage_is_allowed(target: str) -> None:
    check_redirect("https://1.1.1.1/a", target)
    check_redirect("http://127.0.0.1:1/a", "http://127.0.0.1:2/b")


def test_redirect_to_another_link_is_followed(storage: Storage) -> None:
    storage.fault(redirect_to(storage.new_link()))
    storage.fetch()
    assert storage.is_whole


@dataclass(frozen=True)
class Headers:
    """Lays headers over the answer's, and another status if one is given; an empty header is taken away."""

    headers: dict[str, str]
    status: int | None = None

    def __call__(self, carry_out: Callable[[], Answer], stopping: threading.Event) -> Answer:
        answer = carry_out()
        headers = {name: value for name, value in {**answer.headers, **self.headers}.items() if value}
        return replace(answer, headers=headers, status=self.status or answer.status)


WRONG_PARTS = {
    "another part": Headers({"Content-Range": f"bytes 5-{SIZE - 1}/{SIZE}"}),
    "another size": Headers({"Content-Range": f"bytes 100000-{SIZE - 1}/{SIZE + 5}"}),
    "no range": Headers({"Content-Range": ""}),
    "another version": Headers({"ETag": '"other"'}),
}


@pytest.mark.parametrize("wrong", WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_wrong_part_is_not_appended(storage: Storage, wrong: Callable) -> None:
    storage.fault(Truncated(100_000))
    storage.fault(wrong)
    storage.fetch()
    assert storage.is_whole


def test_storage_that_always_sends_wrong_parts_is_given_up(storage: Storage) -> None:
    """Each try gains bytes, but never more than the one before."""
    limits = replace(QUICK, progress_bytes=50_000)
    for _ in range(8):
        storage.fault(Truncated(100_000))
        storage.fault(WRONG_PARTS["another version"])
    with pytest.raises(FetchError, match="given up at 100000 of 300000 bytes, after 7 failures"):
        storage.fetch(limits=limits)
    assert len(storage.downloads) <= 9


def test_storage_that_knows_no_ranges_is_asked_for_all_again(storage: Storage) -> None:
    storage.fault(Truncated(100_000))

    def whole(carry_out: Callable[[], Answer], stopping: threading.Event) -> Answer:
        assert storage.item.path is not None
        return Answer.of_bytes(storage.item.path.read_bytes(), 200, "video/mp4")

    storage.fault(whole)
    storage.fetch()
    assert storage.is_whole


def test_compressed_answer_is_refused(storage: Storage) -> None:
    storage.fault(Headers({"Content-Encoding": "gzip"}))
    with pytest.raises(FetchError, match=r"clip\.mp4: the storage sends it compressed \(Content-Encoding: gzip\)"):
        storage.fetch()


def test_encoding_that_changes_no_byte_is_no_matter(storage: Storage) -> None:
    storage.fault(Headers({"Content-Encoding": "aws-chunked"}))
    storage.fetch()
    assert storage.is_whole


def test_file_of_unknown_size_is_given_up_where_the_cache_ends(storage: Storage) -> None:
    def endless(carry_out: Callable[[], Answer], stopping: threading.Event) -> Answer:
        answer = carry_out()
        return replace(answer, body=(bytes(1 << 20) for _ in range(100)), length=100 << 20, headers={"ETag": '"x"'})

    storage.fault(endless)
    with pytest.raises(FetchError, match=r"larger than the 0\.001 GB that the cache may take: raise source\.cache_gb"):
        download(storage.new_link, storage.destination, None, "clip.mp4", max_bytes=1_000_000, limits=QUICK)
    (partial,) = storage.destination.parent.iterdir()
    assert partial.stat().st_size < 3_000_000


def test_memory_does_not_grow_with_the_file(storage: Storage) -> None:
    assert storage.item.path is not None
    with storage.item.path.open("r+b") as file:
        file.truncate(60_000_000)
    tracemalloc.start()
    try:
        storage.fetch(60_000_000)
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


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
        download(storage.new_link, storage.destination.parent / "nowhere" / "a", SIZE, "clip.mp4", limits=QUICK)


def test_download_ends_when_its_folder_is_deleted(storage: Storage, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", SIZE)

    def close_under_way(carry_out: Callable[[], Answer], stopping: threading.Event) -> Answer:
        answer = carry_out()
        content = b"".join(answer.body)

        def body() -> Iterator[bytes]:
            yield content[: SIZE // 2]
            while not any(path.stat().st_size for path in cache_folder.rglob("a.mp4*")):
                stopping.wait(0.01)
            cache.close()
            yield content[SIZE // 2 :]

        return replace(answer, body=body())

    cache_folder = tmp_path / "cache"
    storage.fault(close_under_way)
    with (
        cache.room(SIZE, "clip.mp4") as folder,
        pytest.raises(FetchError, match=r"clip\.mp4: download given up: .* is gone"),
    ):
        download(storage.new_link, folder / "a.mp4", SIZE, "clip.mp4", limits=QUICK)
