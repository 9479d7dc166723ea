"""How good labels are by a ground truth, as reports have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

_MEANS = ("map_50_95", "map_50")


@dataclass(frozen=True, slots=True)
class Score:
    """Average precision over the images and the categories that labels and truth have in common.

    Attributes:
        map_50_95: mean over categories and over IoU thresholds 0.50, 0.55, ... 0.95.
        map_50: mean over categories at IoU 0.50.
        by_class: AP over IoU 0.50 to 0.95 by the truth's category name; only categories that the images show.
    """

    map_50_95: float
    map_50: float
    by_class: Mapping[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """As JSON has them, all beside each other: the means, then AP by class.

        >>> Score(0.5, 0.7, {"car": 0.5, "map_50": 0.1}).figures
        {'map_50_95': 0.5, 'map_50': 0.7, 'car': 0.5}
        """
        means = {"map_50_95": self.map_50_95, "map_50": self.map_50}
        return means | {name: ap for name, ap in self.by_class.items() if name not in means}


def _fields_of(figures: object) -> object:
    if not isinstance(figures, dict):
        return figures
    means = {name: figures[name] for name in _MEANS if name in figures}
    return {**means, "by_class": {name: ap for name, ap in figures.items() if name not in _MEANS}}


ScoreOfFigures = Annotated[Score, BeforeValidator(_fields_of)]
"""A score that is read back from its figures."""
