from __future__ import annotations

import numpy as np
import pytest
import torch

from prelabel.models.detectors.nms import (
    Rule,
    keep_best,
    keep_best_by_confidence,
    suppress_one_by_one,
    suppress_together,
)
from prelabel.models.detectors.rows import HostCopy, detections_from_table, pad_rows, select_rows

NUM_CLASSES = 80


def crowd(num_images: int = 3, num_boxes: int = 700, num_classes: int = NUM_CLASSES, seed: int = 0) -> torch.Tensor:
    """A prediction in which boxes lie in heaps, as around things, of few classes, most of them unsure."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform(40, 600, (num_images, 2, 12))
    of_heap = rng.integers(0, 12, (num_images, 1, num_boxes))
    centres = np.take_along_axis(middles, of_heap, axis=2) + rng.normal(0, 12, (num_images, 2, num_boxes))
    sizes = rng.uniform(20, 90, (num_images, 2, num_boxes))
    scores = rng.uniform(0, 1, (num_images, num_classes, num_boxes)) ** 12
    scores[:, 5:] *= 0.2
    return torch.from_numpy(np.concatenate([centres, sizes, scores], axis=1)).float()


def ultralytics_nms(prediction: torch.Tensor, rule: Rule, **options: object) -> list[torch.Tensor]:
    import torchvision  # noqa: F401, its NMS is used only if it is imported first
    from ultralytics.utils.nms import non_max_suppression

    classes = None if rule.class_ids is None else rule.class_ids.tolist()
    return non_max_suppression(
        prediction.clone(),
        rule.conf,
        rule.iou,
        classes,
        rule.agnostic,
        max_det=rule.max_det,
        max_time_img=60,
        **options,
    )


def assert_table_holds(table: torch.Tensor, expected: list[torch.Tensor]) -> None:
    for found, rows in zip(table, expected, strict=True):
        assert torch.equal(found[: len(rows)], rows)
        assert (found[len(rows) :, 4] == -1).all()


RULES = [
    Rule(conf=0.05, iou=0.7, max_det=300),
    Rule(conf=0.25, iou=0.45, max_det=20),
    Rule(conf=0.001, iou=0.7, max_det=300),
    Rule(conf=0.05, iou=0.5, max_det=300, agnostic=True),
    Rule(conf=0.05, iou=0.7, max_det=300, class_ids=torch.tensor([1, 3])),
    Rule(conf=0.9999, iou=0.7, max_det=300),
]


@pytest.mark.parametrize("rule", RULES)
def test_kept_boxes_are_those_of_ultralytics(rule):
    prediction = crowd()
    expected = ultralytics_nms(prediction, rule)

    together, settled = suppress_together(prediction, NUM_CLASSES, rule, num_candidates=1024)

    assert settled
    assert_table_holds(together, expected)
    assert_table_holds(suppress_one_by_one(prediction, NUM_CLASSES, rule), expected)


def test_channels_that_are_no_classes_come_along_with_their_boxes():
    prediction = torch.cat([crowd(), torch.rand(3, 32, 700)], dim=1)
    rule = Rule(conf=0.05, iou=0.7, max_det=300)

    together, _ = suppress_together(prediction, NUM_CLASSES, rule, num_candidates=1024)

    assert together.shape[2] == 6 + 32
    assert_table_holds(together, ultralytics_nms(prediction, rule, nc=NUM_CLASSES))


def test_more_images_than_go_together_are_all_there():
    prediction, rule = crowd(num_images=70, num_boxes=60), Rule(conf=0.05, iou=0.7, max_det=30)

    together, settled = suppress_together(prediction, NUM_CLASSES, rule)

    assert settled
    assert_table_holds(together, ultralytics_nms(prediction, rule))


def test_more_candidates_than_are_looked_at_are_told():
    prediction, rule = crowd(), Rule(conf=0.001, iou=0.7, max_det=300)

    _, settled = suppress_together(prediction, NUM_CLASSES, rule, num_candidates=100)

    assert not settled


def test_a_chain_longer_than_the_rounds_is_told():
    """Each box overlaps its neighbours only, so that whether one is kept depends on all before it."""
    steps = torch.arange(40.0)
    boxes = torch.stack([100 + 4 * steps, torch.full((40,), 100.0), torch.full((40,), 10.0), torch.full((40,), 10.0)])
    prediction = torch.cat([boxes, (0.9 - steps / 100)[None]])[None]
    rule = Rule(conf=0.05, iou=0.3, max_det=300)

    _, settled = suppress_together(prediction, 1, rule)

    assert not settled
    assert_table_holds(suppress_one_by_one(prediction, 1, rule), ultralytics_nms(prediction, rule, nc=1))


def test_rows_of_an_end_to_end_head_are_only_filtered():
    rows = torch.rand(2, 50, 6)
    rows[..., 5] = torch.randint(0, 4, (2, 50))
    rule = Rule(conf=0.4, iou=0.7, max_det=10, class_ids=torch.tensor([1, 2]))

    assert_table_holds(keep_best(rows, rule), ultralytics_nms(rows, rule, end2end=True))


def test_rows_in_any_order_come_the_surest_first():
    confidence = torch.tensor([[0.2, 0.9, 0.5]])
    rows = confidence[..., None].expand(-1, -1, 6)

    table = keep_best_by_confidence(rows, Rule(conf=0.3, iou=0.7, max_det=2))

    assert table[0, :, 4].tolist() == pytest.approx([0.9, 0.5])


def test_no_box_at_all_is_an_empty_table():
    prediction = torch.zeros(2, 84, 30)
    rule = Rule(conf=0.05, iou=0.7, max_det=5)
    table, settled = suppress_together(prediction, NUM_CLASSES, rule)

    assert settled
    assert [len(found) for found in detections_from_table(HostCopy(table).wait())] == [0, 0]
    assert torch.equal(table, suppress_one_by_one(prediction, NUM_CLASSES, rule))


def test_selecting_and_padding_agree():
    rows, keep = torch.rand(4, 9, 6), torch.rand(4, 9) > 0.5

    expected = pad_rows([image[mask][:3] for image, mask in zip(rows, keep, strict=True)], 3)

    assert torch.equal(select_rows(rows, keep, 3), expected)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("rule", RULES[:4])
def test_a_gpu_keeps_the_same_boxes(rule):
    prediction = crowd()

    together, settled = suppress_together(prediction.cuda(), NUM_CLASSES, rule, num_candidates=1024)

    assert settled
    torch.testing.assert_close(together.cpu(), suppress_one_by_one(prediction, NUM_CLASSES, rule))
