"""Which boxes of a raw prediction are kept: those of Ultralytics' `non_max_suppression`, for a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prelabel.models.detectors.rows import pad_rows, select_rows

CLASS_OFFSET = 7680.0
"""Ultralytics' `max_wh`: boxes of different classes are moved apart by it, with its rounding, so that none overlap."""
MAX_CANDIDATES = 30_000
"""Ultralytics' `max_nms`: boxes of one image that are looked at, the surest first."""
CANDIDATES_TOGETHER = 512
"""YOLO11n on a street of fifty things has 310 at a confidence of 0.05."""
ROUNDS = 12
"""The same street takes 6."""
_IMAGES_TOGETHER = 64  # overlaps of all pairs of 64 images take 64 MB in float32


@dataclass(frozen=True, slots=True)
class Rule:
    """What a box must be to be kept.

    Attributes:
        conf: its confidence is above this.
        iou: it overlaps no surer box of its class by more than this.
        max_det: boxes an image at most.
        class_ids: int64, on the predictions' device: its class is one of these; None: any.
        agnostic: boxes of other classes count for `iou`, too.
    """

    conf: float
    iou: float
    max_det: int
    class_ids: torch.Tensor | None = None
    agnostic: bool = False


def keep_best(rows: torch.Tensor, rule: Rule) -> torch.Tensor:
    """Returns those of an end-to-end head's rows that pass the rule, in their order; its `iou` does not count.

    Args:
        rows: (N, K, 6 or more), x1, y1, x2, y2, confidence, class id, and what the head tells besides.
        rule: what is kept.

    Returns:
        (N, max_det, 6 or more), as `select_rows` gives it.
    """
    rows = rows.float()
    return select_rows(rows, _is_wanted(rows[..., 4], rows[..., 5], rule), rule.max_det)


def keep_best_by_confidence(rows: torch.Tensor, rule: Rule) -> torch.Tensor:
    """Returns what `keep_best` does, the surest first whatever the order of `rows`."""
    order = rows[..., 4].argsort(dim=1, descending=True, stable=True)
    return keep_best(rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1])), rule)


def suppress_one_by_one(prediction: torch.Tensor, num_classes: int, rule: Rule) -> torch.Tensor:
    """Returns the boxes that are kept, by torchvision's NMS on one image after the other; waits for the device.

    Args:
        prediction: (N, 4 + num_classes + E, A): centre x, centre y, width, height, confidences by class, and what the
            head tells besides.
        num_classes: in the prediction.
        rule: what is kept.

    Returns:
        (N, max_det, 6 + E), as `pad_rows` gives it: x1, y1, x2, y2, confidence, class id, the surest first.
    """
    from torchvision.ops import nms

    confidence, class_id = _best_class(prediction, num_classes)
    wanted = _is_wanted(confidence, class_id, rule)
    kept = []
    for columns, scores, classes, mask in zip(prediction, confidence, class_id, wanted, strict=True):
        chosen = columns[:, mask].T
        rows = _rows(chosen[:, :4], scores[mask], classes[mask], chosen[:, 4 + num_classes :])
        if len(rows) > MAX_CANDIDATES:
            rows = rows[rows[:, 4].argsort(descending=True)[:MAX_CANDIDATES]]
        kept.append(rows[nms(_apart(rows, rule), rows[:, 4], rule.iou)[: rule.max_det]])
    return pad_rows(kept, rule.max_det)


def suppress_together(
    prediction: torch.Tensor, num_classes: int, rule: Rule, *, num_candidates: int = CANDIDATES_TOGETHER
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `suppress_one_by_one` does, without waiting for the device, and whether that is sure.

    A box is out if a surer one that is not out overlaps it. Taking all pairs at once, each round settles the boxes
    that depend on the last one's, so that a few rounds settle all of them: the same boxes as one after the other.

    Args:
        prediction: as for `suppress_one_by_one`.
        num_classes: in the prediction.
        rule: what is kept.
        num_candidates: boxes of one image that are looked at.

    Returns:
        (N, max_det, 6 + E), and a bool scalar: false where an image has more candidates, or needs more rounds.
    """
    confidence, class_id = _best_class(prediction, num_classes)
    ranked = confidence.where(_is_wanted(confidence, class_id, rule), -1.0)
    scores, order = ranked.sort(dim=1, descending=True, stable=True)
    num = min(num_candidates, scores.shape[1])
    sure = (scores[:, num:] < 0).all()
    scores, order = scores[:, :num], order[:, :num]
    boxes, extras = (
        columns.gather(2, order[:, None].expand(-1, columns.shape[1], -1)).transpose(1, 2)
        for columns in (prediction[:, :4], prediction[:, 4 + num_classes :])
    )
    rows = _rows(boxes, scores, class_id.gather(1, order), extras)
    found = [_greedy(part, rule) for part in rows.split(_IMAGES_TOGETHER)]
    keep = torch.cat([kept for kept, _ in found])
    return select_rows(rows, keep, rule.max_det), torch.stack([sure, *(settled for _, settled in found)]).all()


def _best_class(prediction: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    confidence, class_id = prediction[:, 4 : 4 + num_classes].max(dim=1)
    return confidence.float(), class_id


def _is_wanted(confidence: torch.Tensor, class_id: torch.Tensor, rule: Rule) -> torch.Tensor:
    wanted = confidence > rule.conf
    return wanted if rule.class_ids is None else wanted & torch.isin(class_id.long(), rule.class_ids)


def _rows(boxes: torch.Tensor, confidence: torch.Tensor, class_id: torch.Tensor, extras: torch.Tensor) -> torch.Tensor:
    """Returns (..., 6 + E): corners, confidence, class id and extras (..., E) of boxes (..., 4): centre and size."""
    centre, half = boxes[..., :2].float(), boxes[..., 2:].float() / 2
    columns = [centre - half, centre + half, confidence[..., None], class_id[..., None].float(), extras.float()]
    return torch.cat(columns, dim=-1)


def _apart(rows: torch.Tensor, rule: Rule) -> torch.Tensor:
    """Returns the boxes (..., 4) of rows, those of different classes moved apart."""
    return rows[..., :4] if rule.agnostic else rows[..., :4] + rows[..., 5:6] * CLASS_OFFSET


def _greedy(rows: torch.Tensor, rule: Rule) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns which rows, (N, K, 6 or more), are kept, bool (N, K), and whether the rounds settled that.

    Args:
        rows: the surest first.
        rule: what is kept.
    """
    overlaps = _overlaps(_apart(rows, rule), rule.iou).float()
    candidates = rows[..., 4] > rule.conf
    keep, settled = candidates, torch.ones((), dtype=torch.bool, device=rows.device)
    for _ in range(ROUNDS):
        before = keep
        keep = candidates & (torch.bmm(before[:, None].float(), overlaps)[:, 0] == 0)
        settled = (keep == before).all()
    return keep, settled


def _overlaps(boxes: torch.Tensor, iou: float) -> torch.Tensor:
    """Returns bool (N, K, K): whether box i overlaps the later box j by more than `iou`; arithmetic of torchvision."""
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    top_left = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]) - top_left).clamp_(min=0)
    both = sides[..., 0] * sides[..., 1]
    return (both / (areas[:, :, None] + areas[:, None] - both) > iou).triu(diagonal=1)
