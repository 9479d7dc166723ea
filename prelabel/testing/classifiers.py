"""The contract of classifiers."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prelabel.plugins.protocols import Classifier


def textured_frames() -> NDArray[np.uint8]:
    """Returns uint8 (3, 184, 320, 3) of textured noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 23, 40, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def check_class_names(class_names: Sequence[str]) -> None:
    """Raises: AssertionError: there are none, or they are no names, or not each its own."""
    assert not isinstance(class_names, str), f"class_names: got the text {class_names!r}, expected a sequence of names"
    assert len(class_names) > 0, "class_names: got none, expected one or more"
    for name in class_names:
        assert isinstance(name, str), f"class_names: got {name!r}, expected text"
        assert name.strip(), f"class_names: got {name!r}, expected a name"
    doubled = sorted({name for name in class_names if list(class_names).count(name) > 1})
    assert not doubled, f"class_names: {doubled} come more than once"


_SAME_PROBABILITY = 0.02


def check_classifier(classifier: Classifier, pictures: Sequence[NDArray[np.uint8]] | None = None) -> None:
    """Checks that a classifier keeps its contract: a row of probabilities a picture, in order, whatever their sizes.

    Args:
        classifier: ready to run.
        pictures: uint8 (H, W, 3), RGB, two or more, which it tells apart; by default textured noise of three sizes.

    Raises:
        AssertionError: says what is wrong.
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
    """Returns the probabilities, having checked them, and what the classifier does with the pictures."""
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
    gc.collect()
    assert all(storage.expired() for storage in storages), "classify: the classifier still holds pictures"
    return rows
