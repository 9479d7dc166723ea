"""The skeletons of an ontology, and the detector's keypoint for each of their points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prelabel.errors import OntologyError, did_you_mean

Edge = tuple[int, int]
"""Two connected points of a skeleton, by number."""

# The skeleton of a person in COCO (person_keypoints_val2017.json, `categories`).
_EDGES_OF_A_PERSON = tuple(
    (one, other)
    for one, others in {
        "nose": "left_eye right_eye",
        "left_eye": "right_eye left_ear",
        "right_eye": "right_ear",
        "left_ear": "left_shoulder",
        "right_ear": "right_shoulder",
        "left_shoulder": "right_shoulder left_elbow left_hip",
        "right_shoulder": "right_elbow right_hip",
        "left_elbow": "left_wrist",
        "right_elbow": "right_wrist",
        "left_hip": "right_hip left_knee",
        "right_hip": "right_knee",
        "left_knee": "left_ankle",
        "right_knee": "right_ankle",
    }.items()
    for other in others.split()
)


@dataclass(frozen=True, slots=True)
class SkeletonPoint:
    """A point of a skeleton.

    Attributes:
        name: shown to annotators.
        feature_hash: identifies it on the platform.
    """

    name: str
    feature_hash: str


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A skeleton of an ontology.

    Attributes:
        points: in the template's order.
        edges: between points. If the template has none and the points have the names of COCO's person, these are the
            edges of COCO's person.
    """

    points: tuple[SkeletonPoint, ...] = ()
    edges: tuple[Edge, ...] = ()


def read_skeletons(structure: Mapping[str, Any]) -> dict[str, Skeleton]:
    """Returns the skeletons by the feature hash of their object, and also by its name.

    A template that cannot be read is left out. `match_keypoints` raises an error if a class needs it.

    Args:
        structure: the editor's JSON of an ontology.
    """
    skeletons: dict[str, Skeleton] = {}
    for entry in structure.get("skeleton_templates") or ():
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            template = entry["template"]
            keys = sorted(template["skeleton"], key=int)
            listed = [template["skeleton"][key] for key in keys]
            points = tuple(SkeletonPoint(str(point["name"]), str(point["featureHash"])) for point in listed)
            read = Skeleton(points, _edges_of(template, keys) or _edges_of_a_person(points))
            skeletons.setdefault(template["name"], read)
            if template.get("feature_node_hash"):
                skeletons[template["feature_node_hash"]] = read
    return skeletons


def _edges_of(template: Mapping[str, Any], keys: Sequence[str]) -> tuple[Edge, ...]:
    """Returns the edges of a template, which are written as `{"0": {"1": {…}}}`, without those to missing points."""
    numbers = {key: number for number, key in enumerate(keys)}
    listed = template.get("skeletonEdges") or {}
    pairs = ((one, other) for one, others in listed.items() for other in others)
    return tuple((numbers[one], numbers[other]) for one, other in pairs if one in numbers and other in numbers)


def _edges_of_a_person(points: Sequence[SkeletonPoint]) -> tuple[Edge, ...]:
    """Returns the edges of COCO's person between the points that have its names.

    >>> _edges_of_a_person([SkeletonPoint(name, "") for name in ("Left Knee", "tail", "left-ankle")])
    ((0, 2),)
    """
    numbers = {_plain(point.name): number for number, point in enumerate(points)}
    pairs = ((_plain(one), _plain(other)) for one, other in _EDGES_OF_A_PERSON)
    return tuple((numbers[one], numbers[other]) for one, other in pairs if one in numbers and other in numbers)


def skeleton_template(object_name: str, feature_hash: str, points: Sequence[SkeletonPoint]) -> dict[str, Any]:
    """Returns the template of a skeleton in the editor's JSON.

    Its points are on a circle, and it has no edges.

    Args:
        object_name: of the ontology object.
        feature_hash: of the ontology object.
        points: in the template's order.
    """
    turns = [2 * math.pi * number / len(points) for number in range(len(points))]
    return {
        "template": {
            "name": object_name,
            "width": 1.0,
            "height": 1.0,
            "skeleton": {
                str(number): {
                    "x": round(0.5 + 0.4 * math.sin(turn), 5),
                    "y": round(0.5 - 0.4 * math.cos(turn), 5),
                    "name": point.name,
                    "color": "#FFFFFF",
                    "value": point.name.lower().replace(" ", "_"),
                    "featureHash": point.feature_hash,
                }
                for number, (point, turn) in enumerate(zip(points, turns, strict=True))
            },
            "skeletonEdges": {},
            "feature_node_hash": feature_hash,
            "shape": "skeleton",
        }
    }


def match_keypoints(
    skeleton: Sequence[SkeletonPoint], object_name: str, keypoint_names: Sequence[str], renamed: Mapping[str, str]
) -> tuple[int, ...]:
    """Returns the number of the detector's keypoint for each point of a skeleton.

    Case, spaces, hyphens and underscores do not matter. The skeleton may lack some of the detector's keypoints.

    Args:
        skeleton: the points of the skeleton.
        object_name: of the ontology object, for messages.
        keypoint_names: the detector's.
        renamed: from the detector's names to the skeleton's.

    Raises:
        OntologyError: a point has no keypoint (the platform accepts complete skeletons only), or the ontology does not
            list the skeleton's points.

    >>> skeleton = (SkeletonPoint("Left Eye", "a1"), SkeletonPoint("Nose", "b2"))
    >>> match_keypoints(skeleton, "Person", ["nose", "left_eye", "left_ear"], {})
    (1, 0)
    """
    for name in renamed:
        if name not in keypoint_names:
            raise OntologyError(
                f"labels.keypoints: the detector has no keypoint {name!r}: {did_you_mean(name, keypoint_names)}"
            )
    if not skeleton:
        raise OntologyError(
            f"skeleton {object_name!r}: the ontology's skeleton_templates do not say which points it has"
        )
    numbers = {_plain(renamed.get(name, name)): number for number, name in enumerate(keypoint_names)}
    for point in skeleton:
        if _plain(point.name) not in numbers:
            raise OntologyError(
                f"labels.keypoints: no keypoint is mapped to the point {point.name!r} of the skeleton {object_name!r}: "
                f"{did_you_mean(point.name, keypoint_names)}; map it: "
                f"labels: {{keypoints: {{{keypoint_names[0] if keypoint_names else '…'}: {point.name}}}}}"
            )
    return tuple(numbers[_plain(point.name)] for point in skeleton)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
