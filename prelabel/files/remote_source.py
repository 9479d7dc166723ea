"""The source of tasks from files in buckets and behind links. Each file is downloaded while its task is worked on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import requests

from prelabel.data.frames import FileLink, Media, MediaLocation
from prelabel.errors import AccountError, ConfigError, OutageError
from prelabel.files.listed_files import FileTask, ListedFiles
from prelabel.files.media_files import kind_to_read, suffix_kind
from prelabel.plugins.protocols import Task
from prelabel.runtime.buckets import Address, BucketFile, find_object, list_objects
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import RefusedRedirectError, download, get_following, session_for_links

_TIMEOUTS = (20.0, 60.0)
"""To connect, and without a byte, in seconds."""


@dataclass(frozen=True, slots=True)
class RemoteTask(FileTask):
    """A task for one file that is not on this machine.

    Its identity is size and time of the last change; of a link, size and ETag.

    Attributes:
        file: an object in a bucket, or a link.
        cache: holds the file while it is in use.
    """

    file: BucketFile | FileLink
    cache: DiskCache = field(repr=False, compare=False)

    @contextmanager
    def open(self) -> Iterator[Media]:
        """Downloads the file, and deletes it when the context ends.

        Raises:
            FetchError: the file could not be downloaded completely, or has changed since it was listed.
            ReadError: it holds images that no reader would show.
        """
        with self.cache.room(self.file.num_bytes or 0, self.title) as folder:
            path, file = folder / f"media{self.file.suffix}", self.file
            if isinstance(file, BucketFile):
                file.download(path, self.title)
            else:
                download(lambda: file.url, path, file.num_bytes, self.title, max_bytes=self.cache.max_bytes)
            yield Media(kind_to_read(path), (path,))

    def locate(self) -> MediaLocation:
        """Returns the address of the file. A worker downloads it with the credentials of its own environment."""
        return MediaLocation(None, links=(self.file,))


class RemoteSource(ListedFiles):
    """The videos and images at addresses, in the order of their keys.

    An object that the config names directly is always a task. Below a part of a key, or for a glob, the suffix decides
    whether an object is a video or an image; no object is opened for that. Hidden objects, such as `.DS_Store`, and
    those that earlier runs wrote into `output` are left out.
    """

    def __init__(
        self, addresses: Sequence[Address], output: Address | None, cache: DiskCache, fetch_workers: int
    ) -> None:
        """Lists no objects yet.

        Args:
            addresses: of objects, parts of keys, globs, or links.
            output: the address to which runs upload; None if their files stay on this machine.
            cache: holds the files that are in use.
            fetch_workers: number of files that are downloaded at the same time.

        Raises:
            ConfigError: two links would give tasks of the same name.
        """
        links = Counter(_place(address) for address in {*addresses} if address.is_link)
        if twice := [place for place, num in links.items() if num > 1]:
            name = twice[0].partition("/")[2]
            raise ConfigError(
                f"source.path: several links have the path {name}, and differ only behind the `?`: "
                "their tasks would have the same name. Run each link with its own source.output"
            )
        root = os.path.commonpath([_place(_root_of(address)) for address in addresses])
        super().__init__(addresses, f"{root}/", None if output is None else f"{_place(output)}/")
        self._cache, self.fetch_workers = cache, fetch_workers

    def close(self) -> None:
        """Ends all waiting for disk space, and deletes the downloads. Tasks may be opened again afterwards."""
        self._cache.close()

    def _list_at(self, address: Path | Address) -> Iterator[Task]:
        """Yields a task for each file at an address.

        Raises:
            AccountError: there is no such bucket, or the credentials do not suffice.
        """
        assert isinstance(address, Address)
        if address.is_link:
            link, identity = _find_link(address)
            yield RemoteTask(self._title_of(address), identity, link, self._cache)
            return
        # Hardly any key holds a `*`. But many hold brackets, which are also a glob.
        named = find_object(address) if address.key and "*" not in address.key else None
        if named is not None:
            yield self._task_of(named)
            return
        top, pattern = (address, []) if _is_folder(address) else _split_glob(address)
        for each in list_objects(top, recursive=len(pattern) != 1):
            parts = each.address.key.removeprefix(f"{top.key}/" if top.key else "").split("/")
            if any(part.startswith(".") for part in parts) or not _matches(parts, pattern or ["**"]):
                continue
            if self._is_of_earlier_runs(_place(each.address)):
                continue
            if suffix_kind(each.suffix) is None or "" in parts:  # pyarrow (26.0) cannot open a key with an empty part
                self._left_out.append(PurePosixPath(each.address.key))
            else:
                yield self._task_of(each)

    def _task_of(self, file: BucketFile) -> RemoteTask:
        identity = f"{file.num_bytes}:{file.modified_seconds}"
        return RemoteTask(self._title_of(file.address), identity, file, self._cache)

    def _title_of(self, address: Address) -> str:
        title = _place(address).removeprefix(self._root.removesuffix("/")).lstrip("/")
        return title or PurePosixPath(address.key).name


def _is_folder(address: Address) -> bool:
    """Returns whether objects are below a key that could also be a glob because of its brackets."""
    could_be_both = "[" in address.key and not set("*?") & set(address.key)
    return could_be_both and next(list_objects(address, recursive=True), None) is not None


def _find_link(address: Address) -> tuple[FileLink, str]:
    """Returns the file behind a link, and a text that changes when the file does.

    Raises:
        AccountError: there is no such file, or the link does not work.
    """
    try:
        with session_for_links() as session, get_following(session, address.url, {}, _TIMEOUTS) as response:
            status, headers = response.status_code, response.headers
    except RefusedRedirectError as error:
        raise AccountError(f"{address}: {error}") from None
    except requests.RequestException as error:  # its text holds the whole link
        raise OutageError(f"{address}: the server does not answer ({type(error).__name__})") from None
    if status != requests.codes.ok:
        raise AccountError(f"{address}: the server answers HTTP {status}, expected 200: correct or renew the link")
    length = headers.get("Content-Length", "")
    identity = f"{length}:{headers.get('ETag') or headers.get('Last-Modified', '')}"
    return FileLink(address.url, int(length) if length.isdecimal() else None, address.suffix), identity


def _split_glob(address: Address) -> tuple[Address, list[str]]:
    """Returns the address before the first wildcard, and the parts of the key from there on."""
    parts = address.key.split("/")
    num = next((place for place, part in enumerate(parts) if has_magic(part)), len(parts))
    return address.at("/".join(parts[:num])), parts[num:]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Returns whether the parts of a key match those of a glob; `**` matches any number of parts.

    >>> _matches(["a", "b", "c.mp4"], ["**", "*.mp4"]), _matches(["a", "c.mp4"], ["*.mp4"])
    (True, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[num:], pattern[1:]) for num in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _root_of(address: Address) -> Address:
    """Returns the address to which titles are relative."""
    top, pattern = _split_glob(address)
    is_file = address.is_link or suffix_kind(address.suffix) is not None
    return address.at(address.key.rpartition("/")[0]) if is_file and not pattern else top


def _place(address: Address) -> str:
    """Returns an address as a path, to compare it with others."""
    key = unquote(address.key.partition("?")[0]) if address.is_link else address.key
    return f"{address.scheme}/{address.root}/{key}".rstrip("/")
