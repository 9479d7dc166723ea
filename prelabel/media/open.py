"""A task's media, opened by the reader that is right for them, in this process or in one of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media
from prelabel.errors import FrameCountError, MachineError, ReadError
from prelabel.media.choose import CPU_READERS, build_reader, choose_reader
from prelabel.media.isolation.process import CAN_ISOLATE
from prelabel.media.isolation.reader import IsolatedReader
from prelabel.media.select import ReaderChoice
from prelabel.plugins.protocols import VideoReader


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """Media that can be read now.

    Attributes:
        reader: entered.
        choice: which reader it is.
        keyframes: int64 (K,), frames that decode on their own; None where the config does not ask for them.
    """

    reader: VideoReader
    choice: ReaderChoice
    keyframes: NDArray[np.int64] | None


@contextmanager
def open_media(media: Media, section: ReaderSection, folder: Path) -> Iterator[OpenMedia]:
    """Opens media as the config asks.

    A reader that decodes on the CPU works in a process of its own, where a crash or a hang costs one task. One that
    decodes on a GPU does so only if the config says `isolate: always`: its frames would have to leave the GPU.

    Args:
        media: files on this machine.
        section: the config's.
        folder: what plug-in paths are relative to.

    Raises:
        ReadError: they cannot be opened.
        SetupError: the reader is not there, or this machine lacks what it needs.
    """
    from prelabel.media.select import count_gpus, probe_machine

    machine = probe_machine() if section.use == "auto" else None
    choice = keyframes = None
    never = section.isolate == "never" or (section.isolate == "auto" and not CAN_ISOLATE)
    may_use_gpu = section.device != "cpu" and count_gpus() > 0
    if never or (section.isolate == "auto" and may_use_gpu):
        choice, keyframes = choose_reader(media, section, machine)
        if never or (choice.device != "cpu" and choice.use not in CPU_READERS):
            with build_reader(choice, media, section, folder) as reader:
                yield OpenMedia(reader, choice, keyframes)
            return
    if not CAN_ISOLATE:
        raise MachineError("reader.isolate: got 'always', which needs Linux (memfd_create): set isolate: auto")
    with IsolatedReader(media, section, folder, machine, choice) as isolated:
        yield OpenMedia(isolated, isolated.choice, isolated.keyframes if choice is None else keyframes)


def read_in_order(
    reader: VideoReader, wanted: NDArray[np.int64], batch_size: int, title: str
) -> Generator[FrameBatch, None, None]:
    """Yields a reader's batches, having checked that they hold frames that were asked for, in order, none twice.

    Raises:
        FrameCountError: they do not; frame numbers are not to be trusted then.
    """
    last = -1
    for batch in reader.batches(wanted, batch_size):
        if not len(batch) or not _go_on(batch.frame_indices, wanted, last):
            got = np.asarray(batch.frame_indices).tolist()
            raise FrameCountError(f"{title}: after frame {last} the reader gave {got}, expected asked frames, rising")
        last = int(batch.frame_indices[-1])
        size, expected = batch.data.shape[2:0:-1], reader.info.sizes(batch.frame_indices)
        if (expected != size).any():
            raise ReadError(
                f"{title}: frame {last} has {tuple(size)} pixels, the reader promised {expected[-1].tolist()}"
            )
        yield batch
        del batch


def _go_on(numbers: NDArray[np.int64], wanted: NDArray[np.int64], last: int) -> bool:
    """Tells whether these rise from after `last` on and are all wanted: `np.isin` takes long for a picture's one."""
    numbers = np.asarray(numbers)
    if numbers[0] <= last or numbers[-1] > wanted[-1] or (numbers[1:] <= numbers[:-1]).any():
        return False
    return bool((wanted[np.searchsorted(wanted, numbers)] == numbers).all())
