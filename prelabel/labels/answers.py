"""From a classifier's probabilities to the answer of a classification."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prelabel.data.classification import Choice, Classification, Step
from prelabel.errors import OntologyError, did_you_mean


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classification says.

    Attributes:
        choices: one; of a checklist one or more, in the ontology's order.
        confidence: 0..1, of the choice; of several the least.
    """

    choices: tuple[Choice, ...]
    confidence: float

    @property
    def name(self) -> str:
        """What reports call it: `Cat`, or `Red + Blue` of a checklist."""
        return " + ".join(choice.name for choice in self.choices)


@dataclass(frozen=True, slots=True)
class PlacedAnswer:
    """An answer, and where it holds.

    Attributes:
        answer: what is said.
        first_frame: 0-based.
        last_frame: 0-based, included.
    """

    answer: Answer
    first_frame: int
    last_frame: int


@dataclass(frozen=True)
class AnswerMap:
    """Which choice of a classification each class of a model becomes.

    Attributes:
        classification: that is answered.
        class_names: the model's, by class id.
        choices: those that some class becomes, and the options above them; in the ontology's order.
        links: int64 (L, 2), class id and place in `choices`: the class becomes the choice, or one below it.
        ignored: classes that the config leaves out by choice.
        unmapped: classes that meet no choice.
    """

    classification: Classification
    class_names: tuple[str, ...]
    choices: tuple[Choice, ...]
    links: NDArray[np.int64]
    ignored: tuple[str, ...]
    unmapped: tuple[str, ...]

    def scores(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns how sure each choice is, float32 (M, K), of probabilities float32 (M, C).

        The classes of a radio or a text exclude each other, so that the probability of a choice is the sum over the
        classes that become it. Of a checklist each choice is a question of its own: the largest counts.
        """
        scores = np.zeros((len(self.choices), len(probabilities)), np.float32)
        class_ids, places = self.links.T
        gather = np.maximum if self.classification.kind == "checklist" else np.add
        gather.at(scores, places, probabilities.T[class_ids])
        return np.minimum(scores.T, np.float32(1))

    def answer(self, scores: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Answer | None:
        """Returns the answer, None where nothing is sure enough.

        Of a radio, the surest option, then the surest nested in it, and so on down as far as they are sure enough.

        Args:
            scores: float32 (K,), by choice.
            thresholds: float32 (K,), least score of each choice.
        """
        if self.classification.kind == "checklist":
            ticked = np.flatnonzero(scores >= thresholds)
            chosen = tuple(self.choices[k] for k in ticked.tolist())
            return Answer(chosen, float(scores[ticked].min())) if chosen else None
        answer: Answer | None = None
        above: tuple[Step, ...] = ()
        while above in self._places_below:
            level = self._places_below[above]
            best = int(level[scores[level].argmax()])
            if scores[best] < thresholds[best]:
                break
            answer = Answer((self.choices[best],), float(scores[best]))
            above = self.choices[best].steps
        return answer

    def places_of(self, answer: Answer) -> list[int]:
        """Returns where in `choices` the answer's are, and the options above them, each once."""
        return list(dict.fromkeys(self._place_of[steps] for choice in answer.choices for steps in _prefixes(choice)))

    @cached_property
    def _place_of(self) -> dict[tuple[Step, ...], int]:
        return {choice.steps: place for place, choice in enumerate(self.choices)}

    @cached_property
    def _places_below(self) -> dict[tuple[Step, ...], NDArray[np.int64]]:
        """Places of the choices one step below, by the steps of those above them."""
        below: dict[tuple[Step, ...], list[int]] = defaultdict(list)
        for place, choice in enumerate(self.choices):
            below[choice.steps[:-1]].append(place)
        return {steps: np.array(places, np.int64) for steps, places in below.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the map, one sentence each."""
        if not self.unmapped:
            return ()
        shown = ", ".join(self.unmapped[:10]) + (", …" if len(self.unmapped) > 10 else "")
        return (f"{len(self.unmapped)} classes meet no option of {self.classification.name!r}: {shown}",)


def build_answer_map(
    class_names: Sequence[str],
    classification: Classification,
    classes: Mapping[str, str | None],
    *,
    unmapped: Literal["ignore", "error"] = "ignore",
) -> AnswerMap:
    """Returns the map from a classifier's classes to the choices of a classification.

    A class becomes the option of its own name (as written, else whatever the case) unless `classes` says otherwise. A
    text says any class's name; where `classes` names some, only those.

    Args:
        class_names: the classifier's, by class id.
        classification: that is answered.
        classes: by class, the option's label, path or feature hash, or the text; None: leave the class out.
        unmapped: whether a class that meets no choice is counted or refused.

    Raises:
        OntologyError: a class or an option is not there or not clear, or nothing is left to answer with.
    """
    for name in classes:
        if name not in class_names:
            hint = did_you_mean(name, class_names) if len(class_names) <= 50 else _nearest(name, class_names)
            raise OntologyError(f"labels.classes: the classifier has no class {name!r}: {hint}")
    chosen = [_choice_for(name, classification, classes) for name in class_names]
    missing = tuple(n for n, choice in zip(class_names, chosen, strict=True) if choice is None and n not in classes)
    if missing and unmapped == "error":
        raise OntologyError(
            f"class {missing[0]!r} is no option of {classification.name!r}: add it there, or map it: "
            f"labels: {{classes: {{{missing[0]}: null}}}}; options: {_options(classification)}"
        )
    if not any(chosen):
        raise OntologyError(
            f"none of the classifier's classes ({', '.join(class_names[:5])}, …) becomes an option of "
            f"{classification.name!r} ({_options(classification)}): map them: labels: {{classes: {{…}}}}"
        )
    choices = _with_those_above(classification, [choice for choice in chosen if choice is not None])
    place_of = {choice.steps: place for place, choice in enumerate(choices)}
    links = [(class_id, place_of[steps]) for class_id, choice in enumerate(chosen) for steps in _prefixes(choice)]
    ignored = tuple(name for name in class_names if name in classes and classes[name] is None)
    return AnswerMap(classification, tuple(class_names), choices, np.array(links, np.int64), ignored, missing)


def answer_thresholds(
    least: float, by_choice: float | Mapping[str, float], answer_map: AnswerMap
) -> NDArray[np.float32]:
    """Returns the least score of each choice, float32 (K,).

    Args:
        least: for all.
        by_choice: on top of it, one for all or by choice.
        answer_map: whose choices.

    Raises:
        OntologyError: one is given for a choice that no class becomes.
    """
    if not isinstance(by_choice, Mapping):
        return np.full(len(answer_map.choices), max(least, by_choice), np.float32)
    thresholds = np.full(len(answer_map.choices), least, np.float32)
    for name, value in by_choice.items():
        found = [k for k, choice in enumerate(answer_map.choices) if name in (choice.name, choice.path)]
        if not found:
            hint = did_you_mean(name, [choice.name for choice in answer_map.choices])
            raise OntologyError(f"labels.conf: no class becomes an option {name!r}: {hint}")
        thresholds[found] = max(least, value)
    return thresholds


def _choice_for(name: str, classification: Classification, classes: Mapping[str, str | None]) -> Choice | None:
    if name not in classes:
        return None if classification.kind == "text" and classes else classification.find(name)
    target = classes[name]
    if target is None:
        return None
    found = classification.find(target)
    if found is None:
        hint = did_you_mean(target, [choice.name for choice in classification.choices])
        raise OntologyError(
            f"labels.classes: {name!r} is mapped to {target!r}, which is no option of {classification.name!r}: {hint}"
        )
    return found


def _with_those_above(classification: Classification, chosen: Sequence[Choice]) -> tuple[Choice, ...]:
    if classification.kind == "text":
        return tuple(dict.fromkeys(chosen))
    wanted = {steps for choice in chosen for steps in _prefixes(choice)}
    return tuple(choice for choice in classification.choices if choice.steps in wanted)


def _prefixes(choice: Choice | None) -> Iterator[tuple[Step, ...]]:
    """Yields the steps of the options above a choice, from the root down, and its own."""
    steps = choice.steps if choice is not None else ()
    return (steps[:depth] for depth in range(1, len(steps) + 1))


def _options(classification: Classification) -> str:
    return ", ".join(choice.name for choice in classification.choices) or "it has none"


def _nearest(name: str, class_names: Sequence[str]) -> str:
    hint = did_you_mean(name, class_names)
    return hint if hint.startswith("did you") else f"it has {len(class_names)}: {', '.join(class_names[:5])}, …"
