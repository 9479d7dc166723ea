"""Signed links, and the files behind them, served as cloud storage does."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

from .records import Download, SignedLink, StorageItem
from .state import World
from .wire import Answer, Request

_CHUNK_BYTES = 64 * 1024
_RANGE = re.compile(r"^bytes=(?P<first>\d*)-(?P<last>\d*)$")


class Links:
    """Makes and checks signed links. The method is part of the signature, so a link for GET refuses HEAD."""

    def __init__(self, world: World, base_url: str) -> None:
        self._world = world
        self._base_url = base_url
        self._secret = secrets.token_bytes(32)
        self._revoked_before = world.clock.now()

    def sign(self, item: StorageItem, lifetime_seconds: float) -> str | None:
        """A new link to the item's file; None if it has none."""
        if item.path is None:
            return None
        now = self._world.clock.now()
        expires = now + timedelta(seconds=lifetime_seconds)
        fields = {
            "issued": str(now.timestamp()),
            "expires": str(expires.timestamp()),
            "nonce": secrets.token_hex(4),
        }
        query = urlencode(fields | {"sig": self._signature("GET", item.uuid, fields)})
        url = f"{self._base_url}/media/{item.uuid}?{query}"
        self._world.links.append(SignedLink(now, item.uuid, url, expires))
        return url

    def expire_all(self) -> None:
        """Expire every link that was given out so far."""
        self._revoked_before = self._world.clock.now()

    def refusal(self, request: Request, item_uuid: str) -> str | None:
        """Why this request may not have the file, as a code of S3's; None if it may."""
        fields = {name: request.first(name) or "" for name in ("issued", "expires", "nonce")}
        if not hmac.compare_digest(request.first("sig") or "", self._signature(request.method, item_uuid, fields)):
            return "SignatureDoesNotMatch"
        now, revoked = self._world.clock.now().timestamp(), self._revoked_before.timestamp()
        return "AccessDenied" if float(fields["expires"]) < now or float(fields["issued"]) <= revoked else None

    def _signature(self, method: str, item_uuid: str, fields: dict[str, str]) -> str:
        text = "\n".join((method, item_uuid, fields["issued"], fields["expires"], fields["nonce"]))
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def download(world: World, links: Links, request: Request) -> Answer:
    """The answer to GET (or anything else) on a media link: 200, 206, 403, 404 or 416."""
    item_uuid = request.path.rpartition("/")[2]
    item = world.items.get(item_uuid)
    refusal = links.refusal(request, item_uuid)
    if refusal is not None:
        answer = _xml(403, refusal, "Request has expired" if refusal == "AccessDenied" else "Signature mismatch")
    elif item is None or item.path is None:
        answer = _xml(404, "NoSuchKey", "The specified key does not exist.")
    else:
        answer = _file_answer(request, item, item.path)
    record = Download(world.clock.now(), item_uuid, request.headers.get("Range"), answer.status)
    world.downloads.append(record)
    answer.count = record.count
    return answer


def _file_answer(request: Request, item: StorageItem, path: Path) -> Answer:
    size = path.stat().st_size
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{size:x}-{path.stat().st_mtime_ns:x}"'}
    content_type = item.mime_type or "binary/octet-stream"
    # If the file has changed since, the answer is the whole file, so that a client does not join parts of two versions.
    if request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
        wanted: range | None = range(size)
    else:
        wanted = _wanted_range(request.headers.get("Range", ""), size)
    if wanted is None:
        return _xml(416, "InvalidRange", "The requested range is not satisfiable", {"Content-Range": f"bytes */{size}"})
    if len(wanted) == size:
        return Answer(200, _read(path, wanted), size, content_type, headers)
    headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    return Answer(206, _read(path, wanted), len(wanted), content_type, headers)


def _wanted_range(header: str, size: int) -> range | None:
    """The requested bytes: the whole file for no range or several; None if there are none.

    >>> _wanted_range("bytes=10-", 30), _wanted_range("bytes=-5", 30), _wanted_range("bytes=30-", 30)
    (range(10, 30), range(25, 30), None)
    """
    described = _RANGE.match(header)
    if described is None or header == "bytes=-":
        return range(size)
    if not described["first"]:
        return range(max(0, size - int(described["last"])), size)
    first = int(described["first"])
    last = min(int(described["last"] or size), size - 1)
    return range(first, last + 1) if first <= last else None


def _read(path: Path, wanted: range) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(wanted.start)
        left = len(wanted)
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk


def _xml(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer.of_bytes(text.encode(), status, "application/xml", headers=headers or {})
