"""The contract of detectors."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import iou_matrix
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.geometry import Keypoints, Mask, OutputSpec
from prelabel.plugins.protocols import Detector
from prelabel.plugins.traits import has_method, traits_of
from prelabel.testing.classifiers import check_class_names, textured_frames

_SAME_BOX_IOU = 0.9
_SAME_CONFIDENCE = 0.02
_STRAYS_PER_BOX = 0.1  # rounding differs between batch sizes: near a threshold a box may come or go
_TIMES_BESIDE = 3


def check_detector(detector: Detector, frames: NDArray[np.uint8] | None = None) -> None:
    """Checks that a detector keeps its contract: one result a frame, in order, boxes on the frame, known classes.

    What it gives beyond boxes is of the kind that it names; one that waits to be asked for it is asked, too. Twins, of
    one that has them, find the same beside each other.

    Args:
        detector: ready to run.
        frames: uint8 (N, H, W, 3), RGB, at least two that differ, with things on them that the detector finds; by
            default textured noise, on which most detectors find little.

    Raises:
        AssertionError: says what is wrong.
    """
    frames = textured_frames() if frames is None else frames
    check_class_names(detector.class_names)
    if traits_of(detector).output.kind is not None and has_method(detector, "with_geometry"):
        _check_asked(detector.with_geometry(frozenset(range(len(detector.class_names)))), frames)
    together = _detect(detector, frames)
    for frame_number, detections in enumerate(together):
        _check_detections(detections, frames.shape[2], frames.shape[1], len(detector.class_names), frame_number)
        _check_geometry(detections, traits_of(detector).output, frames.shape[2], frames.shape[1], frame_number)
    for frame_number, detections in enumerate(together):
        (alone,) = _detect(detector, frames[frame_number : frame_number + 1])
        _check_same(detections, alone, frame_number)
    # Pictures of one task may differ in size, and no side need be even.
    smaller = np.ascontiguousarray(frames[:1, : frames.shape[1] * 2 // 3 | 1, : frames.shape[2] // 2 | 1])
    of_smaller = _detect(detector, smaller)
    for detections in of_smaller:
        _check_detections(detections, smaller.shape[2], smaller.shape[1], len(detector.class_names), 0)
    replicas = [detector.replicate() for _ in range(2)] if has_method(detector, "replicate") else []
    known = [replica for replica in replicas if replica is not None]
    if known:  # on another device there may be none
        _check_twins(known, [(frames, together), (smaller, of_smaller)])


def _detect(detector: Detector, frames: NDArray[np.uint8]) -> list[Detections]:
    """Returns what the detector finds, having checked what it does with the batch."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef

    data = torch.from_numpy(frames.copy())
    storage = StorageWeakRef(data.untyped_storage())
    numbers = np.arange(len(frames), dtype=np.int64)
    results = detector.detect(FrameBatch(data, numbers, numbers / 25.0))
    assert isinstance(results, list), f"detect: got {type(results).__name__}, expected a list"
    assert len(results) == len(frames), f"detect: got {len(results)} results for {len(frames)} frames"
    for result in results:
        assert isinstance(result, Detections), f"detect: got {type(result).__name__}, expected prelabel.Detections"
    assert np.array_equal(data.numpy(), frames), "detect: wrote into the batch's frames, which others may read"
    del data
    gc.collect()
    assert storage.expired(), "detect: the detector or its results still hold the batch's frames"
    return results


def _check_detections(detections: Detections, width: int, height: int, num_classes: int, frame_number: int) -> None:
    where = f"frame {frame_number} of {width} x {height}"
    if not len(detections):
        return
    corners = detections.xyxy
    outside = (corners.min(axis=1) < 0) | (corners[:, 2] > width) | (corners[:, 3] > height)
    assert not outside.any(), f"{where}: box {corners[outside][0].tolist()} lies outside: cut boxes to the frame"
    unknown = detections.class_id[detections.class_id >= num_classes]
    assert not len(unknown), f"{where}: class_id {unknown[0]}, expected 0 to {num_classes - 1}: see class_names"


def _check_asked(detector: Detector, frames: NDArray[np.uint8]) -> None:
    for frame_number, detections in enumerate(_detect(detector, frames)):
        _check_geometry(detections, traits_of(detector).output, frames.shape[2], frames.shape[1], frame_number)


def _check_twins(replicas: Sequence[Detector], pictures: Sequence[tuple[NDArray[np.uint8], list[Detections]]]) -> None:
    """Has each twin look at pictures of its own at the same time as the others; each comes with what is on them."""
    with ThreadPoolExecutor(len(replicas)) as threads:
        for _ in range(_TIMES_BESIDE):
            begun = [
                threads.submit(_detect, replica, frames)
                for replica, (frames, _) in zip(replicas, pictures, strict=True)
            ]
            for found, (_, expected) in zip(begun, pictures, strict=True):
                for frame_number, (these, those) in enumerate(zip(found.result(), expected, strict=True)):
                    _check_same(these, those, frame_number, ("by a twin", "by the detector"))


def _check_geometry(detections: Detections, offer: OutputSpec, width: int, height: int, frame_number: int) -> None:
    for geometry in detections.geometry[detections.geometry.astype(np.bool_)]:
        where = f"frame {frame_number} of {width} x {height}: geometry"
        assert geometry.kind == offer.kind, f"{where}: got {geometry.kind}, `traits.output.kind` is {offer.kind}"
        match geometry:
            case Keypoints():
                num, names = len(geometry.xy), len(offer.keypoint_names)
                assert num == names, f"{where}: got {num} keypoints, `traits.output.keypoint_names` has {names}"
            case Mask():
                is_in = geometry.left >= 0 and geometry.top >= 0
                is_in = is_in and geometry.left + geometry.width <= width and geometry.top + geometry.height <= height
                assert is_in, f"{where}: a mask lies outside: cut it to the frame"


def _check_same(
    together: Detections, alone: Detections, frame_number: int, how: tuple[str, str] = ("in a batch", "alone")
) -> None:
    for these, those, only in ((together, alone, how[0]), (alone, together, how[1])):
        strays = these.xyxy[~_has_counterpart(these, those)]
        assert len(strays) <= _STRAYS_PER_BOX * len(these), (
            f"frame {frame_number}: box {strays[0].tolist()} is found {only} only: results must not depend on what "
            "else is looked at, and must come in the batch's order"
        )


def _has_counterpart(these: Detections, those: Detections) -> NDArray[np.bool_]:
    """Returns bool (N,): which of these boxes are among those, as nearly as rounding allows."""
    same = iou_matrix(these.xyxy, those.xyxy) >= _SAME_BOX_IOU
    same &= these.class_id[:, None] == those.class_id[None, :]
    same &= np.abs(these.confidence[:, None] - those.confidence[None, :]) <= _SAME_CONFIDENCE
    return np.asarray(same.any(axis=1))
