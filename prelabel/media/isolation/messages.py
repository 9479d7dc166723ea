"""Messages between the run and the decoding process, over a Unix socket.

Commands are pickled. Answers are validated JSON, because they come from the process that parses untrusted files. Pixels
are not sent: they lie in shared memory.
"""

from __future__ import annotations

import functools
import os
import pickle
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from prelabel.data.frames import VideoInfo
from prelabel.media.choose import ReaderChoice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prelabel.config.sections import ReaderSection
    from prelabel.data.frames import Media
    from prelabel.media.choose import MachineFacts


_LENGTH = struct.Struct("!Q")
_RECEIVED_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Setup:
    """The settings for opening media; `choice` is the reader, or None to choose one."""

    section: ReaderSection
    folder: Path
    choice: ReaderChoice | None
    machine: MachineFacts | None

    def pack(self) -> bytes:
        """Returns the setup as bytes for `Open`."""
        return pickle.dumps(self)


@functools.lru_cache(maxsize=1)
def unpack_setup(packed: bytes) -> Setup:
    """Returns the unpacked setup. It is cached, because most media of a run have the same one."""
    setup: Setup = pickle.loads(packed)
    return setup


@dataclass(frozen=True, slots=True)
class Open:
    """A command: open the media with a packed `Setup`, and decode them at this niceness."""

    media: Media
    setup: bytes
    niceness: int


@dataclass(frozen=True, slots=True)
class Read:
    """A command: start reading these frames and return the first batch; the memory in `freed` may be reused."""

    frame_indices: NDArray[np.int64]
    batch_size: int
    freed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Next:
    """A command: return the next batch; the memory in `freed` may be reused."""

    freed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """A command: stop reading and close the reader."""


Command = Open | Read | Next | Close


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer: the media are open.

    Attributes:
        info: the video as displayed.
        choice: the reader, and why it was chosen.
        keyframes: frames that decode alone; None if the config does not ask for them.
    """

    info: VideoInfo
    choice: ReaderChoice
    keyframes: tuple[int, ...] | None
    kind: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True)
class Batch:
    """An answer: frames in shared memory.

    Attributes:
        memory: number of the memory; its handle is sent with its first batch.
        shape: (N, H, W, 3) of the uint8 pixels at the start of the memory.
        frame_indices: as in `FrameBatch`.
        pts_seconds: as in `FrameBatch`.
        dropped: numbers of memory that is no longer used.
        is_last: there are no more batches.
    """

    memory: int
    shape: tuple[int, int, int, int]
    frame_indices: tuple[int, ...]
    pts_seconds: tuple[float, ...]
    dropped: tuple[int, ...]
    is_last: bool = False
    kind: Literal["batch"] = "batch"


@dataclass(frozen=True, slots=True)
class Done:
    """An answer: the command was carried out; for `Read` and `Next`, there are no more batches."""

    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Failed:
    """An answer: the command raised. `error` is a class of `prelabel.errors`, empty for any other exception."""

    error: str
    text: str
    kind: Literal["failed"] = "failed"


Answer = Opened | Batch | Done | Failed
_ANSWER: TypeAdapter[Answer] = TypeAdapter(
    Annotated[Answer, Field(discriminator="kind")], config=ConfigDict(ser_json_inf_nan="constants")
)


def send_command(connection: socket.socket, command: Command) -> None:
    """Sends a command.

    Raises:
        OSError: the process has ended.
    """
    _send(connection, pickle.dumps(command), None)


def receive_command(connection: socket.socket) -> Command:
    """Returns the next command.

    Raises:
        EOFError: the run has ended.
    """
    body, _ = _receive(connection)
    command: Command = pickle.loads(body)
    return command


def send_answer(connection: socket.socket, answer: Answer, handle: int | None = None) -> None:
    """Sends an answer, with a file handle if there is one."""
    _send(connection, _ANSWER.dump_json(answer), handle)


def receive_answer(connection: socket.socket) -> tuple[Answer, int | None]:
    """Returns the next answer and the file handle sent with it, which the caller must close.

    Raises:
        EOFError: the process has ended, or its answer is invalid.
    """
    body, handle = _receive(connection)
    try:
        return _ANSWER.validate_json(body), handle
    except ValidationError as error:
        if handle is not None:
            os.close(handle)
        raise EOFError("an answer that makes no sense") from error


def _send(connection: socket.socket, body: bytes, handle: int | None) -> None:
    # Sent in one call where it fits, so that the receiver wakes only once.
    message = _LENGTH.pack(len(body)) + body
    sent = 0 if handle is None else socket.send_fds(connection, [message], [handle])
    connection.sendall(memoryview(message)[sent:])


def _receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Returns a message and its handle. Each message is answered before the next, so no extra bytes arrive."""
    message, handles, _, _ = socket.recv_fds(connection, _RECEIVED_AT_ONCE, 1)
    if not message:
        raise EOFError
    message += _receive_exactly(connection, _LENGTH.size - len(message))
    (num_bytes,) = _LENGTH.unpack_from(message)
    body = message[_LENGTH.size :]
    return body + _receive_exactly(connection, num_bytes - len(body)), handles[0] if handles else None


def _receive_exactly(connection: socket.socket, num_bytes: int) -> bytes:
    body = bytearray()
    while len(body) < num_bytes:
        part = connection.recv(min(num_bytes - len(body), 1 << 20))
        if not part:
            raise EOFError
        body += part
    return bytes(body)
