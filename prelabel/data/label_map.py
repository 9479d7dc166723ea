"""Maps the classes of a detector to ontology objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, SHAPES_OF, OutputSpec
from prelabel.data.ontology import BOX_SHAPES, Ontology, OntologyObject, noun_of
from prelabel.data.skeletons import match_keypoints
from prelabel.errors import OntologyError, did_you_mean

NAMES_IN_SHORT = 8
MASK_SHAPES = SHAPES_OF["mask"]
Refine = Literal["all"] | Sequence[str]
"""Objects whose boxes become masks: all of a fitting shape, or those with these names or feature hashes."""


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Maps a detector's classes to ontology objects.

    Attributes:
        class_names: the detector's, by `class_id`.
        objects: by `class_id`; None if the class is not labelled.
        ignored: classes that the config maps to null.
        unmapped: classes without an object.
        categories: the objects that a class is mapped to, each once, in the ontology's order.
        offer: what the detector gives in addition to boxes.
        keypoints: by `class_id`, the number of the detector's keypoint for each point of the object's skeleton; an
            empty tuple if the object is no skeleton. Empty if no object is a skeleton.
        refined: class ids whose boxes a refiner turns into masks. Masks of the detector are not used for them.
    """

    class_names: tuple[str, ...]
    objects: tuple[OntologyObject | None, ...]
    ignored: tuple[str, ...]
    unmapped: tuple[str, ...]
    categories: tuple[OntologyObject, ...]
    offer: OutputSpec = BOXES_ONLY
    keypoints: tuple[tuple[int, ...], ...] = ()
    refined: frozenset[int] = frozenset()

    @property
    def wants_geometry(self) -> frozenset[int]:
        """The class ids whose ontology shape can hold the detector's masks, rotated boxes or keypoints."""
        return frozenset(
            class_id
            for class_id, found in enumerate(self.objects)
            if found is not None and found.shape in self.offer.shapes and class_id not in self.refined
        )

    @property
    def category_index(self) -> NDArray[np.int64]:
        """The index into `categories` for each `class_id`, int64; -1 if the class is not labelled."""
        places = {category: index for index, category in enumerate(self.categories)}
        return np.array([-1 if found is None else places[found] for found in self.objects], np.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the map, one sentence each; names only the first of many dropped classes."""
        said = [
            f"{category.name}: {', '.join(map(repr, category.required_attributes))} left for annotators to fill"
            for category in self.categories
            if category.required_attributes
        ]
        if self.unmapped:
            more = len(self.unmapped) - NAMES_IN_SHORT
            names = ", ".join(self.unmapped[:NAMES_IN_SHORT]) + (f" and {more} more" if more > 0 else "")
            said.append(f"not in the ontology, dropped and counted: {names}")
        return tuple(said)

    @property
    def noun(self) -> tuple[str, str]:
        """The noun for one label and for several, such as box and boxes; it depends on the objects' shapes."""
        return noun_of(category.shape for category in self.categories)


NO_BOXES = LabelMap((), (), (), (), ())
"""The label map of agents that write no boxes."""


def build_label_map(
    class_names: Sequence[str],
    ontology: Ontology,
    classes: Mapping[str, str | None],
    *,
    unmapped: Literal["ignore", "error"] = "ignore",
    offer: OutputSpec = BOXES_ONLY,
    keypoints: Mapping[str, str] | None = None,
    refine: Refine | None = None,
) -> LabelMap:
    """Returns the map from a detector's classes to an ontology's objects.

    A class that is not in `classes` is mapped to the object with its name. Case matters only if two names differ in
    nothing else.

    Args:
        class_names: the detector's, by `class_id`.
        ontology: of the objects.
        classes: from class to name or feature hash of an object; a class mapped to None is not labelled.
        unmapped: `ignore` drops and counts detections of classes without an object; `error` refuses such classes.
        offer: what the detector gives in addition to boxes. If several objects have one name, the class is mapped to
            the object whose shape can hold this.
        keypoints: from the detector's keypoint to the skeleton's point; by default to the point with its name.
        refine: objects whose boxes a refiner turns into masks; `all`: every polygon and bitmask; None: there is no
            refiner.

    Raises:
        OntologyError: a class, object or point is missing or ambiguous, no class is mapped, or no mapped object can
            hold a mask.
    """
    for name in classes:
        if name not in class_names:
            raise OntologyError(
                f"labels.classes: the detector has no class {name!r}: {did_you_mean(name, class_names)}"
            )
    shapes = tuple(dict.fromkeys([*offer.shapes, *(MASK_SHAPES if refine is not None else ()), *BOX_SHAPES]))
    objects = [_object_for(name, ontology, classes, shapes) for name in class_names]
    missing = [
        name
        for name, found in zip(class_names, objects, strict=True)
        if found is None and classes.get(name, name) is not None
    ]
    if missing and unmapped == "error":
        raise OntologyError(_missing_text(missing[0], ontology, shapes))
    if not missing and not any(objects):
        raise OntologyError("labels.classes: ignores every class of the detector: map at least one to an object")
    if not any(objects):
        raise OntologyError(_nothing_text(class_names, ontology, shapes))
    return LabelMap(
        class_names=tuple(class_names),
        objects=tuple(objects),
        ignored=tuple(name for name in class_names if name in classes and classes[name] is None),
        unmapped=tuple(missing),
        categories=tuple(found for found in ontology.objects if found in objects),
        offer=offer,
        keypoints=_keypoints_of(objects, offer, keypoints or {}),
        refined=frozenset() if refine is None else _refined(objects, refine, ontology),
    )


def _refined(objects: Sequence[OntologyObject | None], refine: Refine, ontology: Ontology) -> frozenset[int]:
    """Returns the class ids whose objects get masks.

    Raises:
        OntologyError: no class is mapped to such an object, or to one that `refine` names.
    """
    fitting = {i: found for i, found in enumerate(objects) if found is not None and found.shape in MASK_SHAPES}
    if refine == "all":
        if not fitting:
            raise OntologyError(
                f"refine: makes masks, and no class is mapped to a {' or '.join(MASK_SHAPES)} of ontology "
                f"{ontology.title!r}: add such an object there, or leave refine out"
            )
        return frozenset(fitting)
    for name in refine:
        if not any(name in (found.name, found.feature_hash) for found in fitting.values()):
            hint = did_you_mean(name, [found.name for found in fitting.values()])
            raise OntologyError(
                f"refine.objects: no class is mapped to a {' or '.join(MASK_SHAPES)} {name!r} of ontology "
                f"{ontology.title!r}: {hint}"
            )
    return frozenset(i for i, found in fitting.items() if {found.name, found.feature_hash} & set(refine))


def _keypoints_of(
    objects: Sequence[OntologyObject | None], offer: OutputSpec, renamed: Mapping[str, str]
) -> tuple[tuple[int, ...], ...]:
    if not any(found is not None and found.shape == "skeleton" for found in objects):
        if renamed:
            raise OntologyError("labels.keypoints: no class is mapped to a skeleton: leave it out")
        return ()
    return tuple(
        match_keypoints(found.skeleton, found.name, offer.keypoint_names, renamed)
        if found is not None and found.shape == "skeleton"
        else ()
        for found in objects
    )


def _object_for(
    name: str, ontology: Ontology, classes: Mapping[str, str | None], shapes: Sequence[str]
) -> OntologyObject | None:
    if name not in classes:
        return _find_object(name, ontology, shapes)
    target = classes[name]
    if target is None:
        return None
    found = _find_object(target, ontology, shapes)
    if found is None:
        absence = _absence_text(target, ontology, shapes)
        raise OntologyError(f"labels.classes: {name!r} is mapped to {target!r}, {absence}")
    return found


def _find_object(target: str, ontology: Ontology, shapes: Sequence[str]) -> OntologyObject | None:
    usable = [candidate for candidate in ontology.objects if candidate.shape in shapes]
    exact = [candidate for candidate in usable if target in (candidate.name, candidate.feature_hash)]
    matches = exact or [candidate for candidate in usable if candidate.name.casefold() == target.casefold()]
    if not matches:
        return None
    best = min(shapes.index(candidate.shape) for candidate in matches)
    matches = [candidate for candidate in matches if shapes.index(candidate.shape) == best]
    if len(matches) > 1:
        listed = ", ".join(f"{candidate.name!r} = {candidate.feature_hash}" for candidate in matches)
        raise OntologyError(
            f"class {target!r}: ontology {ontology.title!r} has {len(matches)} such objects of shape "
            f"{matches[0].shape}: name one by its feature hash in labels.classes: {listed}"
        )
    return matches[0]


def _absence_text(target: str, ontology: Ontology, shapes: Sequence[str]) -> str:
    for candidate in ontology.objects:
        if candidate.name.casefold() == target.casefold():
            return (
                f"which ontology {ontology.title!r} has as a {candidate.shape}: "
                f"what is found can be written as {', '.join(shapes)}"
            )
    return f"which is not in ontology {ontology.title!r}: {did_you_mean(target, _usable_names(ontology, shapes))}"


def _missing_text(name: str, ontology: Ontology, shapes: Sequence[str]) -> str:
    hint = did_you_mean(name, _usable_names(ontology, shapes))
    return (
        f"class {name!r} is not in ontology {ontology.title!r}: add it there, or map it: "
        f"labels: {{classes: {{{name}: null}}}}; {hint}"
    )


def _nothing_text(class_names: Sequence[str], ontology: Ontology, shapes: Sequence[str]) -> str:
    names = _usable_names(ontology, shapes)
    if not names:
        return (
            f"ontology {ontology.title!r} has no object of shape {', '.join(shapes)}, so nothing can be labelled: "
            "add an object there"
        )
    shown = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
    return (
        f"none of the detector's classes ({shown}) is mapped to an object of ontology {ontology.title!r} "
        f"({', '.join(names)}): map them: "
        f"labels: {{classes: {{{class_names[0] if class_names else 'person'}: {names[0]}}}}}"
    )


def _usable_names(ontology: Ontology, shapes: Sequence[str]) -> list[str]:
    return [candidate.name for candidate in ontology.objects if candidate.shape in shapes]


@dataclass(frozen=True, slots=True)
class LabelledVideo:
    """A video with the detections that become labels: the input of every export.

    Attributes:
        title: of the video, unique in an export.
        info: the video.
        detections: filtered; every class is mapped, and every box is in its frame.
        label_map: from the detector's classes to ontology objects.
    """

    title: str
    info: VideoInfo
    detections: VideoDetections
    label_map: LabelMap
