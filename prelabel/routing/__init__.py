"""Rules over what was found: which pathway a task takes, and how urgent it is. Pure."""

from prelabel.routing.expressions import Expression, parse_condition, parse_number
from prelabel.routing.facts import Facts, facts_of
from prelabel.routing.rules import OTHERWISE, Router, Rule, has_class, read_router
from prelabel.routing.tokens import RuleError

__all__ = [
    "OTHERWISE",
    "Expression",
    "Facts",
    "Router",
    "Rule",
    "RuleError",
    "facts_of",
    "has_class",
    "parse_condition",
    "parse_number",
    "read_router",
]
