"""Checks that detectors, classifiers, readers, refiners and trackers keep their contracts."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.data.boxes import iou_matrix
from prelabel.data.detections import Detections, concatenate
from prelabel.data.frames import FrameBatch, Media, VideoInfo
from prelabel.data.geometry import Keypoints, Mask, OutputSpec
from prelabel.errors import PrelabelError
from prelabel.plugins.protocols import Classifier, Detector, Refiner, ShotTracker, Tracker, VideoReader
from prelabel.plugins.traits import has_method, traits_of

if TYPE_CHECKING:
    from torch.multiprocessing.reductions import StorageWeakRef

_SAME_BOX_IOU = 0.9
_SAME_CONFIDENCE = 0.02
_STRAYS_PER_BOX = 0.1  # rounding differs between batch sizes, so a box near a threshold may appear or disappear
_CONCURRENT_ROUNDS = 3


def check_detector(detector: Detector, frames: NDArray[np.uint8] | None = None) -> None:
    """Checks that a detector keeps its contract.

    It must return one result for each frame, in order, with boxes inside the frame and known classes. Geometry must be
    of the kind in `traits.output`, also that of `with_geometry` if the detector has this method. Replicas must detect
    the same as the detector while they run at the same time.

    Args:
        detector: ready to run.
        frames: uint8 (N, H, W, 3), RGB, at least two different frames that show things for the detector; by default
            textured noise, on which most detectors detect little.

    Raises:
        AssertionError: the detector breaks its contract; the message says how.
    """
    frames = textured_frames() if frames is None else frames
    check_class_names(detector.class_names)
    if traits_of(detector).output.kind is not None and has_method(detector, "with_geometry"):
        asked = detector.with_geometry(frozenset(range(len(detector.class_names))))
        for frame_number, detections in enumerate(_detect(asked, frames)):
            _check_geometry(detections, traits_of(asked).output, frames.shape[2], frames.shape[1], frame_number)
    together = _detect(detector, frames)
    for frame_number, detections in enumerate(together):
        _check_detections(detections, frames.shape[2], frames.shape[1], len(detector.class_names), frame_number)
        _check_geometry(detections, traits_of(detector).output, frames.shape[2], frames.shape[1], frame_number)
    for frame_number, detections in enumerate(together):
        (alone,) = _detect(detector, frames[frame_number : frame_number + 1])
        _check_same(detections, alone, frame_number)
    # Images of one task may differ in size, and their sides may be odd numbers.
    smaller = np.ascontiguousarray(frames[:1, : frames.shape[1] * 2 // 3 | 1, : frames.shape[2] // 2 | 1])
    of_smaller = _detect(detector, smaller)
    for detections in of_smaller:
        _check_detections(detections, smaller.shape[2], smaller.shape[1], len(detector.class_names), 0)
    replicas = [detector.replicate() for _ in range(2)] if has_method(detector, "replicate") else []
    known = [replica for replica in replicas if replica is not None]
    if known:  # `replicate` may return None, depending on the device
        _check_replicas(known, [(frames, together), (smaller, of_smaller)])


def _detect(detector: Detector, frames: NDArray[np.uint8]) -> list[Detections]:
    """Returns the detector's results after checking their form, and that the batch was neither changed nor kept."""
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
    assert _are_freed([storage]), "detect: the detector or its results still hold the batch's frames"
    return results


def _are_freed(storages: Sequence[StorageWeakRef]) -> bool:
    if not all(storage.expired() for storage in storages):
        gc.collect()  # takes half a second in a large program, and is needed only where references form a cycle
    return all(storage.expired() for storage in storages)


def _check_detections(detections: Detections, width: int, height: int, num_classes: int, frame_number: int) -> None:
    where = f"frame {frame_number} of {width} x {height}"
    if not len(detections):
        return
    corners = detections.xyxy
    outside = (corners.min(axis=1) < 0) | (corners[:, 2] > width) | (corners[:, 3] > height)
    assert not outside.any(), f"{where}: box {corners[outside][0].tolist()} lies outside: cut boxes to the frame"
    unknown = detections.class_id[detections.class_id >= num_classes]
    assert not len(unknown), f"{where}: class_id {unknown[0]}, expected 0 to {num_classes - 1}: see class_names"


