"""Objects in buckets of S3, Google Cloud Storage and Azure: addresses, listings, downloads and uploads.

pyarrow sends the requests. Credentials come from the environment of the process, under the names that the clouds' own
tools read. An address holds none, so it can be shown, stored and sent to a worker.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from socket import gethostname
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from prelabel.errors import AccountError, FetchError, OutageError, PrelabelError
from prelabel.runtime.backoff import Backoff

if TYPE_CHECKING:
    from pyarrow import fs

BUCKET_SCHEMES = ("s3", "gs", "abfs", "abfss")
LINK_SCHEMES = ("http", "https")
OPTIONS = ("endpoint_override", "region", "scheme")

CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("AZURE_CLIENT_SECRET", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"),
)
"""Environment variables that hold credentials for buckets."""

_PIECE_BYTES = 8_000_000
_BACKOFF = Backoff(attempts=5, first_seconds=0.2, factor=5.0, max_seconds=15.0)
_GCS_RETRY_SECONDS = 30
"""pyarrow would retry for 15 minutes."""
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://?(?P<root>[^/?]*)(?P<key>.*?)(?:\?(?P<options>[a-z_]+=.*))?"
)
_REGION = re.compile(r"located in '([\w-]+)'")
_REFUSALS = (
    (r"NO_SUCH_BUCKET|bucket does not exist|ContainerNotFound|FilesystemNotFound", "there is no such bucket"),
    (r"HTTP status 301|PermanentRedirect|AuthorizationHeaderMalformed", "the bucket is in another region{region}"),
    (
        r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|ExpiredToken|InvalidAuthenticationInfo|AuthenticationFailed",
        "the storage does not accept the credentials: {credentials}",
    ),
    (
        r"OAuth2 access token|UNAUTHENTICATED|DefaultAzureCredential|AuthenticationException",
        "there are no credentials: {credentials}",
    ),
    (
        r"ACCESS_DENIED|HTTP status 40[13]|PERMISSION_DENIED|Authorization\w*(Failure|Mismatch)|PublicAccess\w+",
        "the credentials give no right to this: {credentials}",
    ),
    (r"compiled without|not built with|No module named|cannot import", "this build of pyarrow has no such file system"),
)
"""What errors of pyarrow 26 mean that another attempt does not mend. pyarrow gives no codes, only text."""
_HINTS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or the machine's role",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login",
    "abfs": "set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or run: az login",
}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of an object, of all objects below a key, or of a file behind a link.

    Attributes:
        scheme: `s3`, `gs`, `abfs`, `abfss`, `http` or `https`.
        root: the bucket; `container@account.dfs.core.windows.net` for Azure; the host of a link.
        key: with `/` between its parts, and literal: `%20` is no space. Of a link, with its query.
        options: how to reach the storage, as in `region=eu-west-1`.
    """

    scheme: str
    root: str
    key: str = ""
    options: str = ""

    @classmethod
    def read(cls, text: str) -> Address | None:
        """Returns the address in a text; None if the text is a path on this machine.

        >>> Address.read("s3://videos/day 1/*.mp4?region=eu-west-1")
        Address(scheme='s3', root='videos', key='day 1/*.mp4', options='region=eu-west-1')
        >>> Address.read("clips/*.mp4")

        Raises:
            ValueError: no address of this kind can be used.
        """
        found = _ADDRESS.fullmatch(text)
        if found is None:
            return None
        scheme, root, key, options = (
            found["scheme"].lower(),
            found["root"],
            found["key"].lstrip("/"),
            found["options"] or "",
        )
        if re.search(":.*@", root):
            raise ValueError(f"the {scheme}:// address holds a password: give credentials in the environment")
        if scheme in LINK_SCHEMES:
            return cls(scheme, root, f"{key}?{options}" if options else key)
        shown = f"{scheme}://{root}"
        if scheme not in BUCKET_SCHEMES:
            known = ", ".join(f"{each}://" for each in (*BUCKET_SCHEMES, "https"))
            raise ValueError(f"{shown} is an address of an unknown kind, expected a path or one of {known}")
        if not root or (scheme.startswith("abfs") and not re.fullmatch(r"[^@]+@[^@.]+\..+", root)):
            whole = "bucket" if not scheme.startswith("abfs") else "container@account.dfs.core.windows.net"
            raise ValueError(f"{shown} names no bucket, expected {scheme}://{whole}/…")
        unknown = [name for name, _ in parse_qsl(options, keep_blank_values=True) if name not in OPTIONS]
        if unknown:
            raise ValueError(f"{shown}: {unknown[0]} is not an option of an address, expected {', '.join(OPTIONS)}")
        return cls(scheme, root, key.rstrip("/"), options)

    def __str__(self) -> str:
        """The address without options, and a link without its query, which may hold a signature."""
        return f"{self.scheme}://{self.root}/{self.key.partition('?')[0] if self.is_link else self.key}"

    @property
    def url(self) -> str:
        """The whole address, as in a config."""
        return f"{self.scheme}://{self.root}/{self.key}" + (f"?{self.options}" if self.options else "")

    @property
    def is_link(self) -> bool:
        """Whether it is the address of a file behind an HTTP server, not in a bucket."""
        return self.scheme in LINK_SCHEMES

    @property
    def suffix(self) -> str:
        """The suffix of the object's name, such as `.mp4`."""
        return PurePosixPath(urlsplit(self.url).path if self.is_link else self.key).suffix

    def at(self, key: str) -> Address:
        """Returns the address of another key in the same bucket."""
        return replace(self, key=key)

    def below(self, name: str) -> Address:
        """Returns the address of a name below this one."""
        return self.at(f"{self.key}/{name}" if self.key else name)


