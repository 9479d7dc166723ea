"""Which pathway a task takes: an ordered list of rules, the first that holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from prelabel.errors import OntologyError, did_you_mean
from prelabel.routing.expressions import Facts
from prelabel.routing.parser import Expression, parse_condition, parse_number

OTHERWISE = "otherwise"


@dataclass(frozen=True, slots=True)
class Rule:
    """Where tasks go of which a condition holds.

    Attributes:
        when: the condition; None: all that no rule before it has taken.
        pathway: name or uuid.
    """

    when: Expression | None
    pathway: str

    def __str__(self) -> str:
        return f"{self.when.text if self.when is not None else OTHERWISE} → {self.pathway}"


@dataclass(frozen=True, slots=True)
class Router:
    """What becomes of a task by what was found in it.

    Attributes:
        rules: the first that holds wins; the last always does.
        priority: of the task, 0 to 1; None: stays as it is.
    """

    rules: tuple[Rule, ...]
    priority: Expression | None = None

    def pathway(self, facts: Facts) -> str | None:
        """Returns the pathway of the first rule that holds; None where there are no rules."""
        return next((rule.pathway for rule in self.rules if rule.when is None or rule.when.holds(facts)), None)

    def priority_of(self, facts: Facts) -> float | None:
        """Returns the priority, cut to 0 … 1; None where it stays as it is."""
        value = self.priority.number(facts) if self.priority is not None else None
        return None if value is None else min(1.0, max(0.0, value))

    @property
    def pathways(self) -> tuple[str, ...]:
        """All that a task may take, each once."""
        return tuple(dict.fromkeys(rule.pathway for rule in self.rules))

    @property
    def asks_metadata(self) -> bool:
        """Whether it looks at the client metadata, which costs no request more but larger answers."""
        return any(expression.asks_metadata for expression in self._expressions)

    def check_classes(self, known: Collection[str]) -> None:
        """Returns if every class that is named can be found.

        Raises:
            OntologyError: one cannot; the nearest that can is named.
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
    """Returns the router of rules as they are written.

    Args:
        rules: (condition, pathway) each; a condition of None takes all that is left.
        priority: an expression that comes to a number.

    Raises:
        RuleError: one cannot be read.

    >>> router = read_router([("count > 3", "Crowded"), (None, "Annotate 1")], "1 - count / 10")
    >>> router.pathway(Facts("a.mp4")), router.priority_of(Facts("a.mp4"))
    ('Annotate 1', 1.0)
    """
    made = tuple(Rule(None if when is None else parse_condition(when), pathway) for when, pathway in rules)
    return Router(made, None if priority is None else parse_number(priority))


def has_class(name: str) -> str:
    """Returns the condition that a class was found.

    >>> has_class("Road sign")
    'has("Road sign")'
    """
    return f"has('{name}')" if '"' in name else f'has("{name}")'
