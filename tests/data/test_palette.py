"""Colours of an ontology's objects."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prelabel.data.ontology import Ontology, distinct_colors


def largest_channel_difference(one: str, other: str) -> float:
    channels = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in (one, other)]
    return float(np.abs(np.subtract(*channels)).max())


@pytest.mark.parametrize(("num", "least"), [(10, 71), (80, 24)])
def test_no_two_colours_look_alike(num: int, least: float) -> None:
    pairs = itertools.combinations(distinct_colors(num), 2)
    assert min(largest_channel_difference(one, other) for one, other in pairs) >= least


def test_colours_stay_when_the_list_grows() -> None:
    assert distinct_colors(80)[:5] == distinct_colors(5)
    assert distinct_colors(0) == ()


def test_a_very_long_list_begins_again() -> None:
    colors = distinct_colors(1000)
    assert len(colors) == 1000
    assert len(set(colors)) == 576
    assert colors[576] == colors[0]


def test_an_ontology_made_from_classes_has_these_colours() -> None:
    objects = Ontology.from_classes(["person", "bottle", "dining table"]).objects
    assert tuple(each.color for each in objects) == distinct_colors(3)
