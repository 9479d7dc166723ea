"""The score of a run's labels against ground truth: mean average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.config import DemoSection, FolderSection, Source
from prelabel.errors import ConfigError
from prelabel.evaluation.coco_file import CocoFile
from prelabel.score import Score
from prelabel.sources.demo import TRUTH_NAME

MAX_DETECTIONS = 100
"""An image, the most confident first, as COCO has it."""


def truth_of(source: Source) -> Path | None:
    """Returns the ground truth that a source names, or that is made with it; None where there is none."""
    if isinstance(source, DemoSection):
        return source.output / TRUTH_NAME
    return source.truth if isinstance(source, FolderSection) else None


def score_coco(predictions: Path, truth: Path) -> Score:
    """Returns the score of a COCO file with `score` in its annotations against a COCO file of ground truth.

    Images meet by `file_name` and categories by name, whatever their ids and the name's case. Detections on a crowd
    region (`iscrowd`) of their category are neither right nor wrong.

    Raises:
        ConfigError: if a file is not COCO, or the two have no image or no category in common.
    """
    found, wanted = CocoFile.read(predictions, ("score",)), CocoFile.read(truth)
    images, names = _common_images(found, wanted), _common_categories(found, wanted)
    precision = _precision(wanted.select(images, names), found.select(images, names))
    shown = precision.max(axis=(0, 1)) > -1
    if not shown.any():
        raise ConfigError(f"{truth}: annotations: the {len(images)} images in common show none of: {', '.join(names)}")
    by_class = precision[:, :, shown].mean(axis=(0, 1))
    return Score(
        map_50_95=float(by_class.mean()),
        map_50=float(precision[0][:, shown].mean()),
        by_class={name: float(ap) for name, ap in zip(np.array(names)[shown].tolist(), by_class, strict=True)},
    )


def _common_images(found: CocoFile, wanted: CocoFile) -> list[str]:
    asked = set(wanted.image_names.values())
    common = [name for name in dict.fromkeys(found.image_names.values()) if name in asked]
    if not common:
        raise ConfigError(
            f"{wanted.path}: images: no file_name is one of those in {found.path}: "
            f"got {_few(wanted.image_names, 1)}, expected such as {_few(found.image_names, 1)}"
        )
    return common


def _common_categories(found: CocoFile, wanted: CocoFile) -> list[str]:
    """Returns the categories in common as the truth writes them, each once whatever the case."""
    known = {name.casefold() for name in found.category_names.values()}
    common = {name.casefold(): name for name in wanted.category_names.values() if name.casefold() in known}
    if not common:
        raise ConfigError(
            f"{wanted.path}: categories: no name is one of those in {found.path}: "
            f"got {_few(wanted.category_names)}, expected some of {_few(found.category_names)}"
        )
    return list(common.values())


def _few(names: Mapping[int, str], most: int = 8) -> str:
    listed = [repr(name) for name in names.values()]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most > 1 else "") if listed else "none"


def _precision(truth: dict[str, Any], found: dict[str, Any]) -> NDArray[np.float64]:
    """Returns precision by IoU threshold, recall and category, float64 (10, 101, K); -1 where there is no truth.

    Thresholds and recalls are COCO's own: https://cocodataset.org/#detection-eval.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    evaluation = COCOeval_faster(COCO(truth), COCO(found), iouType="bbox", print_function=_quiet)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]
    return precision


def _quiet(text: str) -> None:
    """Says nothing."""