def as_written(path: Path) -> str:
    """Returns a path or an address as people write it, since a `Path` keeps only one slash of an address.

    >>> as_written(Path("s3://videos/a.mp4")), as_written(Path("clips/a.mp4"))
    ('s3://videos/a.mp4', 'clips/a.mp4')
    """
    address = Address.read(str(path))
    return str(path) if address is None else address.url


@dataclass(frozen=True, slots=True)
class BucketFile:
    """An object in a bucket, as plain values, so that another process can download it with its own credentials.

    Attributes:
        address: of the object.
        num_bytes: its size when it was listed.
        modified_seconds: when it was written last, in whole seconds since 1970.
    """

    address: Address
    num_bytes: int
    modified_seconds: int

    @property
    def suffix(self) -> str:
        """The suffix of the object's name, such as `.mp4`."""
        return self.address.suffix

    def download(self, destination: Path, title: str, backoff: Backoff = _BACKOFF) -> None:
        """Downloads the object. After a failed request it goes on from the last byte.

        Args:
            destination: the file to write; it is complete if the method returns.
            title: of the task, for errors.
            backoff: attempts without a new byte, and the waits between them.

        Raises:
            FetchError: the object cannot be downloaded completely, or has changed since it was listed.
        """
        try:
            with destination.open("wb") as file:
                for piece in self._pieces(title, backoff):
                    file.write(piece)
        except OSError as error:
            raise FetchError(f"{title}: {destination.parent} cannot be written: {error.strerror}") from error
        if find_object(self.address, FetchError) != self:
            raise self._changed(title)

    def _pieces(self, title: str, backoff: Backoff) -> Iterator[bytes]:
        """Yields the bytes in order. Each piece is one request."""
        num_bytes, failures, remote = 0, 0, None
        while num_bytes < self.num_bytes:
            try:
                if remote is None:
                    storage, path = _opened(self.address)
                    remote = storage.open_input_file(path)
                piece = remote.read_at(min(_PIECE_BYTES, self.num_bytes - num_bytes), num_bytes)
            except _failures() as error:
                remote, failures = None, failures + 1
                refusal = _refusal(error, self.address)
                if refusal or failures == backoff.attempts:
                    got = f"{num_bytes} of {self.num_bytes} bytes"
                    reason = refusal or _first_line(error)
                    raise FetchError(
                        f"{title}: {self.address}: given up at {got} on {gethostname()}: {reason}"
                    ) from error
                backoff.sleep(backoff.seconds(failures))
                continue
            if not piece:
                raise self._changed(title)
            yield piece
            num_bytes, failures = num_bytes + len(piece), 0

    def _changed(self, title: str) -> FetchError:
        return FetchError(f"{title}: {self.address}: has changed since it was listed: run again")


def find_object(address: Address, failure: type[PrelabelError] | None = None) -> BucketFile | None:
    """Returns the object at an address; None if there is none.

    Raises:
        PrelabelError: the storage does not tell. The class is `failure`, or else as for `list_objects`.
    """
    from pyarrow.fs import FileType

    with _explained(address, failure or AccountError, failure or OutageError):
        storage, path = _opened(address)
        info = storage.get_file_info(path)
    return _file_of(address, info) if info.type == FileType.File else None


def read_object(address: Address) -> bytes | None:
    """Returns the content of a small object; None if there is none.

    Raises:
        PrelabelError: as for `list_objects`.
    """
    with _explained(address, AccountError, OutageError):
        storage, path = _opened(address)
        try:
            with storage.open_input_stream(path, compression=None) as stream:
                content: bytes = stream.read()
                return content
        except FileNotFoundError:
            return None


