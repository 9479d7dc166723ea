"""Downloads a file from a signed link: resumes after a failure, renews the link, checks the size."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from prelabel.errors import FetchError
from prelabel.runtime.backoff import Backoff, retry_after
from prelabel.runtime.redact import keep_links_out_of_logs

MAX_REDIRECTS = 10


class RefusedRedirectError(Exception):
    """A link redirects to an address that is not allowed. The text contains no link."""


def get_following(
    session: requests.Session, link: str, headers: Mapping[str, str], timeouts: tuple[float, float]
) -> requests.Response:
    """Returns the streamed response at the end of all redirects.

    Raises:
        RefusedRedirectError: a redirect is not allowed, or there are too many.
        requests.RequestException: there is no response, or the link is malformed.
    """
    for _ in range(MAX_REDIRECTS + 1):
        response = session.get(link, headers=headers, stream=True, timeout=timeouts, allow_redirects=False)
        if not response.is_redirect:
            return response
        response.close()
        target = urljoin(link, response.headers["Location"])
        check_redirect(link, target)
        link = target
    raise RefusedRedirectError(f"its link redirects more than {MAX_REDIRECTS} times")


def check_redirect(link: str, target: str) -> None:
    """Checks that a link may redirect to the target.

    The request resolves the host again and could get another address. An attacker who could cause that controls the
    link's host, and gains nothing: they could serve the content there.

    Raises:
        RefusedRedirectError: the redirect is not allowed.
    """
    here, there = urlsplit(link), urlsplit(target)
    if there.scheme not in {"http", "https"} or not there.hostname:
        raise RefusedRedirectError("its link leads on to what is not an http(s) address")
    if here.scheme == "https" and there.scheme == "http":
        raise RefusedRedirectError("its link leads on from https to http, where others can read it")
    if _is_inside(there.hostname) and not _is_inside(here.hostname or ""):
        raise RefusedRedirectError("its link leads on to an address of this machine's own")


def _is_inside(host: str) -> bool:
    """Returns whether a host is this machine or link-local, e.g. a cloud's metadata server (169.254.169.254)."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # only a proxy may be able to resolve the name
        return False
    addresses = map(ipaddress.ip_address, found)
    return any(address.is_loopback or address.is_link_local or address.is_unspecified for address in addresses)


_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<total>\d+|\*)")

_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_COMPRESSED = ("gzip", "x-gzip", "deflate", "br", "zstd", "compress")
# The link expired or is wrong (S3 answers 403, GCS 400, Azure 403 or 401), or the object was moved (404 or 410).
_LINK_REFUSED = (400, 401, 403, 404, 410)


DOWNLOAD_BACKOFF = Backoff(attempts=7, first_seconds=0.2, factor=5.0, max_seconds=15.0)


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """When a download counts as stalled, and how often to resume it.

    Attributes:
        connect_seconds: time limit for connecting.
        read_seconds: time limit without a single byte.
        min_bytes_per_second: a connection that is slower over `window_seconds` is closed and replaced.
        window_seconds: see above.
        progress_bytes: after this many new bytes, earlier failures no longer count.
        backoff: number of attempts and the waits between them.
        clock: returns seconds since any fixed time.
    """

    connect_seconds: float = 20.0
    read_seconds: float = 60.0
    min_bytes_per_second: float = 10_000.0
    window_seconds: float = 30.0
    progress_bytes: int = 16_000_000
    backoff: Backoff = DOWNLOAD_BACKOFF
    clock: Callable[[], float] = time.monotonic


def download(
    new_link: Callable[[], str],
    destination: Path,
    expected_bytes: int | None,
    title: str,
    *,
    max_bytes: int | None = None,
    session: requests.Session | None = None,
    limits: DownloadLimits | None = None,
) -> int:
    """Downloads a file and returns its size in bytes. `destination` appears complete or not at all.

    Args:
        new_link: returns a link; called right before the first request, and again whenever the storage refuses one.
        destination: the file to write, in an existing folder.
        expected_bytes: the size on the platform; None if unknown.
        title: of the task, for errors and logs, which never contain the link.
        max_bytes: largest size; None: no limit.
        session: lets several downloads share connections; default: a new session.
        limits: time limits and retries.

    Raises:
        FetchError: the file cannot be downloaded completely.
    """
    keep_links_out_of_logs()
    partial = destination.with_name(destination.name + ".partial")
    partial.unlink(missing_ok=True)
    with session_for_links() if session is None else nullcontext(session) as opened:
        transfer = _Transfer(opened, partial, expected_bytes, max_bytes, title, limits or DownloadLimits())
        num_bytes = transfer.run(new_link)
    partial.replace(destination)
    return num_bytes


def session_for_links() -> requests.Session:
    """Returns a session for signed links, which sends no other credentials."""
    session = requests.Session()
    session.auth = lambda request: request  # without this, .netrc adds a login, and storages refuse two credentials
    session.headers["Accept-Encoding"] = "identity"
    return session


