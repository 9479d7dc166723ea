"""The objects of an ontology: what annotators can label, and in which shapes."""

from __future__ import annotations

import colorsys
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.data.skeletons import Edge, Skeleton, SkeletonPoint, read_skeletons, skeleton_template
from prelabel.errors import OntologyError
from prelabel.runtime.files import read_json

_HUES = 72
_LIGHTNESSES = (0.45, 0.35, 0.55, 0.65)  # neither black nor white, to be legible on an image and under white text
_SATURATIONS = (0.9, 0.55)


@functools.cache
def distinct_colors(num: int) -> tuple[str, ...]:
    """Returns colours as `#RRGGBB`, each as different as possible from all before it.

    A longer list begins with the shorter one. Colours repeat after 576. The difference of two colours is their distance
    in Oklab (https://bottosson.github.io/posts/oklab), because greens whose hues differ by one step look alike.

    >>> distinct_colors(3)
    ('#DA0B0B', '#25F425', '#0B0BDA')
    """
    rgb = np.array(
        [
            colorsys.hls_to_rgb(hue / _HUES, lightness, saturation)
            for saturation in _SATURATIONS
            for lightness in _LIGHTNESSES
            for hue in range(_HUES)
        ]
    )
    lab = _as_oklab(rgb)
    chosen = [0]
    distance = np.full(len(lab), np.inf)
    for _ in range(1, min(num, len(lab))):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    colors = ["#{:02X}{:02X}{:02X}".format(*np.rint(rgb[index] * 255).astype(int)) for index in chosen]
    return tuple(colors[number % len(colors)] for number in range(num))


def _as_oklab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns colours in Oklab, (N, 3), from sRGB colours, (N, 3) in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab


BOX_SHAPES = ("bounding_box", "rotatable_bounding_box", "polygon", "bitmask")
"""The ontology shapes that can hold a box, the preferred one first."""

_NOUNS = {
    "bounding_box": ("box", "boxes"),
    "rotatable_bounding_box": ("box", "boxes"),
    "polygon": ("polygon", "polygons"),
    "bitmask": ("mask", "masks"),
    "skeleton": ("skeleton", "skeletons"),
}


def noun_of(shapes: Iterable[str]) -> tuple[str, str]:
    """Returns the noun for one label of these shapes, and for several.

    >>> noun_of(["polygon"]), noun_of(["bounding_box", "rotatable_bounding_box"]), noun_of(["bounding_box", "bitmask"])
    (('polygon', 'polygons'), ('box', 'boxes'), ('shape', 'shapes'))
    """
    nouns = {_NOUNS.get(shape, ("shape", "shapes")) for shape in shapes}
    return nouns.pop() if len(nouns) == 1 else ("shape", "shapes")