def list_objects(address: Address, *, recursive: bool) -> Iterator[BucketFile]:
    """Yields the objects below an address, in the order of their keys. Memory grows by half a kilobyte an object.

    Args:
        address: of a bucket or of a part of a key.
        recursive: whether to list what is below further parts of the keys too.

    Raises:
        AccountError: there is no such bucket, or the credentials do not suffice.
        OutageError: the storage does not answer.
    """
    from pyarrow.fs import FileSelector, FileType

    with _explained(address, AccountError, OutageError):
        storage, path = _opened(address)
        found = storage.get_file_info(FileSelector(path, recursive=recursive, allow_not_found=True))
        if not found and storage.get_file_info(path.partition("/")[0]).type == FileType.NotFound:
            raise AccountError(f"{address}: there is no such bucket")
    found.sort(key=lambda info: info.path)
    for info in found:
        if info.type == FileType.File:
            yield _file_of(address.at(info.path.partition("/")[2]), info)


def _file_of(address: Address, info: fs.FileInfo) -> BucketFile:
    # A list of MinIO or Ceph tells fractions of a second; what they tell of one object is in whole seconds.
    return BucketFile(address, info.size, info.mtime_ns // 1_000_000_000)


def upload(path: Path, address: Address, failure: type[PrelabelError]) -> None:
    """Writes a file to a bucket. The object appears complete or not at all.

    Raises:
        PrelabelError: the object cannot be written; the class is `failure`.
    """
    import pyarrow as pa

    # All bytes are at hand before the stream opens. pyarrow (26.0) publishes what a stream got until an exception
    # ended it, so nothing but the storage itself may fail in between.
    content = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else b""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    with _explained(address, failure, failure):
        storage, key = _opened(address)
        if address.scheme.startswith("abfs"):
            # On Azure, pyarrow (26.0) empties an object when it opens the stream. A copy replaces it at once.
            folder, _, name = key.rpartition("/")
            _write(storage, part := f"{folder}/.{name}.part", content, kind)
            storage.copy_file(part, key)
            storage.delete_file(part)
        else:
            _write(storage, key, content, kind)


def _write(storage: fs.FileSystem, key: str, content: Any, kind: str) -> None:
    stream = storage.open_output_stream(key, compression=None, metadata={"Content-Type": kind})
    stream.write(content)
    stream.close()


@cache
def _storage(scheme: str, root: str, options: str) -> tuple[fs.FileSystem, str]:
    """Returns the file system of a bucket, and the path of the bucket in it. Several threads may use it."""
    from pyarrow.fs import FileSystem

    given = dict(parse_qsl(options))
    if scheme.startswith("abfs"):
        return _azure(root, given)
    if scheme == "gs":
        given = {"retry_limit_seconds": str(_GCS_RETRY_SECONDS), **given}
    storage, path = FileSystem.from_uri(f"{scheme}://{root}/?{urlencode(given)}")
    return storage, path.strip("/")


def _azure(root: str, given: dict[str, str]) -> tuple[fs.FileSystem, str]:
    from pyarrow.fs import AzureFileSystem

    container, _, host = root.partition("@")
    endpoint, scheme = given.get("endpoint_override"), given.get("scheme")
    account_key = os.environ.get("AZURE_STORAGE_KEY")
    storage = AzureFileSystem(
        host.partition(".")[0],
        account_key=account_key,
        sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN") if account_key is None else None,
        blob_storage_authority=endpoint,
        dfs_storage_authority=endpoint,
        blob_storage_scheme=scheme,
        dfs_storage_scheme=scheme,
    )
    return storage, container


def _opened(address: Address) -> tuple[fs.FileSystem, str]:
    """Returns the file system of an address, and the address's path in it."""
    storage, bucket = _storage(address.scheme, address.root, address.options)
    return storage, f"{bucket}/{address.key}" if address.key else bucket


def _failures() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return OSError, ImportError, pa.lib.ArrowException


@contextmanager
def _explained(address: Address, refused: type[PrelabelError], failed: type[PrelabelError]) -> Iterator[None]:
    """Raises errors of pyarrow as one line: as `refused` if another attempt does not help, else as `failed`."""
    try:
        yield
    except _failures() as error:
        refusal = _refusal(error, address)
        raise (refused if refusal else failed)(f"{address}: {refusal or _first_line(error)}") from error


def _refusal(error: Exception, address: Address) -> str:
    """Returns what an error means that another attempt does not mend; empty for other errors."""
    text = str(error)
    missing = "there is no such bucket or object" if isinstance(error, FileNotFoundError) else ""
    meaning = next((meaning for pattern, meaning in _REFUSALS if re.search(pattern, text)), missing)
    region = _REGION.search(text)
    where = f", {region[1]}: add ?region={region[1]} to the address" if region else ": add ?region=… to the address"
    return meaning.format(region=where, credentials=_HINTS[address.scheme[:4]])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" (Request ID")[0][:300]
