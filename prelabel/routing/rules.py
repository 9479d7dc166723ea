"""Chooses the pathway of a task by an ordered list of rules; the first rule that matches wins."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prelabel.errors import OntologyError, did_you_mean
from prelabel.routing.expressions import Expression, parse_condition, parse_number
from prelabel.routing.facts import Facts

OTHERWISE = "otherwise"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that sends tasks down a pathway.

    Attributes:
        when: the condition; None for a rule that always matches.
        pathway: name or uuid.
    """

    when: Expression | None
    pathway: str

    def __str__(self) -> str:
        return f"{self.when.text if self.when is not None else OTHERWISE} → {self.pathway}"


@dataclass(frozen=True, slots=True)
class Router:
    """Chooses the pathway and the priority of a task.

    Attributes:
        rules: in order; the first rule that matches wins, and the last always matches.
        priority: of the task, 0 to 1; None if it stays unchanged.
    """

    rules: tuple[Rule, ...]
    priority: Expression | None = None

    def pathway(self, facts: Facts) -> str | None:
        """Returns the pathway of the first rule that matches; None if there are no rules."""
        return next((rule.pathway for rule in self.rules if rule.when is None or rule.when.holds(facts)), None)

    def priority_of(self, facts: Facts) -> float | None:
        """Returns the priority, clipped to 0..1; None if it stays unchanged."""
        value = self.priority.number(facts) if self.priority is not None else None
        return None if value is None else min(1.0, max(0.0, value))

    @property
    def pathways(self) -> tuple[str, ...]:
        """Every pathway that a task can take, each once."""
        return tuple(dict.fromkeys(rule.pathway for rule in self.rules))

    @property
    def uses_metadata(self) -> bool:
        """Whether a rule reads client metadata, which the platform sends only on request."""
        return any(expression.uses_metadata for expression in self._expressions)

    def check_classes(self, known: Collection[str]) -> None:
        """Checks that every class in the rules is known.

        Raises:
            OntologyError: a class is not known; the message names the nearest known class.
        """
        for expression in self._expressions:
            for name in expression.classes:
                if name not in known:
                    key = "priority" if expression is self.priority else "routing"
                    raise OntologyError(f"{key}: {expression.text!r}: no class {name!r}: {did_you_mean(name, known)}")

    @property
    def _expressions(self) -> list[Expression]:
        conditions = [rule.when for rule in self.rules if rule.when is not None]
        return conditions if self.priority is None else [*conditions, self.priority]


def read_router(rules: Sequence[tuple[str | None, str]], priority: str | None = None) -> Router:
    """Returns the router for the rules of a config.

    Args:
        rules: pairs of condition and pathway; a rule whose condition is None always matches.
        priority: an expression whose value is a number.

    Raises:
        RuleError: an expression is not valid.

    >>> router = read_router([("count > 3", "Crowded"), (None, "Annotate 1")], "1 - count / 10")
    >>> router.pathway(Facts("a.mp4")), router.priority_of(Facts("a.mp4"))
    ('Annotate 1', 1.0)
    """
    parsed = tuple(Rule(None if when is None else parse_condition(when), pathway) for when, pathway in rules)
    return Router(parsed, None if priority is None else parse_number(priority))
