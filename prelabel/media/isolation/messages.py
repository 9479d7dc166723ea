"""What the run and the process that decodes say to each other, over a Unix socket.

Commands go as pickles. Answers go as checked JSON, since they come from the process that takes strangers' files apart;
the pixels do not go at all: they lie in memory that both processes see.
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
    """With what to open media; the reader is chosen unless `choice` names it."""

    section: ReaderSection
    folder: Path
    choice: ReaderChoice | None
    machine: MachineFacts | None

    def pack(self) -> bytes:
        """Returns it as `Open` takes it."""
        return pickle.dumps(self)


@functools.lru_cache(maxsize=1)
def unpack_setup(packed: bytes) -> Setup:
    """Returns what was packed. It is the same for media after media: one that is known is not taken apart again."""
    setup: Setup = pickle.loads(packed)
    return setup


@dataclass(frozen=True, slots=True)
class Open:
    """Open the media, with a packed `Setup`."""

    media: Media
    setup: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Begin to read these frames, and give the first batch; the memory of `freed` may be used again."""

    frame_indices: NDArray[np.int64]
    batch_size: int
    freed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Next:
    """Give the next batch; the memory of `freed` may be used again."""

    freed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """Close the reader, and the reading that is under way."""


Command = Open | Read | Next | Close


@dataclass(frozen=True, slots=True)
class Opened:
    """The media are open.

    Attributes:
        info: the video as it is shown.
        choice: the reader.
        keyframes: frames that decode on their own; None where the config does not ask for them.
    """

    info: VideoInfo
    choice: ReaderChoice
    keyframes: tuple[int, ...] | None
    kind: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames that lie in shared memory.

    Attributes:
        memory: which memory; its handle comes along the first time.
        shape: (N, H, W, 3) of bytes from the memory's beginning.
        frame_indices: as in `FrameBatch`.
        pts_seconds: as in `FrameBatch`.
        dropped: memory that is not used any more.
        is_last: the reading is over.
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
    """The command is carried out; to `Read` and `Next`: there are no more batches."""

    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Failed:
    """The command raised. `error` is a class of `prelabel.errors`, empty for any other exception."""

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
        OSError: nobody listens any more.
    """
    _send(connection, pickle.dumps(command), None)


def receive_command(connection: socket.socket) -> Command:
    """Returns the next command.

    Raises:
        EOFError: the run has gone.
    """
    body, _ = _receive(connection)
    command: Command = pickle.loads(body)
    return command


def send_answer(connection: socket.socket, answer: Answer, handle: int | None = None) -> None:
    """Sends an answer, and with it a file handle if there is one."""
    _send(connection, _ANSWER.dump_json(answer), handle)


def receive_answer(connection: socket.socket) -> tuple[Answer, int | None]:
    """Returns the next answer and the file handle that came with it, which is the caller's to close.

    Raises:
        EOFError: the process has gone, or does not make sense any more.
    """
    body, handle = _receive(connection)
    try:
        return _ANSWER.validate_json(body), handle
    except ValidationError as error:
        if handle is not None:
            os.close(handle)
        raise EOFError("an answer that makes no sense") from error


def _send(connection: socket.socket, body: bytes, handle: int | None) -> None:
    # In one piece where it fits: who waits for it is woken once.
    message = _LENGTH.pack(len(body)) + body
    sent = 0 if handle is None else socket.send_fds(connection, [message], [handle])
    connection.sendall(memoryview(message)[sent:])


def _receive(connection: socket.socket) -> tuple[bytes, int | None]:
    """Returns a message and the handle that came with it. Nothing is sent after one before it is answered."""
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