class _TryError(Exception):
    """A failure that can be retried. `renew`: with a new link; `restart`: from the first byte."""

    def __init__(self, reason: str, *, renew: bool = False, restart: bool = False, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.renew, self.restart, self.wait_seconds = renew, restart, wait_seconds


@dataclass
class _Transfer:
    """A download in progress; `etag` is the version of the file whose bytes are in `partial`."""

    session: requests.Session
    partial: Path
    expected_bytes: int | None
    max_bytes: int | None
    title: str
    limits: DownloadLimits
    etag: str = field(default="", init=False)

    @property
    def num_bytes(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def run(self, new_link: Callable[[], str]) -> int:
        link, failures, most_bytes = "", 0, 0
        while True:
            link = link or new_link()
            try:
                return self._fetch_rest(link)
            except _TryError as failure:
                # Count only bytes beyond the most so far. Otherwise a storage that resumes wrongly is retried for ever.
                if self.num_bytes - most_bytes >= self.limits.progress_bytes:
                    failures, most_bytes = 0, self.num_bytes
                failures += 1
                if failures == self.limits.backoff.attempts:
                    have = f"{self.num_bytes} of {self.expected_bytes or 'unknown'} bytes"
                    raise FetchError(
                        f"{self.title}: download given up at {have}, after {failures} failures: {failure}"
                    ) from None
                _LOG.info("%s: download: %s; trying again", self.title, failure, extra={"retry": "download"})
                link = "" if failure.renew else link
                if failure.restart:
                    self.partial.unlink(missing_ok=True)
                self.limits.backoff.sleep(self.limits.backoff.seconds(failures, failure.wait_seconds))

    def _fetch_rest(self, link: str) -> int:
        """Downloads the missing bytes and returns the file's size."""
        if self.expected_bytes is not None and self.num_bytes == self.expected_bytes:
            return self.num_bytes
        with self._ask(link) as response:
            total = self._check_answer(response)
            promised = self.expected_bytes if total is None else total
            try:
                self._write(response, promised)
            except OSError as error:
                raise FetchError(f"{self.title}: {self.partial.parent} cannot be written: {error.strerror}") from error
        if promised is not None and self.num_bytes != promised:
            raise _TryError(f"got {self.num_bytes} of {promised} bytes", restart=self.num_bytes > promised)
        return self.num_bytes

    def _write(self, response: requests.Response, promised: int | None) -> None:
        """Writes the response to `partial`, but no more bytes than promised or allowed."""
        with self.partial.open("ab" if response.status_code == HTTPStatus.PARTIAL_CONTENT else "wb") as file:
            for chunk in self._chunks(response):
                file.write(chunk)
                if promised is not None and file.tell() > promised:
                    raise _TryError(f"got more than the {promised} bytes that it has", restart=True)
                if self.max_bytes is not None and file.tell() > self.max_bytes:
                    raise FetchError(
                        f"{self.title}: download given up: of a size that nobody promised, and larger than the "
                        f"{self.max_bytes / 1e9:.3f} GB that the cache may take: raise source.cache_gb"
                    )
                if not self.partial.exists():  # the run is ending and deleted the folder
                    raise FetchError(f"{self.title}: download given up: {self.partial.parent} is gone")

    def _ask(self, link: str) -> requests.Response:
        headers = {}
        if self.num_bytes:
            headers["Range"] = f"bytes={self.num_bytes}-"
            if self.etag and not self.etag.startswith("W/"):
                headers["If-Range"] = self.etag
        timeouts = (self.limits.connect_seconds, self.limits.read_seconds)
        try:
            return get_following(self.session, link, headers, timeouts)
        except RefusedRedirectError as error:
            complaint = str(error)
        except (requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema, requests.exceptions.InvalidURL):
            complaint = "its link is not an http(s) address"
        except requests.RequestException as error:
            raise _TryError(f"no answer from the storage ({type(error).__name__})") from None
        raise FetchError(f"{self.title}: {complaint}")  # outside `except`: the library's errors contain the link

    def _check_answer(self, response: requests.Response) -> int | None:
        """Checks the response and returns the size of the whole file; None if the storage does not say."""
        status, headers = response.status_code, response.headers
        if status in _LINK_REFUSED:
            raise _TryError(f"the storage refused the link: HTTP {status}", renew=True)
        if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _TryError(f"the storage answered HTTP {status}", wait_seconds=retry_after(headers))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _TryError(f"the storage has no more than {self.num_bytes} bytes", renew=True, restart=True)
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise FetchError(f"{self.title}: the storage answered HTTP {status}, expected 200")
        encoding = headers.get("Content-Encoding", "").lower()
        if encoding in _COMPRESSED:
            raise FetchError(
                f"{self.title}: the storage sends it compressed (Content-Encoding: {encoding}), which was not asked "
                "for: store it without, or take that header off it"
            )
        if status == HTTPStatus.PARTIAL_CONTENT:
            return self._check_range(headers)
        self.etag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        return self._check_promise(int(length) if length.isdecimal() else None)

    def _check_range(self, headers: Mapping[str, str]) -> int | None:
        described = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if described is None or int(described["first"]) != self.num_bytes or headers.get("ETag", "") != self.etag:
            raise _TryError("the storage sent a part of another file than before", restart=True)
        return self._check_promise(None if described["total"] == "*" else int(described["total"]))

    def _check_promise(self, total: int | None) -> int | None:
        if total is not None and self.expected_bytes is not None and total != self.expected_bytes:
            raise _TryError(
                f"the storage has {total} bytes, the platform promises {self.expected_bytes}", renew=True, restart=True
            )
        return total

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """Yields the bytes as they arrive; a broken or slow connection is a failure."""
        clock, window = self.limits.clock, self.limits.window_seconds
        began, num_bytes = clock(), 0
        while True:
            try:
                chunk = response.raw.read1(_CHUNK_BYTES)  # read() would wait for a whole chunk
            except urllib3.exceptions.HTTPError as error:
                raise _TryError(f"the connection broke ({type(error).__name__})") from None
            if not chunk:
                return
            yield chunk
            num_bytes += len(chunk)
            seconds = clock() - began
            if seconds >= window:
                if num_bytes < self.limits.min_bytes_per_second * seconds:
                    raise _TryError(f"{num_bytes / seconds:.0f} bytes a second over {seconds:.0f} s is too slow")
                began, num_bytes = clock(), 0
