"""Opens a task's media, selects frames and reads them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import ReaderSection
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.errors import FrameCountError, MachineError, ReadError, raised_as
from prelabel.media.choose import CPU_READERS, ReaderChoice, build_reader, choose_reader, count_gpus, probe_machine
from prelabel.media.cuda import Inspect, to_device
from prelabel.media.isolation.process import CAN_ISOLATE, start_process_ahead
from prelabel.media.isolation.reader import IsolatedReader
from prelabel.plugins.protocols import VideoReader

FramePolicy = Literal["strict", "warn"]


@dataclass(slots=True)
class OpenFrames:
    """Open media, and the frames that the config selects.

    Attributes:
        title: what errors call the media.
        info: the media as displayed; valid after the reader is closed.
        reader: entered.
        choice: the reader's name, and why it was chosen.
        wanted: int64 (M,), selected frame numbers, rising.
        policy: `strict`: a missing frame is an error; `warn`: missing frames are skipped.
        problems: descriptions of what is missing; filled while frames are read under `warn`.
        decode_seconds: time spent in the reader so far.
    """

    title: str
    info: VideoInfo
    reader: VideoReader
    choice: ReaderChoice
    wanted: NDArray[np.int64]
    policy: FramePolicy
    problems: list[str] = field(default_factory=list)
    decode_seconds: float = 0.0

    @property
    def partial(self) -> str | None:
        """A description of what is missing; None if nothing is."""
        return "; ".join(self.problems) or None

    def batches(
        self,
        wanted: NDArray[np.int64],
        batch_size: int,
        *,
        device: str | None = None,
        inspect: Inspect | None = None,
    ) -> Generator[FrameBatch, None, None]:
        """Yields the requested frames in order, each once.

        Args:
            wanted: int64 (M,), frame numbers, rising.
            batch_size: frames per batch.
            device: GPU to copy the frames to; None: they are not copied.
            inspect: called with each batch before it is yielded.

        Raises:
            FrameCountError: the reader returned frames that were not requested, under any policy.
            ReadError: frames are missing, and the policy is `strict` or none could be read.
        """
        num_read = 0
        try:
            with closing(to_device(self._checked(wanted, batch_size), device, inspect)) as batches:
                while (batch := self._timed_next(batches)) is not None:
                    num_read += len(batch)
                    yield batch
                    del batch  # a reader reuses the memory as soon as nothing refers to the batch
        except FrameCountError:
            raise
        except ReadError as error:
            if self.policy == "strict" or not num_read:
                raise
            self.problems.append(str(error))
            return
        if num_read < len(wanted):
            problem = f"the reader ended before frame {wanted[num_read]}, after {num_read} of {len(wanted)} frames"
            if self.policy == "strict" or not num_read:
                raise FrameCountError(f"{self.title}: {problem}")
            self.problems.append(problem)

    def _timed_next(self, batches: Iterator[FrameBatch]) -> FrameBatch | None:
        began = time.perf_counter()
        with raised_as(ReadError, f"{self.title}: the reader", Exception):
            batch = next(batches, None)
        self.decode_seconds += time.perf_counter() - began
        return batch

    def _checked(self, wanted: NDArray[np.int64], batch_size: int) -> Generator[FrameBatch, None, None]:
        """Yields the reader's batches, after checking that they hold wanted frames in order, none twice."""
        last = -1
        for batch in self.reader.batches(wanted, batch_size):
            if not len(batch) or not _follows(batch.frame_indices, wanted, last):
                got = batch.frame_indices.tolist()
                raise FrameCountError(
                    f"{self.title}: after frame {last} the reader gave {got}, expected wanted frames in order"
                )
            last = int(batch.frame_indices[-1])
            size, expected = batch.shape[2:0:-1], self.info.sizes(batch.frame_indices)
            if (expected != size).any():
                raise ReadError(
                    f"{self.title}: frame {last} has {tuple(size)} pixels, the reader promised {expected[-1].tolist()}"
                )
            yield batch
            del batch


def _follows(numbers: NDArray[np.int64], wanted: NDArray[np.int64], last: int) -> bool:
    """Returns whether frame numbers rise, come after `last`, and are all wanted."""
    if numbers[0] <= last or numbers[-1] > wanted[-1] or (numbers[1:] <= numbers[:-1]).any():
        return False
    # Both are sorted. `np.isin` would sort again, which takes longer than decoding one image.
    return bool((wanted[np.searchsorted(wanted, numbers)] == numbers).all())


