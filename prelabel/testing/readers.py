"""The contract of readers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from prelabel.data.frames import Media
from prelabel.errors import PrelabelError
from prelabel.plugins.protocols import VideoReader


def check_reader(
    make_reader: Callable[[Media], VideoReader], media: Media, *, truth: NDArray[np.uint8] | None = None
) -> None:
    """Checks that a reader keeps its contract: the asked frames, in order, the same however they are asked for.

    Args:
        make_reader: builds a fresh reader of the media, not yet entered.
        media: a video, or pictures, of three frames or more, undamaged.
        truth: uint8 (N, H, W, 3), RGB, every frame as it is displayed; to be met exactly.

    Raises:
        AssertionError: says what is wrong.
    """
    with make_reader(media) as reader:
        num_frames = reader.info.num_frames
        assert num_frames >= 3, f"info.num_frames: got {num_frames}, expected a video of 3 frames or more"
    whole = _read_frames(make_reader, media, np.arange(num_frames), batch_size=4)
    if truth is not None:
        assert len(truth) == num_frames, f"info.num_frames: got {num_frames}, expected {len(truth)}"
        for number, frame in whole.items():
            assert np.array_equal(frame, truth[number]), f"frame {number} differs from the truth"
    selections = {
        "read a second time": (np.arange(num_frames), num_frames + 1),
        "every third": (np.arange(1, num_frames, 3), 2),
        "the last ones": (np.arange(num_frames * 2 // 3, num_frames), 3),
        "one by one": (np.arange(0, num_frames, 2), 1),
        "the last one": (np.array([num_frames - 1]), 2),
        "none": (np.zeros(0, np.int64), 2),
    }
    for how, (wanted, batch_size) in selections.items():
        for number, frame in _read_frames(make_reader, media, wanted, batch_size).items():
            assert np.array_equal(frame, whole[number]), f"frame {number} differs from the first reading: {how}"
    _check_refuses(make_reader, media, np.array([num_frames]), "a frame after the last")
    _check_refuses(make_reader, media, np.array([1, 0]), "frames that fall")


def _read_frames(
    make_reader: Callable[[Media], VideoReader], media: Media, wanted: NDArray[np.int64], batch_size: int
) -> dict[int, NDArray[np.uint8]]:
    """Returns the frames by number, having checked their batches."""
    frames: dict[int, NDArray[np.uint8]] = {}
    numbers: list[int] = []
    last_seconds = -np.inf
    with make_reader(media) as reader:
        for batch in reader.batches(wanted, batch_size):
            where = f"batch of frames {batch.frame_indices.tolist()}"
            assert 1 <= len(batch) <= batch_size, f"{where}: got {len(batch)}, expected 1 to {batch_size}"
            height, width = batch.data.shape[1:3]
            sizes = reader.info.sizes(batch.frame_indices)
            assert (sizes == (width, height)).all(), f"{where}: got {width} x {height}, info says {sizes.tolist()}"
            full = len(batch) == batch_size or bool(reader.info.frame_sizes)
            assert full or batch.frame_indices[-1] == wanted[-1], f"{where}: only the last batch may be smaller"
            assert batch.pts_seconds[0] >= last_seconds, f"{where}: pts_seconds goes back"
            assert (np.diff(batch.pts_seconds) >= 0).all(), f"{where}: pts_seconds goes back"
            last_seconds = batch.pts_seconds[-1]
            numbers += batch.frame_indices.tolist()
            frames |= zip(batch.frame_indices.tolist(), batch.data.cpu().numpy().copy(), strict=True)
    assert numbers == wanted.tolist(), f"asked for frames {wanted.tolist()}, got {numbers}: a stream must not end short"
    return frames


def _check_refuses(
    make_reader: Callable[[Media], VideoReader], media: Media, wanted: NDArray[np.int64], what: str
) -> None:
    with make_reader(media) as reader:
        try:
            for _ in reader.batches(wanted, 2):
                pass
        except (ValueError, IndexError, PrelabelError):
            return
    raise AssertionError(f"batches({wanted.tolist()}): asked for {what}, got no error")