def made_feature_hash(kind: str, name: str) -> str:
    """Returns the feature hash of an object or option in an ontology that prelabel makes.

    It is computed from kind and name, so it is the same each time.
    """
    return hashlib.sha256(f"prelabel\n{kind}\n{name}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class OntologyObject:
    """An object of an ontology.

    Attributes:
        name: shown to annotators; several objects can have one name.
        color: `#RRGGBB`.
        shape: such as `bounding_box`.
        feature_hash: identifies it on the platform.
        value: the name in label rows, in lower case and with underscores for spaces.
        required_attributes: names of the attributes that an annotator must fill in.
        skeleton: points of a skeleton, in the template's order; empty for other shapes.
        skeleton_edges: pairs of connected points, by number.
    """

    name: str
    color: str
    shape: str
    feature_hash: str
    value: str
    required_attributes: tuple[str, ...] = ()
    skeleton: tuple[SkeletonPoint, ...] = ()
    skeleton_edges: tuple[Edge, ...] = ()

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue of `color`, 0..255; light grey if `color` is not `#RRGGBB`."""
        if not re.fullmatch("#[0-9A-Fa-f]{6}", self.color):
            return 240, 242, 245
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue


@dataclass(frozen=True, slots=True)
class Ontology:
    """The objects of an Encord ontology.

    Attributes:
        title: shown to people.
        objects: all objects that are not archived, in the ontology's order.
        structure: the editor's JSON, which the SDK's `OntologyStructure` can load.
    """

    title: str
    objects: tuple[OntologyObject, ...]
    structure: Mapping[str, Any]

    @classmethod
    def from_structure(cls, document: Mapping[str, Any], title: str) -> Ontology:
        """Returns the ontology from the editor's JSON.

        Args:
            document: the editor's JSON, or a document that contains it under `editor`.
            title: of the ontology.

        Raises:
            OntologyError: the document is neither.
        """
        structure = document.get("editor", document)
        if not isinstance(structure, Mapping) or not isinstance(structure.get("objects"), list):
            raise OntologyError(f"ontology {title!r}: got no list 'objects', expected the JSON of Encord's editor")
        skeletons = read_skeletons(structure)
        listed = [
            _read_object(entry, skeletons, f"ontology {title!r}: objects[{n}]")
            for n, entry in enumerate(structure["objects"])
        ]
        objects = tuple(
            found for found, entry in zip(listed, structure["objects"], strict=True) if not entry.get("archived")
        )
        return cls(title, objects, {**structure, "classifications": structure.get("classifications") or []})

    @classmethod
    def from_classes(
        cls,
        class_names: Sequence[str],
        shape: str = "bounding_box",
        point_names: Sequence[str] = (),
    ) -> Ontology:
        """Returns an ontology with one object for each class.

        Equal names and shapes give equal hashes and colours.

        Args:
            class_names: names of the objects.
            shape: of all objects.
            point_names: of the points of each object, if the objects are skeletons.
        """
        names = list(dict.fromkeys(class_names))
        entries = [
            {
                "id": str(number + 1),
                "name": name,
                "color": color,
                "shape": shape,
                "featureNodeHash": made_feature_hash(shape, name),
                "required": False,
                "archived": False,
            }
            for number, (name, color) in enumerate(zip(names, distinct_colors(len(names)), strict=True))
        ]
        structure: dict[str, Any] = {"objects": entries, "classifications": []}
        if shape == "skeleton":
            structure["skeleton_templates"] = [
                skeleton_template(
                    name,
                    made_feature_hash(shape, name),
                    [SkeletonPoint(point, made_feature_hash(f"point of {name}", point)) for point in point_names],
                )
                for name in names
            ]
        return cls.from_structure(structure, "Detector")

    @classmethod
    def load(cls, path: Path) -> Ontology:
        """Returns the ontology of a JSON file.

        Its title is that in the file, otherwise the file's name.

        Raises:
            OntologyError: the file is missing, or it is not an ontology.
        """
        document = read_json(path, OntologyError)
        if not isinstance(document, dict):
            raise OntologyError(f"{path}: got a {type(document).__name__}, expected an ontology: {{objects: […]}}")
        try:
            return cls.from_structure(document, str(document.get("title") or path.stem))
        except OntologyError as error:
            raise OntologyError(f"{path}: {error}") from error


def _read_object(entry: object, skeletons: Mapping[str, Skeleton], where: str) -> OntologyObject:
    if not isinstance(entry, Mapping):
        raise OntologyError(f"{where}: got a {type(entry).__name__}, expected an object")
    for key in ("id", "name", "color", "shape", "featureNodeHash"):
        if not isinstance(entry.get(key), str):
            raise OntologyError(f"{where}: {key}: got {entry.get(key)!r}, expected text")
    attributes = entry.get("attributes") or []
    by_name = skeletons.get(entry["name"], Skeleton()) if entry["shape"] == "skeleton" else Skeleton()
    skeleton = skeletons.get(entry["featureNodeHash"], by_name)
    return OntologyObject(
        name=entry["name"],
        color=entry["color"],
        shape=entry["shape"],
        feature_hash=entry["featureNodeHash"],
        value=entry["name"].lower().replace(" ", "_"),
        required_attributes=tuple(str(attribute.get("name")) for attribute in attributes if attribute.get("required")),
        skeleton=skeleton.points,
        skeleton_edges=skeleton.edges,
    )
