"""Actions in an editor that interpolates, on tracks whose cheapest corrections are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.data.boxes import paired_iou
from prelabel.evaluate.compare import UNKNOWN_GEOMETRY, Boxes, compare_boxes, link_unknown_instances
from prelabel.evaluate.editor import count_corrections, count_from_scratch, fewest_drawn
from prelabel.labels.keyframes import select_keyframes

FRAMES = np.arange(60)
ACCEPT = 0.8


def walk(frame, shift=0, down=0):
    """A box of 100 x 200 that moves 5 a frame; a shift of 30 leaves an overlap of 0.54, one of 5 of 0.9."""
    x = 5 * frame + shift
    return (x, down, x + 100, down + 200)


def labels(*tracks, class_name="car"):
    """Each track is a dict of corners by frame; an empty name is an unknown instance."""
    rows = sorted((frame, n, box) for n, track in enumerate(tracks) for frame, box in track.items())
    num = len(rows)
    return Boxes(
        frame_index=np.array([frame for frame, _, _ in rows], np.int64),
        corners=np.array([box for _, _, box in rows], np.int64).reshape(-1, 4),
        class_name=np.full(num, class_name),
        instance=np.array([f"{class_name} {n}" for _, n, _ in rows], np.str_),
        confidence=np.ones(num),
        geometry=np.full(num, UNKNOWN_GEOMETRY, np.uint64),
    )


def track(frames=FRAMES, shift=0, down=0):
    return {frame: walk(frame, shift, down) for frame in map(int, frames)}


def corrections(written, current):
    compared = link_unknown_instances(compare_boxes(written, current, min_iou=0.5, accept_iou=ACCEPT))
    return count_corrections(compared, FRAMES, ACCEPT)


def test_a_thing_that_moves_evenly_takes_two_boxes_from_scratch():
    assert count_from_scratch(labels(track()), FRAMES, ACCEPT) == {"car": 2}


def test_each_stretch_between_gaps_is_drawn_by_itself():
    assert count_from_scratch(labels(track([*range(20), *range(30, 60)])), FRAMES, ACCEPT) == {"car": 4}


def test_accepted_boxes_cost_nothing():
    assert corrections(labels(track(shift=5)), labels(track())) == {}


def test_an_instance_that_is_gone_is_one_action_on_however_many_frames():
    assert corrections(labels(track(), track(down=500)), labels(track())) == {"car": 1}


def test_a_new_class_of_an_instance_is_one_action():
    assert corrections(labels(track()), labels(track(), class_name="bus")) == {"car": 1}


def test_a_stretch_that_is_gone_is_one_action():
    assert corrections(labels(track()), labels(track([*range(20), *range(40, 60)]))) == {"car": 1}


def test_a_track_of_two_things_is_split_once():
    written = {**track(range(30)), **track(range(30, 60), down=500)}
    assert corrections(labels(written), labels(track(range(30)), track(range(30, 60), down=500))) == {"car": 1}


def test_two_tracks_of_one_thing_are_joined_once():
    assert corrections(labels(track(range(30)), track(range(30, 60))), labels(track())) == {"car": 1}


def test_a_track_that_is_nearer_to_another_thing_on_one_frame_keeps_its_own():
    written = labels({**track(), 30: walk(30, shift=25)}, track([n for n in range(60) if n != 30], shift=40))
    things = labels(track(), track(shift=40))
    drawn = replace(things, instance=np.char.add("a person's ", things.instance))
    # The first track is interpolated over the frame, and so is the second.
    assert corrections(written, drawn) == {"car": 2}


def test_a_track_that_is_off_everywhere_is_drawn_again():
    assert corrections(labels(track(shift=30)), labels(track())) == {"car": 2}


def test_a_stretch_between_accepted_boxes_is_interpolated_again():
    written = {**track(), **track(range(20, 40), shift=30)}
    assert corrections(labels(written), labels(track())) == {"car": 1}


def test_a_gap_between_accepted_boxes_is_interpolated():
    assert corrections(labels(track([*range(20), *range(25, 60)])), labels(track())) == {"car": 1}


def test_boxes_that_are_redrawn_elsewhere_are_not_deleted_first():
    written = {**track(), **track(range(20, 40), shift=90)}
    assert corrections(labels(written), labels(track())) == {"car": 1}


def test_a_truth_without_tracks_neither_splits_nor_joins():
    truth = labels(track())
    unknown = replace(truth, instance=np.full(60, ""))
    assert corrections(labels(track()), unknown) == {}


def test_a_class_that_the_thing_has_now_counts_the_boxes_to_draw():
    missed = labels(track(down=500), class_name="bus")
    assert corrections(labels({}), missed) == {"bus": 2}


SMALL = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 1, 2, 20]), st.booleans()), min_size=1, max_size=7
)


@settings(max_examples=60)
@given(SMALL)
def test_no_cheaper_choice_of_boxes_exists(rows):
    wanted = np.array([(x, 0, x + 40, 40) for x, _, _ in rows])
    shown = wanted + np.array([(shift, 0, shift, 0) for _, shift, _ in rows])
    is_right = np.array([right for _, _, right in rows]) & (paired_iou(wanted, shown) >= ACCEPT)
    frames = np.arange(len(rows))
    assert fewest_drawn(frames, wanted, shown, is_right, ACCEPT) == cheapest(frames, wanted, shown, is_right)


@settings(max_examples=30)
@given(SMALL)
def test_from_scratch_it_is_the_number_of_keyframes(rows):
    wanted = np.array([(x, 0, x + 40, 40) for x, _, _ in rows])
    frames, none = np.arange(len(rows)), np.zeros(len(rows), np.bool_)
    kept = select_keyframes(frames, wanted.astype(np.float32), ACCEPT)
    assert fewest_drawn(frames, wanted, wanted, none, ACCEPT) == len(kept)


def cheapest(frames, wanted, shown, is_right):
    """Tries every set of boxes that lines go through."""
    num, best = len(frames), len(frames)
    at = np.where(is_right[:, None], shown, wanted).astype(float)
    for size in range(1, num + 1):
        for chosen in combinations(range(num), size):
            if chosen[0] != 0 or chosen[-1] != num - 1:
                continue
            on_lines = np.stack([np.interp(frames, chosen, side) for side in at[list(chosen)].T], axis=1)
            if (paired_iou(on_lines, wanted.astype(float)) < ACCEPT).any():
                continue
            cost = sum(not is_right[row] for row in chosen)
            cost += sum(is_right[a] and is_right[b] and b > a + 1 for a, b in pairwise(chosen))
            best = min(best, cost)
    return best
