"""Builders for tests of answers: each kind of classification, and a classifier whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prelabel import ModelTraits
from prelabel.data.ontology import Ontology
from tests.labelling import object_json

CLASS_NAMES = ("red", "green", "blue")


def radio_json(name: str, path: str, options: Sequence[dict[str, Any]], kind: str = "radio", **more: Any) -> dict:
    return {
        "id": path,
        "name": name,
        "type": kind,
        "required": False,
        "dynamic": False,
        "featureNodeHash": f"att{path.replace('.', '')}{name}"[:8].ljust(8, "0"),
        "options": [{"id": f"{path}.{n}", **option} for n, option in enumerate(options, start=1)],
        **more,
    }


def option_json(label: str, feature_hash: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "value": label.lower().replace(" ", "_"), "featureNodeHash": feature_hash, **more}


def _nested(path: str, *labels: str) -> dict[str, Any]:
    options = [option_json(label, f"o{path.replace('.', '')}{label}"[:8].ljust(8, "0")) for label in labels]
    return {"options": [radio_json("Its breed", path, options)]}


def _classification(number: int, attribute: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": str(number), "featureNodeHash": f"cls{number:05d}", "attributes": [attribute], **more}


ANIMALS = Ontology.from_structure(
    {
        "objects": [object_json("Box", 1)],
        "classifications": [
            _classification(
                1,
                radio_json(
                    "Animal",
                    "1.1",
                    [
                        option_json("Cat", "optCat00", **_nested("1.1.1.1", "Tabby", "Siamese")),
                        option_json("Dog", "optDog00", **_nested("1.1.2.1", "Tabby")),
                        option_json("Fish", "optFish0", archived=True),
                    ],
                ),
            ),
            _classification(
                2,
                radio_json(
                    "Colours", "2.1", [option_json("Red", "optRed00"), option_json("Blue", "optBlue0")], "checklist"
                ),
            ),
            _classification(3, {k: v for k, v in radio_json("Caption", "3.1", (), "text").items() if k != "options"}),
            _classification(4, radio_json("Scene", "4.1", [option_json("Indoors", "optIn000")]), level="global"),
            _classification(5, radio_json("Old", "5.1", [option_json("One", "optOne00")], archived=True)),
        ],
    },
    "Animals",
)


class ColourClassifier:
    """Tells which channel of a picture is brightest: its mean over 255. Counts the pictures of each batch."""

    class_names = CLASS_NAMES
    traits = ModelTraits(batch_size=4)

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def classify(self, images: Sequence[torch.Tensor]) -> np.ndarray:
        self.batch_sizes.append(len(images))
        if any((image == 13).all() for image in images):
            raise RuntimeError("thirteen")
        return np.stack([image.float().mean(dim=(0, 1)).numpy() / 255 for image in images])
