"""Proposes an ontology object or option for each class of a model. A person checks the proposals."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from prelabel.data.ontology import BOX_SHAPES, Ontology, OntologyObject
from prelabel.models.weights import ModelCard

NEAR = 0.8  # least difflib ratio at which two names count as spellings of one name

# COCO 2017's thing classes in the order of their ids, with the names that Ultralytics and torchvision use.
COCO_NAMES = tuple(
    (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop "
        "sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, "
        "umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball "
        "glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, "
        "apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, "
        "dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
        "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
    ).split(", ")
)

# Synonyms of a class, then more general terms. The first one in the ontology is proposed.
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "person": ("pedestrian", "human", "people", "worker"),
    "bicycle": ("bike", "cycle", "two wheeler"),
    "car": ("automobile", "passenger car", "vehicle", "motor vehicle"),
    "motorcycle": ("motorbike", "two wheeler", "vehicle", "motor vehicle"),
    "airplane": ("aeroplane", "plane", "aircraft"),
    "bus": ("coach", "vehicle", "motor vehicle"),
    "truck": ("lorry", "heavy vehicle", "vehicle", "motor vehicle"),
    "train": ("rail vehicle",),
    "boat": ("ship", "vessel", "watercraft"),
    "traffic light": ("traffic signal", "signal"),
    "stop sign": ("traffic sign", "road sign", "sign"),
    "bird": ("animal",),
    "cat": ("animal",),
    "dog": ("animal",),
    "horse": ("animal", "livestock"),
    "sheep": ("animal", "livestock"),
    "cow": ("cattle", "animal", "livestock"),
    "elephant": ("animal",),
    "bear": ("animal",),
    "zebra": ("animal",),
    "giraffe": ("animal",),
    "backpack": ("rucksack", "bag", "luggage"),
    "handbag": ("purse", "bag", "luggage"),
    "suitcase": ("luggage", "baggage", "bag"),
    "sports ball": ("ball",),
    "wine glass": ("glass",),
    "donut": ("doughnut",),
    "chair": ("furniture",),
    "couch": ("sofa", "furniture"),
    "bed": ("furniture",),
    "dining table": ("table", "furniture"),
    "potted plant": ("plant",),
    "tv": ("television", "monitor", "screen"),
    "laptop": ("computer", "notebook"),
    "cell phone": ("mobile phone", "phone", "smartphone", "mobile"),
    "refrigerator": ("fridge",),
    "hair drier": ("hair dryer",),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed object for a class.

    Attributes:
        target: the object's name, or its feature hash if several objects have that name.
        is_guess: whether the names differ, so that a person must check.
    """

    target: str
    is_guess: bool


def known_classes(card: ModelCard | None) -> tuple[str, ...]:
    """Returns a model's class names if they are known without its weights; otherwise none."""
    if card is None:
        return ()
    if card.classes is not None:
        return card.classes
    score = (card.model_extra or {}).get("score")
    return COCO_NAMES if "COCO" in str(score) else ()  # a model that was evaluated on COCO has COCO's classes


def classes_of_options(card: ModelCard | None, options: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """Returns a proposed option for each of a classifier's classes, and whether it is a guess.

    It is the option with the same name, or else an option that the class's name ends with: `Egyptian cat` becomes
    `Cat`. Classes without an option are omitted. The result is empty if the classes are not known without the weights.
    """
    found: dict[str, tuple[str, bool]] = {}
    by_name = {_plain(option): option for option in options}
    for name in _published_classes(card):
        words = _plain(name).split()
        endings = [" ".join(words[start:]) for start in range(len(words))]
        option = next((by_name[ending] for ending in endings if ending in by_name), None)
        if option is not None:
            found[name] = option, _plain(name) != _plain(option)
    return found


def _published_classes(card: ModelCard | None) -> Sequence[str]:
    """Returns a classifier's classes, from its card or from torchvision's published weights."""
    if card is None or card.classes is not None or card.use != "torchvision" or card.builder is None:
        return known_classes(card)
    from prelabel.models.classifiers.torchvision import find_published

    names: Sequence[str] = find_published(card.builder, None, card.file).meta["categories"]
    return names


def propose_map(class_names: Sequence[str], ontology: Ontology) -> dict[str, Proposal | None]:
    """Returns a proposed object for each class; None if no name is similar."""
    objects = [candidate for candidate in ontology.objects if candidate.shape in BOX_SHAPES]
    return {name: _propose(name, objects) for name in class_names}


def _propose(class_name: str, objects: Sequence[OntologyObject]) -> Proposal | None:
    found = _called(class_name, objects)
    if found is not None:
        return Proposal(_target(found, objects), is_guess=False)
    for other_name in _OTHER_NAMES.get(_plain(class_name), ()):
        found = _called(other_name, objects)
        if found is not None:
            return Proposal(_target(found, objects), is_guess=True)
    by_name = {_plain(candidate.name): candidate for candidate in objects}
    near = difflib.get_close_matches(_plain(class_name), list(by_name), n=1, cutoff=NEAR)
    return Proposal(_target(by_name[near[0]], objects), is_guess=True) if near else None


def _called(name: str, objects: Sequence[OntologyObject]) -> OntologyObject | None:
    """Returns the object with this name. It also accepts another case or spacing, and then singular or plural."""
    tests = (
        lambda candidate: candidate.name == name,
        lambda candidate: _plain(candidate.name) == _plain(name),
        lambda candidate: bool(_numbers(candidate.name) & _numbers(name)),
    )
    for is_called in tests:
        found = [candidate for candidate in objects if is_called(candidate)]
        if found:
            return min(found, key=lambda candidate: BOX_SHAPES.index(candidate.shape))
    return None


def _target(found: OntologyObject, objects: Sequence[OntologyObject]) -> str:
    same = [candidate for candidate in objects if (candidate.name, candidate.shape) == (found.name, found.shape)]
    return found.name if len(same) == 1 else found.feature_hash


def _plain(name: str) -> str:
    """Returns a name in lower case, with spaces instead of underscores and hyphens.

    >>> _plain("Traffic_Light")
    'traffic light'
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _numbers(name: str) -> set[str]:
    """Returns a name and its possible singular forms.

    >>> sorted(_numbers("Buses")), sorted(_numbers("bus"))
    (['bus', 'buse', 'buses'], ['bu', 'bus'])
    """
    plain = _plain(name)
    endings = {"ies": "y", "es": "", "s": ""}
    stems = {plain.removesuffix(ending) + single for ending, single in endings.items() if plain.endswith(ending)}
    return {plain} | (stems if not plain.endswith("ss") else set())
