from __future__ import annotations

import numpy as np
import pytest
import torch

from prelabel.models.detectors.host import NmsConfig
from prelabel.models.detectors.postprocess import (
    HostCopy,
    filter_rows,
    nms_batched,
    nms_per_image,
    rows_of_table,
    sort_rows,
    table_of_frames,
    table_of_kept,
)

NUM_CLASSES = 80


def crowd(num_images: int = 3, num_boxes: int = 700, num_classes: int = NUM_CLASSES, seed: int = 0) -> torch.Tensor:
    """A prediction with heaps of boxes, as around objects, of few classes and mostly of low confidence."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform(40, 600, (num_images, 2, 12))
    of_heap = rng.integers(0, 12, (num_images, 1, num_boxes))
    centres = np.take_along_axis(middles, of_heap, axis=2) + rng.normal(0, 12, (num_images, 2, num_boxes))
    sizes = rng.uniform(20, 90, (num_images, 2, num_boxes))
    scores = rng.uniform(0, 1, (num_images, num_classes, num_boxes)) ** 12
    scores[:, 5:] *= 0.2
    return torch.from_numpy(np.concatenate([centres, sizes, scores], axis=1)).float()


def ultralytics_nms(prediction: torch.Tensor, config: NmsConfig, **options: object) -> list[torch.Tensor]:
    import torchvision  # noqa: F401, its NMS is used only if it is imported first
    from ultralytics.utils.nms import non_max_suppression

    classes = None if config.class_ids is None else list(config.class_ids)
    return non_max_suppression(
        prediction.clone(),
        config.conf,
        config.iou,
        classes,
        config.agnostic,
        max_det=config.max_det,
        max_time_img=60,
        **options,
    )


def assert_table_holds(table: torch.Tensor, expected: list[torch.Tensor]) -> None:
    for found, rows in zip(table, expected, strict=True):
        assert torch.equal(found[: len(rows)], rows)
        assert (found[len(rows) :, 4] == -1).all()


CONFIGS = [
    NmsConfig(conf=0.05, iou=0.7, max_det=300),
    NmsConfig(conf=0.25, iou=0.45, max_det=20),
    NmsConfig(conf=0.001, iou=0.7, max_det=300),
    NmsConfig(conf=0.05, iou=0.5, max_det=300, agnostic=True),
    NmsConfig(conf=0.05, iou=0.7, max_det=300, class_ids=(1, 3)),
    NmsConfig(conf=0.9999, iou=0.7, max_det=300),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_kept_boxes_equal_those_of_ultralytics(config):
    prediction = crowd()
    expected = ultralytics_nms(prediction, config)

    batched, is_exact = nms_batched(prediction, NUM_CLASSES, config, num_candidates=1024)

    assert is_exact
    assert_table_holds(batched, expected)
    assert_table_holds(nms_per_image(prediction, NUM_CLASSES, config), expected)


def test_extra_channels_stay_with_their_boxes():
    prediction = torch.cat([crowd(), torch.rand(3, 32, 700)], dim=1)
    config = NmsConfig(conf=0.05, iou=0.7, max_det=300)

    batched, _ = nms_batched(prediction, NUM_CLASSES, config, num_candidates=1024)

    assert batched.shape[2] == 6 + 32
    assert_table_holds(batched, ultralytics_nms(prediction, config, nc=NUM_CLASSES))


def test_more_images_than_one_round_compares_are_all_kept():
    prediction, config = crowd(num_images=70, num_boxes=60), NmsConfig(conf=0.05, iou=0.7, max_det=30)

    batched, is_exact = nms_batched(prediction, NUM_CLASSES, config)

    assert is_exact
    assert_table_holds(batched, ultralytics_nms(prediction, config))


def test_more_candidates_than_are_compared_are_not_exact():
    prediction, config = crowd(), NmsConfig(conf=0.001, iou=0.7, max_det=300)

    _, is_exact = nms_batched(prediction, NUM_CLASSES, config, num_candidates=100)

    assert not is_exact


def test_a_chain_longer_than_the_rounds_is_not_exact():
    """Each box overlaps only its neighbours, so whether it is kept depends on all boxes before it."""
    steps = torch.arange(40.0)
    boxes = torch.stack([100 + 4 * steps, torch.full((40,), 100.0), torch.full((40,), 10.0), torch.full((40,), 10.0)])
    prediction = torch.cat([boxes, (0.9 - steps / 100)[None]])[None]
    config = NmsConfig(conf=0.05, iou=0.3, max_det=300)

    _, is_exact = nms_batched(prediction, 1, config)

    assert not is_exact
    assert_table_holds(nms_per_image(prediction, 1, config), ultralytics_nms(prediction, config, nc=1))


def test_rows_of_an_end_to_end_head_are_only_filtered():
    rows = torch.rand(2, 50, 6)
    rows[..., 5] = torch.randint(0, 4, (2, 50))
    config = NmsConfig(conf=0.4, iou=0.7, max_det=10, class_ids=(1, 2))

    assert_table_holds(filter_rows(rows, config), ultralytics_nms(rows, config, end2end=True))


def test_sorted_rows_have_the_highest_confidence_first():
    confidence = torch.tensor([[0.2, 0.9, 0.5]])
    rows = confidence[..., None].expand(-1, -1, 6)

    table = filter_rows(sort_rows(rows), NmsConfig(conf=0.3, iou=0.7, max_det=2))

    assert table[0, :, 4].tolist() == pytest.approx([0.9, 0.5])


def test_no_box_at_all_is_an_empty_table():
    prediction = torch.zeros(2, 84, 30)
    config = NmsConfig(conf=0.05, iou=0.7, max_det=5)
    table, is_exact = nms_batched(prediction, NUM_CLASSES, config)

    assert is_exact
    assert [len(found) for found in rows_of_table(HostCopy(table).wait())] == [0, 0]
    assert torch.equal(table, nms_per_image(prediction, NUM_CLASSES, config))


def test_tables_of_kept_rows_and_of_frames_agree():
    rows, keep = torch.rand(4, 9, 6), torch.rand(4, 9) > 0.5

    expected = table_of_frames([image[mask][:3] for image, mask in zip(rows, keep, strict=True)], 3)

    assert torch.equal(table_of_kept(rows, keep, 3), expected)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("config", CONFIGS[:4])
def test_a_gpu_keeps_the_same_boxes(config):
    prediction = crowd()

    batched, is_exact = nms_batched(prediction.cuda(), NUM_CLASSES, config, num_candidates=1024)

    assert is_exact
    torch.testing.assert_close(batched.cpu(), nms_per_image(prediction, NUM_CLASSES, config))
