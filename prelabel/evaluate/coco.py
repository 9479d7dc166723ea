"""Scores a run's labels against a ground truth by mean average precision, as COCO defines it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import ConfigError
from prelabel.runtime.files import read_json
from prelabel.store.report import Score

_NAMES: Mapping[type, str] = {int: "number", float: "number", Real: "number", str: "text", list: "list", dict: "object"}


FrameKey = tuple[str, int]
"""A video's title and a frame index. An image that is not a frame of a video is frame 0 of its own file name."""
_FRAME_NAME = re.compile(r"(?P<video>.+)[/#_](?P<frame>\d+)(\.\w+)?")


def frame_keys(image: Mapping[str, Any]) -> list[FrameKey]:
    """Returns the frames that a COCO image may show, the most explicit first.

    >>> frame_keys({"file_name": "a.jpg", "video": "clip.mp4", "frame_index": 12})[0]
    ('clip.mp4', 12)
    >>> frame_keys({"file_name": "clip_000012.png"})
    [('clip_000012.png', 0), ('clip', 12)]
    """
    keys = [(image["file_name"], 0)]
    if isinstance(image.get("video"), str) and isinstance(image.get("frame_index"), int):
        keys.insert(0, (image["video"], image["frame_index"]))
    if parts := _FRAME_NAME.fullmatch(image["file_name"]):
        keys.append((parts["video"], int(parts["frame"])))
    return keys


@dataclass(frozen=True)
class CocoFile:
    """The content of a checked COCO file.

    Attributes:
        path: of the file, for errors.
        images: by image id; each has a `file_name`.
        category_names: by category id.
        annotations: as in the file.
    """

    path: Path
    images: dict[int, dict[str, Any]]
    category_names: dict[int, str]
    annotations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path, numbers: Sequence[str] = ()) -> CocoFile:
        """Returns the content of a file after checking it.

        Args:
            path: of the file.
            numbers: names of more keys that each annotation must have, with numbers as values.

        Raises:
            ConfigError: the file is not COCO.
        """
        document = read_json(path, ConfigError)
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: got {_kind(document)}, expected COCO: images, annotations, categories")
        images = _entries(document, "images", {"id": int, "file_name": str}, path)
        categories = _entries(document, "categories", {"id": int, "name": str}, path)
        keys = {"image_id": int, "category_id": int, "bbox": list, **dict.fromkeys(numbers, Real)}
        return cls(
            path,
            {image["id"]: image for image in images},
            {category["id"]: category["name"] for category in categories},
            _entries(document, "annotations", keys, path),
        )

    def find_image(self, keys: Sequence[FrameKey]) -> int | None:
        """Returns the id of the image that shows one of these frames; None if no image does.

        A file may name a video by its title without the suffix, as in `clip_000012.png`.
        """
        short = [(title.removesuffix(PurePosixPath(title).suffix), frame) for title, frame in keys]
        return next((self._image_ids[key] for key in (*keys, *short) if key in self._image_ids), None)

    @cached_property
    def _image_ids(self) -> dict[FrameKey, int]:
        return {key: image_id for image_id, image in self.images.items() for key in reversed(frame_keys(image))}

    def select(self, image_ids: Sequence[int], category_names: Sequence[str]) -> dict[str, Any]:
        """Returns COCO of only these images and categories, with ids from 1 in the given order.

        Annotation ids start at 1 too, because the evaluation uses 0 for "no match".
        """
        images = {image_id: number for number, image_id in enumerate(image_ids, 1)}
        categories = {name.casefold(): number for number, name in enumerate(category_names, 1)}
        annotations: list[dict[str, Any]] = []
        for entry in self.annotations:
            image_id = images.get(entry["image_id"])
            category_id = categories.get(self.category_names.get(entry["category_id"], "").casefold())
            if image_id is not None and category_id is not None:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": entry["bbox"],
                        "area": entry["bbox"][2] * entry["bbox"][3],
                        "iscrowd": int(bool(entry.get("iscrowd"))),
                        "score": entry.get("score", 0),
                    }
                )
        return {
            "images": [{"id": number} for number in images.values()],
            "categories": [{"id": number} for number in categories.values()],
            "annotations": annotations,
        }