@contextmanager
def open_frames(
    media: Media,
    section: ReaderSection,
    folder: Path,
    policy: FramePolicy = "strict",
    promised_frames: int | None = None,
    title: str = "",
) -> Iterator[OpenFrames]:
    """Opens media and selects the frames that the config asks for.

    Under `warn`, frames past the promised number are not selected.

    Args:
        media: files on this machine.
        section: the config's section `reader`.
        folder: plug-in paths are relative to it.
        policy: what to do if frames are missing.
        promised_frames: number of frames that the platform states; None if unknown.
        title: what errors call the media; default: the file's name.

    Raises:
        ReadError: the media cannot be opened, or no frame is selected.
        FrameCountError: the number of frames is not the promised one, under `strict`.
        SetupError: the reader does not exist, or this machine lacks what it needs.
    """
    title = title or media.paths[0].name
    with ExitStack() as stack:
        with raised_as(ReadError, f"{title}: the reader", Exception):
            reader, choice, keyframes = stack.enter_context(_open_reader(media, section, folder))
        info = reader.info
        num_frames, problems = info.num_frames, []
        if promised_frames not in (None, num_frames):
            problem = f"the file has {num_frames} frames, the platform says {promised_frames}"
            if policy == "strict":
                raise FrameCountError(f"{title}: {problem}")
            problems.append(problem)
            num_frames = min(num_frames, promised_frames)
        wanted = select_frames(num_frames, keyframes, section)
        if num_frames and not len(wanted):
            raise ReadError(
                f"{title}: none of its {num_frames} frames is selected: see reader.frame_ranges and only_keyframes"
            )
        yield OpenFrames(title, info, reader, choice, wanted, policy, problems)


@contextmanager
def _open_reader(
    media: Media, section: ReaderSection, folder: Path
) -> Iterator[tuple[VideoReader, ReaderChoice, NDArray[np.int64] | None]]:
    """Yields an entered reader, its choice, and the keyframes if the config asks for `only_keyframes`.

    A reader on the CPU runs in a separate process, so that a crash or a hang fails one task only. A reader on a GPU
    does so only under `isolate: always`, because its frames then pass through host memory.
    """
    machine = probe_machine() if section.use == "auto" else None
    choice = keyframes = None
    isolation = _isolation(section)
    if isolation != "always":
        choice, keyframes = choose_reader(media, section, machine)
        if isolation == "never" or (choice.device != "cpu" and choice.use not in CPU_READERS):
            with build_reader(choice, media, section, folder) as reader:
                yield reader, choice, keyframes
            return
    if not CAN_ISOLATE:
        raise MachineError("reader.isolate: got 'always', which needs Linux (memfd_create): set isolate: auto")
    with IsolatedReader(media, section, folder, machine, choice) as isolated:
        yield isolated, isolated.choice, isolated.keyframes if choice is None else keyframes


def start_reading(section: ReaderSection) -> None:
    """Starts the process that will decode, if it is certain that one will; it then starts while the model loads."""
    if CAN_ISOLATE and _isolation(section) == "always":
        start_process_ahead()


def _isolation(section: ReaderSection) -> Literal["never", "always", "on_cpu"]:
    """Returns which media are read in a separate process: none, all, or those that are decoded on the CPU."""
    if section.isolate != "auto":
        return section.isolate
    if not CAN_ISOLATE:
        return "never"
    return "on_cpu" if section.device != "cpu" and count_gpus() > 0 else "always"


def select_frames(num_frames: int, keyframes: NDArray[np.int64] | None, section: ReaderSection) -> NDArray[np.int64]:
    """Returns the frame numbers that a config selects, int64 (M,), rising.

    Args:
        num_frames: frames of the media.
        keyframes: int64 (K,), frames that decode alone; None: all frames do.
        section: `frame_ranges` first, then `only_keyframes`, then every `stride`-th of the rest, by frame number.

    >>> select_frames(10, None, ReaderSection(stride=3, frame_ranges=((2, 8),))).tolist()
    [3, 6]
    """
    wanted = np.zeros(num_frames, bool)
    for first, last in section.frame_ranges or ((0, num_frames),):
        wanted[first : last + 1] = True
    if section.only_keyframes and keyframes is not None:
        is_keyframe = np.zeros(num_frames, bool)
        is_keyframe[keyframes[keyframes < num_frames]] = True
        return np.flatnonzero(wanted & is_keyframe)[:: section.stride].astype(np.int64)
    wanted[np.arange(num_frames) % section.stride != 0] = False
    return np.flatnonzero(wanted).astype(np.int64)
