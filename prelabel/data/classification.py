"""The classifications of an ontology, and their possible answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from prelabel.data.ontology import Ontology, made_feature_hash
from prelabel.errors import OntologyError, did_you_mean

AttributeKind = Literal["radio", "checklist", "text"]
PATH_SIGN = " > "
"""The separator between the labels in the path of a nested option."""


@dataclass(frozen=True, slots=True)
class Step:
    """The value of one attribute: an option or a text.

    Attributes:
        attribute_name: shown to annotators.
        attribute_hash: identifies the attribute on the platform.
        label: the option's label, or the text.
        value: the option's value in label rows, or the text.
        option_hash: identifies the option on the platform; empty for a text.
    """

    attribute_name: str
    attribute_hash: str
    label: str
    value: str
    option_hash: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One possible answer of a classification.

    Attributes:
        name: its name in configs and reports: its label, or its path if another choice has the same label.
        steps: from the root attribute down to the choice's own option; a nested option implies its parents.
    """

    name: str
    steps: tuple[Step, ...]

    @property
    def path(self) -> str:
        """The labels from the root down, such as `Cat > Tabby`."""
        return PATH_SIGN.join(step.label for step in self.steps)

    @property
    def names(self) -> set[str]:
        """All names by which a config can refer to it: its name, path, label and feature hash."""
        return {self.name, self.path, self.steps[-1].label, self.steps[-1].option_hash}


@dataclass(frozen=True)
class Classification:
    """A question that annotators answer for a whole image or a range of frames.

    Attributes:
        name: shown to annotators.
        feature_hash: identifies it on the platform.
        kind: of its root attribute.
        choices: all possible answers, nested options after their parent; empty for a text.
        is_global: whether one answer is for all frames.
        root: name and hash of its root attribute.
    """

    name: str
    feature_hash: str
    kind: AttributeKind
    choices: tuple[Choice, ...]
    is_global: bool
    root: tuple[str, str]

    def find(self, target: str) -> Choice | None:
        """Returns the choice with this label, path or feature hash; None if there is none.

        Case does not matter for a label or path. A classification of kind text accepts any target.

        Raises:
            OntologyError: several choices have the label.
        """
        if self.kind == "text":
            return Choice(target, (Step(*self.root, target, target),))
        found = self._by_name.get(target) or self._by_folded_name.get(target.casefold()) or []
        if len(found) > 1:
            listed = ", ".join(repr(choice.path) for choice in found)
            raise OntologyError(f"classification {self.name!r} has several options {target!r}: name one of {listed}")
        return found[0] if found else None

    @cached_property
    def _by_name(self) -> dict[str, list[Choice]]:
        return _grouped((name, choice) for choice in self.choices for name in choice.names)

    @cached_property
    def _by_folded_name(self) -> dict[str, list[Choice]]:
        return _grouped(
            (name, choice)
            for choice in self.choices
            for name in {choice.path.casefold(), choice.steps[-1].label.casefold()}
        )


def classifications_of(ontology: Ontology) -> tuple[Classification, ...]:
    """Returns the classifications that are not archived and whose answers are options or a text.

    Raises:
        OntologyError: the JSON of a classification does not have the form that Encord's editor writes.
    """
    found = []
    for number, entry in enumerate(ontology.structure.get("classifications", ())):
        try:
            classification = _read(entry)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            where = f"ontology {ontology.title!r}: classifications[{number}]"
            raise OntologyError(f"{where}: is not as Encord's editor writes it: {error!r}") from error
        if classification is not None:
            found.append(classification)
    return tuple(found)


def find_classification(ontology: Ontology, name: str | None) -> Classification:
    """Returns the classification of this name or feature hash; by default the only one.

    Raises:
        OntologyError: there is no such classification, or there are several and `name` is None. The message names those
            that exist.
    """
    known = classifications_of(ontology)
    names = [classification.name for classification in known]
    if name is None:
        if len(known) == 1:
            return known[0]
        there = f"has {len(known)}: name one: {', '.join(names)}" if known else "has none: add one there"
        raise OntologyError(f"labels.classification: is missing, and ontology {ontology.title!r} {there}")
    found = [entry for entry in known if name in (entry.name, entry.feature_hash)] or [
        entry for entry in known if name.casefold() == entry.name.casefold()
    ]
    if not found:
        raise OntologyError(
            f"labels.classification: ontology {ontology.title!r} has no {name!r}: {did_you_mean(name, names)}"
        )
    if len(found) > 1:
        listed = ", ".join(entry.feature_hash for entry in found)
        raise OntologyError(f"labels.classification: {len(found)} are called {name!r}: name one by its hash: {listed}")
    return found[0]


def ontology_of_options(name: str, options: Sequence[str]) -> Ontology:
    """Returns an ontology of one radio with these options; equal names give equal hashes."""
    radio = {
        "id": "1.1",
        "name": name,
        "type": "radio",
        "required": False,
        "dynamic": False,
        "featureNodeHash": made_feature_hash("radio", name),
        "options": [
            {
                "id": f"1.1.{number}",
                "label": option,
                "value": option.lower().replace(" ", "_"),
                "featureNodeHash": made_feature_hash("option", f"{name}\n{option}"),
            }
            for number, option in enumerate(dict.fromkeys(options), start=1)
        ],
    }
    classification = {"id": "1", "featureNodeHash": made_feature_hash("classification", name), "attributes": [radio]}
    return Ontology.from_structure({"objects": [], "classifications": [classification]}, "Classifier")


def _read(entry: Mapping[str, Any]) -> Classification | None:
    attributes = [attribute for attribute in entry["attributes"] if not attribute.get("archived")]
    if entry.get("archived") or not attributes or attributes[0]["type"] not in ("radio", "checklist", "text"):
        return None
    root = attributes[0]
    choices = list(_choices(root, ()))
    times = Counter(choice.name for choice in choices)
    return Classification(
        name=root["name"],
        feature_hash=entry["featureNodeHash"],
        kind=root["type"],
        choices=tuple(each if times[each.name] == 1 else replace(each, name=each.path) for each in choices),
        is_global=entry.get("level") == "global",
        root=(root["name"], root["featureNodeHash"]),
    )


def _choices(attribute: Mapping[str, Any], above: tuple[Step, ...]) -> Iterator[Choice]:
    """Yields the options of an attribute, and those of the radios nested in them."""
    for option in attribute.get("options") or ():
        if option.get("archived"):
            continue
        step = Step(
            attribute["name"],
            attribute["featureNodeHash"],
            option["label"],
            option["value"],
            option["featureNodeHash"],
        )
        steps = (*above, step)
        yield Choice(option["label"], steps)
        for nested in option.get("options") or ():
            if nested["type"] == "radio" and not nested.get("archived"):
                yield from _choices(nested, steps)


def _grouped(named: Iterable[tuple[str, Choice]]) -> dict[str, list[Choice]]:
    groups: dict[str, list[Choice]] = defaultdict(list)
    for name, choice in named:
        groups[name].append(choice)
    return dict(groups)
