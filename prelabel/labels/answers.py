"""Turns a classifier's probabilities into answers to a classification of the ontology."""

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
    """An answer to a classification.

    Attributes:
        choices: one; for a checklist one or more, in the ontology's order.
        confidence: 0..1, of the choice; of several choices, the lowest.
    """

    choices: tuple[Choice, ...]
    confidence: float

    @property
    def name(self) -> str:
        """The name in reports: `Cat`, or `Red + Blue` for a checklist."""
        return " + ".join(choice.name for choice in self.choices)


@dataclass(frozen=True, slots=True)
class PlacedAnswer:
    """An answer and its frames.

    Attributes:
        answer: the same on all of these frames.
        first_frame: 0-based.
        last_frame: 0-based, inclusive.
    """

    answer: Answer
    first_frame: int
    last_frame: int


@dataclass(frozen=True)
class AnswerMap:
    """Maps a classifier's classes to the choices of a classification.

    Attributes:
        classification: the question.
        class_names: the classifier's, by class id.
        choices: the choices that a class is mapped to, and their parent options, in the ontology's order.
        links: (L, 2) int64, pairs of a class id and an index into `choices`. A class is linked to its choice and to
            each parent option of that choice.
        ignored: classes that the config maps to null.
        unmapped: classes without a choice.
    """

    classification: Classification
    class_names: tuple[str, ...]
    choices: tuple[Choice, ...]
    links: NDArray[np.int64]
    ignored: tuple[str, ...]
    unmapped: tuple[str, ...]

    def scores(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the score of each choice, (M, K) float32.

        Choices of a radio or text exclude each other, so a choice's score is the sum over its classes. Each choice of
        a checklist is a question of its own, so its score is the maximum over its classes.

        Args:
            probabilities: (M, C) float32, of each class.
        """
        scores = np.zeros((len(self.choices), len(probabilities)), np.float32)
        class_ids, places = self.links.T
        gather = np.maximum if self.classification.kind == "checklist" else np.add
        gather.at(scores, places, probabilities.T[class_ids])
        return np.minimum(scores.T, np.float32(1))

    def answer(self, scores: NDArray[np.float32], thresholds: NDArray[np.float32]) -> Answer | None:
        """Returns the answer; None if no score reaches its threshold.

        For a radio, that is the option with the best score. If an option nested in it reaches its threshold, the best
        of these replaces it, and so on, level by level.

        Args:
            scores: (K,) float32, by choice.
            thresholds: (K,) float32, lowest score of each choice.
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
        """Returns the indices of the answer's choices and their parent options, each once."""
        return list(dict.fromkeys(self._place_of[steps] for choice in answer.choices for steps in _prefixes(choice)))

    @cached_property
    def _place_of(self) -> dict[tuple[Step, ...], int]:
        return {choice.steps: place for place, choice in enumerate(self.choices)}

    @cached_property
    def _places_below(self) -> dict[tuple[Step, ...], NDArray[np.int64]]:
        """The indices of the choices one level below, by the steps of their parent."""
        below: dict[tuple[Step, ...], list[int]] = defaultdict(list)
        for place, choice in enumerate(self.choices):
            below[choice.steps[:-1]].append(place)
        return {steps: np.array(places, np.int64) for steps, places in below.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the mapping before a run, in sentences."""
        if not self.unmapped:
            return ()
        shown = ", ".join(self.unmapped[:10]) + (", …" if len(self.unmapped) > 10 else "")
        classes = "1 class has" if len(self.unmapped) == 1 else f"{len(self.unmapped)} classes have"
        return (f"{classes} no option of {self.classification.name!r}: {shown}",)


def build_answer_map(
    class_names: Sequence[str],
    classification: Classification,
    classes: Mapping[str, str | None],
    *,
    unmapped: Literal["ignore", "error"] = "ignore",
) -> AnswerMap:
    """Returns the map from a classifier's classes to the choices of a classification.

    A class that is not in `classes` is mapped to the option with its name. Case matters only if two names differ in
    nothing else. A text can take the name of every class or, if `classes` is not empty, of the classes in it.

    Args:
        class_names: the classifier's, by class id.
        classification: the question.
        classes: from class to label, path or feature hash of an option, or to the text; None leaves the class out.
        unmapped: `ignore` accepts classes without a choice; `error` refuses them.

    Raises:
        OntologyError: a class or an option is missing or ambiguous, or no class is mapped.
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
            f"none of the classifier's classes ({', '.join(class_names[:5])}, …) is mapped to an option of "
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
    """Returns the lowest score of each choice, (K,) float32.

    Args:
        least: the lowest threshold, for all choices.
        by_choice: higher thresholds, one for all or by choice.
        answer_map: the choices.

    Raises:
        OntologyError: a threshold is given for a choice that no class is mapped to.
    """
    if not isinstance(by_choice, Mapping):
        return np.full(len(answer_map.choices), max(least, by_choice), np.float32)
    thresholds = np.full(len(answer_map.choices), least, np.float32)
    for name, value in by_choice.items():
        found = [k for k, choice in enumerate(answer_map.choices) if name in (choice.name, choice.path)]
        if not found:
            hint = did_you_mean(name, [choice.name for choice in answer_map.choices])
            raise OntologyError(f"labels.conf: no class is mapped to an option {name!r}: {hint}")
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
    """Yields the steps of a choice's parent options from the root down, then its own."""
    steps = choice.steps if choice is not None else ()
    return (steps[:depth] for depth in range(1, len(steps) + 1))


def _options(classification: Classification) -> str:
    return ", ".join(choice.name for choice in classification.choices) or "it has none"


def _nearest(name: str, class_names: Sequence[str]) -> str:
    hint = did_you_mean(name, class_names)
    return hint if hint.startswith("did you") else f"it has {len(class_names)}: {', '.join(class_names[:5])}, …"
