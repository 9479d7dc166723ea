"""Edits that a test makes on real label rows come out of the comparison exactly as they were made."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings

from prelabel.evaluate.edits import Edits
from tests.evaluate.plans import Plan, compare, edits_of, plans, shape_of
from tests.labelling import SHAPES


@settings(max_examples=60)
@given(plans())
def test_every_edit_is_found_and_nothing_else(plan: Plan):
    counts = edits_of(compare(plan))
    done = Counter(
        (shape_of(class_id), doing) for (_, _, class_id), doing in zip(plan.written, plan.edits, strict=True)
    )
    added = Counter(shape_of(class_id) for _, _, class_id in plan.drawn)
    for number, name in enumerate(SHAPES[:2]):
        edits, other = counts.get(name, Edits()), SHAPES[1 - number]
        reclassings = ("reclass", "reclass and move", "redraw as other class")
        assert edits.untouched == done[name, "leave"]
        assert edits.moved == done[name, "move"]
        assert edits.reclassed == sum(done[name, doing] for doing in reclassings)
        assert edits.deleted == done[name, "delete"]
        assert edits.added == added[name]
        assert edits.reclassed_to == sum(done[other, doing] for doing in reclassings)
        assert sum(edits.moved_iou) == edits.moved


@settings(max_examples=60)
@given(plans())
def test_actions_are_those_that_were_made(plan: Plan):
    total = sum(edits_of(compare(plan)).values(), Edits())
    by_instance: dict[int, list[str]] = {}
    for number, ((_, cell, _), doing) in enumerate(zip(plan.written, plan.edits, strict=True)):
        by_instance.setdefault(cell if plan.tracks else 100 + number, []).append(doing)
    moves = sum(doing in ("move", "reclass and move", "redraw as other class") for doing in plan.edits)
    new_classes = sum(any("class" in doing for doing in all_of) for all_of in by_instance.values())
    deleted = sum(1 if set(all_of) == {"delete"} else all_of.count("delete") for all_of in by_instance.values())
    assert total.actions == moves + new_classes + deleted + len(plan.drawn)
    assert total.from_scratch == len(plan.drawn) + sum(doing != "delete" for doing in plan.edits)
    assert total.instances_untouched == sum(set(all_of) == {"leave"} for all_of in by_instance.values())
    assert total.instances_deleted == sum(set(all_of) == {"delete"} for all_of in by_instance.values())
    assert total.instances_added == len(plan.drawn)
