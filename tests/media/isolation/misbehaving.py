"""A reader that misbehaves on demand: `use: tests.media.isolation.misbehaving:Misbehaving`, `how: segfault`."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from prelabel import FrameBatch, Media, VideoInfo

INFO = VideoInfo(width=8, height=4, num_frames=10, average_fps=10.0, duration_seconds=1.0)


def _grow() -> None:
    kept = []
    while True:
        kept.append(np.ones(40_000_000, np.uint8))
        time.sleep(0.05)  # else it would have taken far more than it may by the time that somebody looks


def _raise() -> None:
    raise RuntimeError("out of luck")


EVENTS: dict[str, Callable[[], object]] = {
    "hang": lambda: time.sleep(600),
    "hang with the interpreter locked": lambda: ctypes.PyDLL(None).sleep(600),
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(3),
    "raise": _raise,
    "grow": _grow,
}
FRAMES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "twice": lambda indices: np.maximum(indices - 1, 0),
    "other frames": lambda indices: indices + 100,
    "none": lambda indices: indices[:0],
}


class Misbehaving:
    """Frame i is filled with i; from frame `at` on it does what `how` says, while it is opened if `at` is -1.

    Before that it writes the id of its process to the file `begun`.
    """

    def __init__(self, media: Media, how: str = "", at: int = 4, device: str = "auto", begun: str = os.devnull):
        self.how, self.at, self.begun = how, at, Path(begun)
        self.info = INFO

    def __enter__(self) -> Self:
        if self.at < 0:
            EVENTS[self.how]()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self.how == "hang at the end":
            self.begun.write_text(str(os.getpid()))
            time.sleep(600)

    def batches(self, frame_indices: np.ndarray, batch_size: int) -> Iterator[FrameBatch]:
        for start in range(0, len(frame_indices), batch_size):
            indices = frame_indices[start : start + batch_size]
            size = (4, 8)
            if self.at >= 0 and (indices >= self.at).any():
                if self.how == "end early":
                    return
                if self.how == "other size":
                    size = (8, 4)
                if self.how in EVENTS:
                    self.begun.write_text(str(os.getpid()))
                    EVENTS[self.how]()
                indices = FRAMES.get(self.how, lambda asked: asked)(indices)
            data = np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), *size, 3))
            yield FrameBatch(np.ascontiguousarray(data), indices, indices / 10.0)
        if self.how == "raise at the end":
            _raise()
        if self.how == "one more":
            yield FrameBatch(np.zeros((1, 4, 8, 3), np.uint8), np.array([INFO.num_frames]), np.zeros(1))