def _entries(document: Mapping[str, Any], key: str, wanted: Mapping[str, type], path: Path) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: {key}: got {_kind(entries)}, expected COCO's list")
    for number, entry in enumerate(entries):
        for name, kind in wanted.items():
            value: Any = entry.get(name) if isinstance(entry, dict) else None
            if not issubclass(type(value), kind):
                raise ConfigError(f"{path}: {key}[{number}].{name}: got {_kind(value)}, expected {_NAMES[kind]}")
            if name == "bbox" and not (len(value) == 4 and all(isinstance(side, Real) for side in value)):
                raise ConfigError(f"{path}: {key}[{number}].bbox: got {value}, expected [x, y, width, height]")
    return entries


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {_NAMES.get(type(value), type(value).__name__)}"


MAX_DETECTIONS = 100
"""Number of detections of an image that count, the most confident first, as COCO defines it."""


def score_coco(predictions: Path, truth: Path) -> Score:
    """Returns the score of a COCO file of predictions against a COCO file of ground truth.

    Images match by video and frame index, see `frame_keys`. Categories match by name; case does not matter. Detections
    on a crowd region (`iscrowd`) of their category do not count.

    Args:
        predictions: a COCO file whose annotations have a `score`.
        truth: a COCO file of ground truth.

    Raises:
        ConfigError: a file is not COCO, or the two have no image or no category in common.
    """
    found, wanted = CocoFile.read(predictions, ("score",)), CocoFile.read(truth)
    images, names = _common_images(found, wanted), _common_categories(found, wanted)
    precision = _precision(wanted.select([*images.values()], names), found.select([*images], names))
    shown = precision.max(axis=(0, 1)) > -1
    if not shown.any():
        raise ConfigError(f"{truth}: annotations: the {len(images)} images in common show none of: {', '.join(names)}")
    by_class = precision[:, :, shown].mean(axis=(0, 1))
    return Score(
        map_50_95=float(by_class.mean()),
        map_50=float(precision[0][:, shown].mean()),
        by_class={name: float(ap) for name, ap in zip(np.array(names)[shown].tolist(), by_class, strict=True)},
    )


def _common_images(found: CocoFile, wanted: CocoFile) -> dict[int, int]:
    """Returns the image id in the ground truth by that in the predictions, for images in both."""
    pairs = ((image_id, wanted.find_image(frame_keys(image))) for image_id, image in found.images.items())
    common = {image_id: other for image_id, other in pairs if other is not None}
    if not common:
        names = [[image["file_name"] for image in file.images.values()] for file in (wanted, found)]
        raise ConfigError(
            f"{wanted.path}: images: none is a frame in {found.path}: got {_few(names[0], 1)}, expected such as "
            f"{_few(names[1], 1)}, or `video` and `frame_index`"
        )
    return common


def _common_categories(found: CocoFile, wanted: CocoFile) -> list[str]:
    """Returns the names of the categories in both files, spelt as in the ground truth, each once."""
    known = {name.casefold() for name in found.category_names.values()}
    common = {name.casefold(): name for name in wanted.category_names.values() if name.casefold() in known}
    if not common:
        raise ConfigError(
            f"{wanted.path}: categories: no name is one of those in {found.path}: "
            f"got {_few(wanted.category_names.values())}, expected some of {_few(found.category_names.values())}"
        )
    return list(common.values())


def _few(names: Iterable[str], most: int = 8) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most > 1 else "") if listed else "none"


def _precision(truth: dict[str, Any], found: dict[str, Any]) -> NDArray[np.float64]:
    """Returns the precision by IoU threshold, recall and category, float64 (10, 101, K).

    It is -1 for a category without ground truth. Thresholds and recalls are COCO's own:
    https://cocodataset.org/#detection-eval.
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
    """Ignores the library's messages."""