def _check_replicas(replicas: Sequence[Detector], given: Sequence[tuple[NDArray[np.uint8], list[Detections]]]) -> None:
    """Checks that replicas that run at the same time detect the same as the detector.

    Args:
        replicas: one or more.
        given: frames for each replica, and the detector's results on them.
    """
    with ThreadPoolExecutor(len(replicas)) as threads:
        for _ in range(_CONCURRENT_ROUNDS):
            begun = [
                threads.submit(_detect, replica, frames) for replica, (frames, _) in zip(replicas, given, strict=True)
            ]
            for found, (_, expected) in zip(begun, given, strict=True):
                for frame_number, (these, those) in enumerate(zip(found.result(), expected, strict=True)):
                    _check_same(these, those, frame_number, ("by a replica", "by the detector"))


def _check_geometry(detections: Detections, offer: OutputSpec, width: int, height: int, frame_number: int) -> None:
    for geometry in detections.geometry[detections.geometry.astype(np.bool_)]:
        where = f"frame {frame_number} of {width} x {height}: geometry"
        assert geometry.kind == offer.kind, f"{where}: got {geometry.kind}, `traits.output.kind` is {offer.kind}"
        match geometry:
            case Keypoints():
                num, names = len(geometry.xy), len(offer.keypoint_names)
                assert num == names, f"{where}: got {num} keypoints, `traits.output.keypoint_names` has {names}"
            case Mask():
                assert _lies_inside(geometry, width, height), f"{where}: a mask lies outside: cut it to the frame"


def _lies_inside(mask: Mask, width: int, height: int) -> bool:
    is_right_of, is_below = mask.left + mask.width > width, mask.top + mask.height > height
    return mask.left >= 0 and mask.top >= 0 and not is_right_of and not is_below


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
    """Returns which of these boxes are also among those, within the limits of rounding, bool (N,)."""
    same = iou_matrix(these.xyxy, those.xyxy) >= _SAME_BOX_IOU
    same &= these.class_id[:, None] == those.class_id[None, :]
    same &= np.abs(these.confidence[:, None] - those.confidence[None, :]) <= _SAME_CONFIDENCE
    return np.asarray(same.any(axis=1))


def textured_frames() -> NDArray[np.uint8]:
    """Returns three frames of textured noise, uint8 (3, 184, 320, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 23, 40, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def check_class_names(class_names: Sequence[str]) -> None:
    """Checks that there are class names, and that they are texts. Several classes may share a name.

    Raises:
        AssertionError: there are none, or one is not a text or is empty.
    """
    assert not isinstance(class_names, str), f"class_names: got the text {class_names!r}, expected a sequence of names"
    assert len(class_names) > 0, "class_names: got none, expected one or more"
    for name in class_names:
        assert isinstance(name, str), f"class_names: got {name!r}, expected text"
        assert name.strip(), f"class_names: got {name!r}, expected a name"


_SAME_PROBABILITY = 0.02


def check_classifier(classifier: Classifier, pictures: Sequence[NDArray[np.uint8]] | None = None) -> None:
    """Checks that a classifier keeps its contract.

    It must return a row of probabilities for each image, in order, for images of any size.

    Args:
        classifier: ready to run.
        pictures: uint8 (H, W, 3), RGB, two or more images with different results; by default textured noise in three
            sizes.

    Raises:
        AssertionError: the classifier breaks its contract; the message says how.
    """
    if pictures is None:
        pictures = [frame[: 184 - 31 * n, : 320 - 57 * n] for n, frame in enumerate(textured_frames())]
    check_class_names(classifier.class_names)
    together = _classify(classifier, pictures)
    for number, picture in enumerate(pictures):
        (alone,) = _classify(classifier, [picture])
        difference = float(np.abs(alone - together[number]).max())
        assert difference <= _SAME_PROBABILITY, (
            f"picture {number}: a probability differs by {difference:.3f} alone and in a batch: results must not "
            "depend on the other pictures of a batch, and must come in the batch's order"
        )


def _classify(classifier: Classifier, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Returns the probabilities after checking them, and that the images were neither changed nor kept."""
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef

    images = [torch.from_numpy(np.array(picture)) for picture in pictures]
    storages = [StorageWeakRef(image.untyped_storage()) for image in images]
    rows = classifier.classify(images)
    expected = (len(pictures), len(classifier.class_names))
    assert isinstance(rows, np.ndarray), f"classify: got {type(rows).__name__}, expected a numpy array"
    assert rows.shape == expected, f"classify: got shape {rows.shape}, expected {expected}: pictures, classes"
    assert rows.dtype == np.float32, f"classify: got {rows.dtype}, expected float32"
    assert ((rows >= 0) & (rows <= 1)).all(), "classify: got a value outside 0..1, or NaN, expected probabilities"
    for number, (image, picture) in enumerate(zip(images, pictures, strict=True)):
        assert np.array_equal(image.numpy(), picture), f"classify: wrote into picture {number}, which others may read"
    del images, image
    assert _are_freed(storages), "classify: the classifier still holds pictures"
    return rows


