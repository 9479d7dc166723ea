"""What a chat completion says: which option, how sure, or why none."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NONE_OF_THESE = "none of these"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer.

    Attributes:
        answer: an option; None: none of them.
        confidence: 0..1, of the answer.
        is_measured: whether the service measured it; else it stands at 1.
        why_none: `none`: the model found that nothing fits; `refusal`: it would not say; `invalid`: it said something
            else. Empty where there is an answer.
    """

    answer: str | None
    confidence: float = 0.0
    is_measured: bool = False
    why_none: Literal["", "none", "refusal", "invalid"] = ""


def read_answer(completion: Mapping[str, Any], options: Collection[str]) -> Said:
    """Returns what a completion says.

    Args:
        completion: the answer's JSON.
        options: that may be answered.

    >>> message = {"content": '{"answer": "Cat"}', "refusal": None}
    >>> read_answer({"choices": [{"message": message, "finish_reason": "stop"}]}, ["Cat", "Dog"])
    Said(answer='Cat', confidence=1.0, is_measured=False, why_none='')
    """
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Said(None, why_none="refusal")
        answer = json.loads(message["content"])["answer"]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return Said(None, why_none="invalid")
    if answer == NONE_OF_THESE:
        return Said(None, why_none="none")
    if not isinstance(answer, str) or answer not in options:
        return Said(None, why_none="invalid")
    probability = _probability(choice, json.dumps(answer)[1:-1], answer)
    return Said(answer, 1.0 if probability is None else probability, probability is not None)


def _probability(choice: Mapping[str, Any], *forms: str) -> float | None:
    """Returns the product of the probabilities of the tokens in which the answer stands; None where none are given."""
    try:
        tokens = [(str(entry["token"]), float(entry["logprob"])) for entry in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        return None
    text = "".join(token for token, _ in tokens)
    for form in forms:
        start = text.rfind(form)
        if start >= 0:
            return math.exp(min(0.0, _sum_within(tokens, start, start + len(form))))
    return None


def _sum_within(tokens: Sequence[tuple[str, float]], start: int, end: int) -> float:
    total, place = 0.0, 0
    for token, logprob in tokens:
        if place < end and place + len(token) > start:
            total += logprob
        place += len(token)
    return total
