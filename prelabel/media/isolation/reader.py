"""Runs a reader in a separate process, so that a decoder that crashes or hangs fails only one task."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from prelabel import errors
from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import PrelabelError, ReadError
from prelabel.media.choose import ReaderChoice
from prelabel.media.isolation.messages import (
    Answer,
    Batch,
    Close,
    Command,
    Done,
    Failed,
    Next,
    Open,
    Opened,
    Read,
    Setup,
)
from prelabel.media.isolation.process import Limits, ProcessLostError, ReaderProcess, niceness, reader_process

if TYPE_CHECKING:
    from prelabel.media.choose import MachineFacts


class IsolatedReader:
    """Reads media in a separate process. Frames that were decoded on a GPU pass through host memory.

    Args:
        media: files on this machine.
        section: the config's section `reader`.
        folder: plug-in paths are relative to it.
        machine: its decoders; None if the config names the reader.
        choice: the reader; None: the process chooses it, because that means parsing the file.
    """

    def __init__(
        self,
        media: Media,
        section: ReaderSection,
        folder: Path,
        machine: MachineFacts | None,
        choice: ReaderChoice | None = None,
    ) -> None:
        # The process may have been started in another working directory.
        here = Media(media.kind, tuple(path.absolute() for path in media.paths))
        self._command = Open(here, Setup(section, folder.absolute(), choice, machine).pack(), niceness())
        self._name = media.paths[0].name
        self._limits = Limits(section.stall_seconds, section.max_memory_gb * 1e9)
        self._open = ExitStack()
        self._parts: tuple[ReaderProcess, Opened] | None = None
        self._where = "while it was opened"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            process = stack.enter_context(reader_process(self._limits))
            answer, _ = self._ask(process, self._command)
            if not isinstance(answer, Opened):
                raise self._senseless(answer)
            if answer.choice.use != "images":  # the image reader holds no file open; opening the next media closes it
                stack.callback(self._close, process)
            self._parts = process, answer
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts = None
        self._open.close()

    @property
    def info(self) -> VideoInfo:
        """The video as displayed."""
        return self._opened()[1].info

    @property
    def choice(self) -> ReaderChoice:
        """The reader in the process, and why it was chosen."""
        return self._opened()[1].choice

    @property
    def keyframes(self) -> NDArray[np.int64] | None:
        """Frames that decode alone, int64 (K,); None if the config does not ask for them."""
        alone = self._opened()[1].keyframes
        return None if alone is None else np.array(alone, np.int64)

    @property
    def process_id(self) -> int:
        """The id of the decoding process."""
        return self._opened()[0].pid

    def batches(self, frame_indices: NDArray[np.int64], batch_size: int) -> Generator[FrameBatch, None, None]:
        """Yields the requested frames in order. Each batch is decoded on request. Only one call may be active.

        Raises:
            ReadError: the reader raised it, or its process crashed, hung or used too much memory.
        """
        process, _ = self._opened()
        self._where = "before its first frame"
        frames = process.frames
        command: Read | Next = Read(np.asarray(frame_indices, np.int64), batch_size, frames.take_freed())
        while True:
            answer, handle = self._ask(process, command)
            if isinstance(answer, Done):
                return
            if not isinstance(answer, Batch):
                raise self._senseless(answer)
            if answer.frame_indices:
                self._where = f"after frame {answer.frame_indices[-1]}"
            yield FrameBatch(
                frames.frames(answer, handle),
                np.array(answer.frame_indices, np.int64),
                np.array(answer.pts_seconds, np.float64),
            )
            if answer.is_last:
                return
            command = Next(frames.take_freed())

    def _opened(self) -> tuple[ReaderProcess, Opened]:
        if self._parts is None:
            raise ValueError("the reader is not open: read inside `with`")
        return self._parts

    def _ask(self, process: ReaderProcess, command: Command) -> tuple[Answer, int | None]:
        try:
            answer, handle = process.ask(command, self._limits)
        except ProcessLostError as error:
            raise ReadError(
                f"{self._name}: {self._where}: the process that decodes it {error}; if this file does it every time, "
                "convert it (ffmpeg -i in.mp4 out.mp4) or try another reader.use"
            ) from None
        if isinstance(answer, Failed):
            raise self._error(answer)
        return answer, handle

    def _close(self, process: ReaderProcess) -> None:
        if process.is_alive:
            with suppress(ProcessLostError):  # all frames were received, so this error does not matter
                process.ask(Close(), self._limits)

    def _error(self, answer: Failed) -> PrelabelError:
        kind = getattr(errors, answer.error, None)
        if isinstance(kind, type) and issubclass(kind, PrelabelError):
            return kind(answer.text)
        return ReadError(f"{self._name}: {self._where}: the reader raised {answer.text}")

    def _senseless(self, answer: Answer) -> ReadError:
        return ReadError(f"{self._name}: {self._where}: the process that decodes it answered with {answer.kind!r}")
