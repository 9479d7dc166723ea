"""A COCO file: read, checked, and cut down to some images and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from prelabel.errors import ConfigError
from prelabel.files import read_json

_NAMES: Mapping[type, str] = {int: "number", float: "number", Real: "number", str: "text", list: "list", dict: "object"}


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A COCO file, checked.

    Attributes:
        path: what errors call it.
        image_names: `file_name` by image id.
        category_names: by category id.
        annotations: as they stand.
    """

    path: Path
    image_names: dict[int, str]
    category_names: dict[int, str]
    annotations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path, numbers: Sequence[str] = ()) -> CocoFile:
        """Returns the file's content; each annotation has the `numbers` asked for."""
        document = read_json(path, ConfigError)
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: got {_kind(document)}, expected COCO: images, annotations, categories")
        images = _entries(document, "images", {"id": int, "file_name": str}, path)
        categories = _entries(document, "categories", {"id": int, "name": str}, path)
        keys = {"image_id": int, "category_id": int, "bbox": list, **dict.fromkeys(numbers, Real)}
        return cls(
            path,
            {image["id"]: image["file_name"] for image in images},
            {category["id"]: category["name"] for category in categories},
            _entries(document, "annotations", keys, path),
        )

    def select(self, image_names: Sequence[str], category_names: Sequence[str]) -> dict[str, Any]:
        """Returns COCO of these images and categories alone, under ids from 1 in the given order.

        Annotations are numbered from 1 too: the evaluation takes 0 for "no match".
        """
        images = {name: number for number, name in enumerate(image_names, 1)}
        categories = {name.casefold(): number for number, name in enumerate(category_names, 1)}
        annotations: list[dict[str, Any]] = []
        for entry in self.annotations:
            image_id = images.get(self.image_names.get(entry["image_id"], ""))
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
            if name == "bbox" and not _is_box(value):
                raise ConfigError(f"{path}: {key}[{number}].bbox: got {value}, expected [x, y, width, height]")
    return entries


def _is_box(values: Sequence[object]) -> bool:
    return len(values) == 4 and all(isinstance(value, Real) for value in values)


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {_NAMES.get(type(value), type(value).__name__)}"
