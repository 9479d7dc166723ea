"""Frames a batch by the frames' size: found by the thread that detects, awaited by the one that decodes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future


class BatchSizes:
    """Asks the detector once for each size of frames, on its own thread.

    Args:
        fit: gives the frames a batch for a height and a width in pixels; None: `default` holds for all.
        default: frames a batch.
    """

    def __init__(self, fit: Callable[[int, int], int] | None, default: int) -> None:
        self._fit, self._default = fit, default
        self._lock = threading.Lock()
        self._sizes: dict[tuple[int, int], Future[int]] = {}
        self._is_closed = False

    def find(self, height: int, width: int) -> None:
        """Finds the frames a batch unless they are known; what goes wrong is raised where they are awaited."""
        if self._fit is None:
            return
        future = self._future(height, width)
        if future.done():
            return
        try:
            future.set_result(self._fit(height, width))
        except Exception as error:  # handed to who waits; the next video asks anew
            with self._lock:
                del self._sizes[height, width]
            future.set_exception(error)

    def wait(self, height: int, width: int) -> int:
        """Returns the frames a batch as soon as they are found.

        Raises:
            CancelledError: nobody will find them any more.
        """
        return self._default if self._fit is None else self._future(height, width).result()

    def close(self) -> None:
        """Lets nobody wait any longer."""
        with self._lock:
            self._is_closed = True
            for future in self._sizes.values():
                future.cancel()

    def _future(self, height: int, width: int) -> Future[int]:
        with self._lock:
            future = self._sizes.setdefault((height, width), Future())
            if self._is_closed:
                future.cancel()
            return future