def check_reader(
    make_reader: Callable[[Media], VideoReader], media: Media, *, truth: NDArray[np.uint8] | None = None
) -> None:
    """Checks that a reader keeps its contract.

    It must yield the requested frames in order, and each frame must be the same for every selection and batch size.

    Args:
        make_reader: builds a fresh reader of the media, not yet entered.
        media: an undamaged video, or images, with three frames or more.
        truth: uint8 (N, H, W, 3), RGB, every frame as it is displayed; the reader must return exactly these.

    Raises:
        AssertionError: the reader breaks its contract; the message says how.
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
    """Returns the frames by number after checking the batches."""
    frames: dict[int, NDArray[np.uint8]] = {}
    numbers: list[int] = []
    last_seconds = -np.inf
    with make_reader(media) as reader:
        for batch in reader.batches(wanted, batch_size):
            where = f"batch of frames {batch.frame_indices.tolist()}"
            assert 1 <= len(batch) <= batch_size, f"{where}: got {len(batch)}, expected 1 to {batch_size}"
            height, width = batch.shape[1:3]
            sizes = reader.info.sizes(batch.frame_indices)
            assert (sizes == (width, height)).all(), f"{where}: got {width} x {height}, info says {sizes.tolist()}"
            full = len(batch) == batch_size or bool(reader.info.frame_sizes)
            assert full or batch.frame_indices[-1] == wanted[-1], f"{where}: only the last batch may be smaller"
            assert batch.pts_seconds[0] >= last_seconds, f"{where}: pts_seconds goes back"
            assert (np.diff(batch.pts_seconds) >= 0).all(), f"{where}: pts_seconds goes back"
            last_seconds = batch.pts_seconds[-1]
            numbers += batch.frame_indices.tolist()
            frames |= zip(batch.frame_indices.tolist(), batch.array.copy(), strict=True)
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


def check_refiner(refiner: Refiner) -> None:
    """Checks that a refiner keeps its contract.

    It must return a mask inside the frame, or None, for each box of each frame, and the same for a frame alone as for
    the frame in a batch.

    Args:
        refiner: ready to run.

    Raises:
        AssertionError: the refiner breaks its contract; the message says how.
    """
    frames = textured_frames()
    height, width = frames.shape[1:3]
    corners = [[0, 0, width / 2, height / 2], [width / 4, height / 4, width, height], [4.5, 8.5, 40.5, 30.5]]
    boxes = [np.array(corners[: 1 + number % 3], np.float32) for number in range(len(frames))]
    for number, (masks, of_frame) in enumerate(zip(_refine(refiner, frames, boxes), boxes, strict=True)):
        assert len(masks) == len(of_frame), f"refine: frame {number}: {len(of_frame)} boxes, got {len(masks)} masks"
        (alone,) = _refine(refiner, frames[number, None], [of_frame])
        for mask, same in zip(masks, alone, strict=True):
            assert mask is None or isinstance(mask, Mask), f"refine: got {mask!r}, expected a prelabel.Mask or None"
            assert (mask is None) == (same is None), f"refine: frame {number} alone gets other masks than in a batch"
            if mask is None or same is None:
                continue
            assert _lies_inside(mask, width, height), (
                f"refine: frame {number}: a mask extends beyond the frame of {width} x {height}"
            )
            assert abs(mask.area - same.area) <= (1 - _SAME_BOX_IOU) * mask.area, (
                f"refine: frame {number}: a mask of {mask.area} pixels has {same.area} if the frame is alone"
            )


def _refine(
    refiner: Refiner, frames: NDArray[np.uint8], boxes: list[NDArray[np.float32]]
) -> list[Sequence[Mask | None]]:
    indices = np.arange(len(frames))
    return list(refiner.refine(FrameBatch(frames, indices, indices / 25.0), boxes))


def check_tracker(make_tracker: Callable[[VideoInfo], Tracker | ShotTracker]) -> None:
    """Checks that a tracker keeps its contract.

    It must return a track or -1 for each box, no track twice on a frame, and the same result each time. Two trackers
    that are used at the same time must not share state.

    Args:
        make_tracker: builds a fresh tracker for a video.

    Raises:
        AssertionError: the tracker breaks its contract; the message says how.
    """
    info = VideoInfo(width=640, height=360, num_frames=90, average_fps=25.0, duration_seconds=3.6)
    boxes = _moving_boxes(info)
    nothing = {frame_index: Detections.empty() for frame_index in (0, 1, 50)}
    first, second = make_tracker(info), make_tracker(info)
    if isinstance(first, ShotTracker) and isinstance(second, ShotTracker):
        given = _link(first, boxes)
        assert (given >= 0).any(), "link: two sure boxes on most frames, and no track at all"
        assert np.array_equal(given, _link(second, boxes)), "link: two trackers gave the same boxes different tracks"
        _link(second, nothing)
        return
    alone = _track(make_tracker(info), boxes)
    assert any((ids >= 0).any() for ids in alone.values()), "update: two sure boxes on most frames, and no track at all"
    for frame_index, found in boxes.items():
        for which, tracker in (("first", first), ("second", second)):
            ids = _track(tracker, {frame_index: found})[frame_index]
            assert np.array_equal(ids, alone[frame_index]), (
                f"update: frame {frame_index}: the {which} of two trackers run together got {ids.tolist()}, "
                f"one used alone {alone[frame_index].tolist()}: a fresh tracker remembers nothing, and shares nothing"
            )
    _track(make_tracker(info), nothing)


def _moving_boxes(info: VideoInfo) -> dict[int, Detections]:
    """Returns two boxes that pass each other, by frame.

    Some frames have no boxes, and the last part has only every fifth frame, as with a stride.
    """
    frames = [*range(30), *range(30, info.num_frames, 5)]
    found = {}
    for n in frames:
        boxes = [[20 + 5 * n, 40, 80 + 5 * n, 100], [560 - 5 * n, 220, 620 - 5 * n, 290]][:: 1 if n % 2 else -1]
        shown = Detections(np.array(boxes, np.float32), np.array([0.9, 0.8], np.float32), np.array([n % 3, 1]))
        found[n] = Detections.empty() if n in (10, 11, 60) else shown
    return found


def _link(tracker: ShotTracker, boxes: dict[int, Detections]) -> NDArray[np.int64]:
    """Returns the answer of a tracker of whole shots after checking its form."""
    shot = concatenate(boxes.items())
    before = shot.xyxy.copy()
    ids: NDArray[np.int64] = tracker.link(shot)
    _check_ids(ids, len(shot), "link")
    named = np.column_stack([shot.frame_index, ids])[ids >= 0]
    assert len(np.unique(named, axis=0)) == len(named), f"link: two boxes of one track on a frame: {ids.tolist()}"
    assert np.array_equal(shot.xyxy, before), "link: wrote into the boxes that it was given"
    return ids


def _check_ids(ids: NDArray[np.int64], num_boxes: int, where: str) -> None:
    assert isinstance(ids, np.ndarray), f"{where}: got {type(ids).__name__}, expected a numpy array"
    assert ids.shape == (num_boxes,), f"{where}: got shape {ids.shape} for {num_boxes} boxes, expected one a box"
    assert ids.dtype.kind == "i", f"{where}: got {ids.dtype}, expected int64"


def _track(tracker: Tracker | ShotTracker, boxes: dict[int, Detections]) -> dict[int, NDArray[np.int64]]:
    """Returns the tracker's answer for each frame after checking its form."""
    assert isinstance(tracker, Tracker), "got neither `update` nor `link`"
    given = {}
    for frame_index, found in boxes.items():
        before = found.xyxy.copy()
        ids = tracker.update(found, frame_index)
        _check_ids(ids, len(found), "update")
        named = ids[ids >= 0]
        assert len(np.unique(named)) == len(named), (
            f"update: frame {frame_index}: two boxes of one track: {ids.tolist()}"
        )
        assert np.array_equal(found.xyxy, before), "update: wrote into the boxes that it was given"
        given[frame_index] = ids
    return given
