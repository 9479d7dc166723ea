"""What may be labelled, and which of the detector's classes becomes what."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import OntologyError, did_you_mean
from prelabel.files import read_json

BOX_SHAPES = ("bounding_box", "rotatable_bounding_box", "polygon", "bitmask")
"""Shapes that a box can be written as, the preferred one first."""


def made_feature_hash(kind: str, name: str) -> str:
    """Returns the feature hash of a part that prelabel makes itself: the same kind and name give the same one."""
    return hashlib.sha256(f"prelabel\n{kind}\n{name}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class OntologyObject:
    """A kind of object that annotators label.

    Attributes:
        name: what annotators see.
        color: `#RRGGBB`.
        shape: `bounding_box` and so on.
        feature_hash: identifies it on the platform.
        value: the name as label rows carry it: lower case, spaces as underscores.
        required_attributes: names of the attributes that an annotator has to fill.
    """

    name: str
    color: str
    shape: str
    feature_hash: str
    value: str
    required_attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ontology:
    """The objects of an Encord ontology.

    Attributes:
        title: what people call it.
        objects: those that are not archived, in the ontology's order.
        structure: the editor JSON as it came; the SDK's `OntologyStructure` loads it.
    """

    title: str
    objects: tuple[OntologyObject, ...]
    structure: Mapping[str, Any]

    @classmethod
    def from_structure(cls, document: Mapping[str, Any], title: str) -> Ontology:
        """Returns the ontology of editor JSON, or of a whole ontology document with the JSON under `editor`.

        Raises:
            OntologyError: if it is neither.
        """
        structure = document.get("editor", document)
        if not isinstance(structure, Mapping) or not isinstance(structure.get("objects"), list):
            raise OntologyError(f"ontology {title!r}: got no list 'objects', expected the JSON of Encord's editor")
        listed = [
            _read_object(entry, f"ontology {title!r}: objects[{n}]") for n, entry in enumerate(structure["objects"])
        ]
        objects = tuple(
            found for found, entry in zip(listed, structure["objects"], strict=True) if not entry.get("archived")
        )
        return cls(title, objects, {**structure, "classifications": structure.get("classifications") or []})

    @classmethod
    def from_classes(cls, class_names: Sequence[str], title: str = "Detector") -> Ontology:
        """Returns an ontology of one bounding box a class: the same names give the same hashes and colours."""
        names = list(dict.fromkeys(class_names))
        entries = [
            {
                "id": str(number + 1),
                "name": name,
                "color": _color(number),
                "shape": "bounding_box",
                "featureNodeHash": made_feature_hash("bounding_box", name),
                "required": False,
                "archived": False,
            }
            for number, name in enumerate(names)
        ]
        return cls.from_structure({"objects": entries, "classifications": []}, title)

    @classmethod
    def load(cls, path: Path) -> Ontology:
        """Returns the ontology of a JSON file; it is called by its own title, or by the file's name.

        Raises:
            OntologyError: if there is no such file, or it is not an ontology.
        """
        document = read_json(path, OntologyError)
        if not isinstance(document, dict):
            raise OntologyError(f"{path}: got a {type(document).__name__}, expected an ontology: {{objects: […]}}")
        try:
            return cls.from_structure(document, str(document.get("title") or path.stem))
        except OntologyError as error:
            raise OntologyError(f"{path}: {error}") from error


NAMES_IN_SHORT = 8


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which ontology object each of the detector's classes becomes.

    Attributes:
        class_names: the detector's, by `class_id`.
        objects: by `class_id`; None where a class is not labelled.
        ignored: classes that the config leaves out by choice.
        unmapped: classes that meet no object.
        categories: the objects that at least one class becomes, each once, in the ontology's order.
    """

    class_names: tuple[str, ...]
    objects: tuple[OntologyObject | None, ...]
    ignored: tuple[str, ...]
    unmapped: tuple[str, ...]
    categories: tuple[OntologyObject, ...]

    @property
    def category_index(self) -> NDArray[np.int64]:
        """Index into `categories` by `class_id`, int64; -1 where a class is not labelled."""
        places = {category: index for index, category in enumerate(self.categories)}
        return np.array([-1 if found is None else places[found] for found in self.objects], np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the map before a run, one sentence each; every dropped class is named."""
        return self._notes(len(self.unmapped))

    @property
    def short_notes(self) -> tuple[str, ...]:
        """The same for the end of a run; of many dropped classes the first are named."""
        return self._notes(NAMES_IN_SHORT)

    def _notes(self, num_names: int) -> tuple[str, ...]:
        said = [
            f"{category.name}: {', '.join(map(repr, category.required_attributes))} left for annotators to fill"
            for category in self.categories
            if category.required_attributes
        ]
        if self.unmapped:
            more = f" and {len(self.unmapped) - num_names} more" if len(self.unmapped) > num_names else ""
            said.append(f"not in the ontology, dropped and counted: {', '.join(self.unmapped[:num_names])}{more}")
        return tuple(said)


NO_BOXES = LabelMap((), (), (), (), ())
"""Of agents that write no boxes."""


def build_label_map(
    class_names: Sequence[str],
    ontology: Ontology,
    classes: Mapping[str, str | None],
    *,
    unmapped: Literal["ignore", "error"] = "ignore",
) -> LabelMap:
    """Returns the map from a detector's classes to an ontology's objects.

    A class becomes the object of its own name (as written, else whatever the case) unless `classes` says otherwise.

    Args:
        class_names: the detector's, by `class_id`.
        ontology: where the objects are.
        classes: by class, the object's name or feature hash; None: leave the class out.
        unmapped: whether a class that meets no object is counted or refused.

    Raises:
        OntologyError: if a class or an object is not there or not clear, or if nothing is left to label.
    """
    for name in classes:
        if name not in class_names:
            raise OntologyError(
                f"labels.classes: the detector has no class {name!r}: {did_you_mean(name, class_names)}"
            )
    objects = [_object_for(name, ontology, classes) for name in class_names]
    missing = [
        name
        for name, found in zip(class_names, objects, strict=True)
        if found is None and classes.get(name, name) is not None
    ]
    if missing and unmapped == "error":
        raise OntologyError(_missing_text(missing[0], ontology))
    if not any(objects):
        raise OntologyError(_nothing_text(class_names, ontology))
    return LabelMap(
        class_names=tuple(class_names),
        objects=tuple(objects),
        ignored=tuple(name for name in class_names if name in classes and classes[name] is None),
        unmapped=tuple(missing),
        categories=tuple(found for found in ontology.objects if found in objects),
    )


def _object_for(name: str, ontology: Ontology, classes: Mapping[str, str | None]) -> OntologyObject | None:
    if name not in classes:
        return _find_object(name, ontology)
    target = classes[name]
    if target is None:
        return None
    found = _find_object(target, ontology)
    if found is None:
        raise OntologyError(f"labels.classes: {name!r} is mapped to {target!r}, {_absence_text(target, ontology)}")
    return found


def _find_object(target: str, ontology: Ontology) -> OntologyObject | None:
    usable = [candidate for candidate in ontology.objects if candidate.shape in BOX_SHAPES]
    exact = [candidate for candidate in usable if target in (candidate.name, candidate.feature_hash)]
    matches = exact or [candidate for candidate in usable if candidate.name.casefold() == target.casefold()]
    if not matches:
        return None
    best = min(BOX_SHAPES.index(candidate.shape) for candidate in matches)
    matches = [candidate for candidate in matches if BOX_SHAPES.index(candidate.shape) == best]
    if len(matches) > 1:
        listed = ", ".join(f"{candidate.name!r} = {candidate.feature_hash}" for candidate in matches)
        raise OntologyError(
            f"class {target!r}: ontology {ontology.title!r} has {len(matches)} such objects of shape "
            f"{matches[0].shape}: name one by its feature hash in labels.classes: {listed}"
        )
    return matches[0]


def _absence_text(target: str, ontology: Ontology) -> str:
    for candidate in ontology.objects:
        if candidate.name.casefold() == target.casefold():
            return (
                f"which ontology {ontology.title!r} has as a {candidate.shape}: "
                f"a box can be written as {', '.join(BOX_SHAPES)}"
            )
    return f"which is not in ontology {ontology.title!r}: {did_you_mean(target, _usable_names(ontology))}"


def _missing_text(name: str, ontology: Ontology) -> str:
    hint = did_you_mean(name, _usable_names(ontology))
    return (
        f"class {name!r} is not in ontology {ontology.title!r}: add it there, or map it: "
        f"labels: {{classes: {{{name}: null}}}}; {hint}"
    )


def _nothing_text(class_names: Sequence[str], ontology: Ontology) -> str:
    names = _usable_names(ontology)
    shown = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
    return (
        f"none of the detector's classes ({shown}) becomes an object of ontology {ontology.title!r} "
        f"({', '.join(names) or 'it has no box shapes'}): map them: "
        f"labels: {{classes: {{{class_names[0] if class_names else 'person'}: {names[0] if names else '…'}}}}}"
    )


def _usable_names(ontology: Ontology) -> list[str]:
    return [candidate.name for candidate in ontology.objects if candidate.shape in BOX_SHAPES]


def _read_object(entry: object, where: str) -> OntologyObject:
    if not isinstance(entry, Mapping):
        raise OntologyError(f"{where}: got a {type(entry).__name__}, expected an object")
    for key in ("id", "name", "color", "shape", "featureNodeHash"):
        if not isinstance(entry.get(key), str):
            raise OntologyError(f"{where}: {key}: got {entry.get(key)!r}, expected text")
    attributes = entry.get("attributes") or []
    return OntologyObject(
        name=entry["name"],
        color=entry["color"],
        shape=entry["shape"],
        feature_hash=entry["featureNodeHash"],
        value=entry["name"].lower().replace(" ", "_"),
        required_attributes=tuple(str(attribute.get("name")) for attribute in attributes if attribute.get("required")),
    )


def _color(number: int) -> str:
    # Steps of the golden ratio keep neighbours in a list far apart in hue, however long the list; three lightnesses
    # keep hues that come close apart, and all three are legible on a picture and under white text.
    hue = number * 0.6180339887498949 % 1.0
    lightness = (0.45, 0.35, 0.55)[number % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.85)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"
