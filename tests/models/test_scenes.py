from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from models.scene_art import CLASS_NAMES, DISTRACTOR, Shot, Thing, make_shot, render_shot
from models.scenes import SceneSpec, cut_frame_index, random_frames, render_frames, write_clip

SMALL = SceneSpec(width=160, height=96, num_frames=12, fps=25, seed=3)


def shot(seed: int = 0) -> Shot:
    return make_shot(np.random.default_rng(seed), 320, 180, first_object_id=0)


def still(thing: Thing, diameter_factor: float = 1.0) -> Thing:
    """The thing, unmoving in the middle of a 320 x 180 frame."""
    middle = np.array([160.0, 90.0], dtype=np.float32)
    return replace(
        thing,
        sprite=thing.sprite.resize([round(side * diameter_factor) for side in thing.sprite.size]),
        start=middle,
        velocity=np.zeros(2, dtype=np.float32),
        walls=np.array([[0, 0], [320, 180]], dtype=np.float32),
        breath=0.0,
    )


def thing_of_class(name: str) -> Thing:
    class_id = CLASS_NAMES.index(name)
    shots = (shot(seed) for seed in range(100))
    return next(thing for each in shots for thing in each.things if thing.class_id == class_id)


def test_a_spec_always_gives_the_same_frames():
    for first, second in zip(render_frames(SMALL), render_frames(SMALL), strict=True):
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.xyxy, second.xyxy)


def test_another_seed_gives_another_clip():
    first, second = next(render_frames(SMALL)), next(render_frames(replace(SMALL, seed=4)))
    assert np.abs(first.image.astype(int) - second.image).mean() > 5


@pytest.mark.parametrize("seconds", [0.0, 1.3, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_box_bounds_the_pixels_that_its_thing_changes(seed, seconds):
    full = shot(seed)
    thing = next(thing for thing in full.things if thing.class_id != DISTRACTOR)
    alone = render_shot(replace(full, things=(thing,)), seconds, exposure_seconds=0.02)
    empty = render_shot(replace(full, things=()), seconds, exposure_seconds=0.02)
    changed = np.abs(alone.image.astype(int) - empty.image).max(axis=2) > 8
    columns, rows = np.flatnonzero(changed.any(axis=0)), np.flatnonzero(changed.any(axis=1))
    drawn = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    blur_px = float(np.linalg.norm(thing.velocity)) * 0.02
    np.testing.assert_allclose(alone.xyxy, [drawn], atol=2 + blur_px / 2)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_every_class_is_drawn_and_named(name):
    thing = thing_of_class(name)
    frame = render_shot(replace(shot(), things=(still(thing),)), 0.0, exposure_seconds=0.0)
    assert [CLASS_NAMES[class_id] for class_id in frame.class_id] == [name]
    assert not frame.is_crowd.any()


def test_a_hidden_thing_has_no_box_and_a_mostly_hidden_one_is_crowd():
    crate = thing_of_class("crate")
    ball = thing_of_class("ball")
    same_size = crate.sprite.width / ball.sprite.width
    small, as_large = still(ball, 0.4 * same_size), still(ball, 1.1 * same_size)
    crate = replace(still(crate), object_id=7)
    hidden = render_shot(replace(shot(), things=(small, crate)), 0.0, exposure_seconds=0.0)
    mostly_hidden = render_shot(replace(shot(), things=(as_large, crate)), 0.0, exposure_seconds=0.0)
    assert hidden.object_id.tolist() == [7]
    assert mostly_hidden.is_crowd.tolist() == [True, False]


def test_what_lies_in_front_cuts_the_box_of_what_lies_behind():
    ball, crate = still(thing_of_class("ball")), still(thing_of_class("crate"), 0.9)
    crate = replace(crate, start=ball.start + np.array([ball.sprite.width * 0.7, 0], dtype=np.float32), angle=0.0)
    crate = replace(crate, spin=0.0, swing=0.0, sprite=crate.sprite.resize([ball.sprite.width * 2] * 2))
    alone = render_shot(replace(shot(), things=(ball,)), 0.0, exposure_seconds=0.0)
    behind = render_shot(replace(shot(), things=(ball, crate)), 0.0, exposure_seconds=0.0)
    assert behind.xyxy[0, 2] < alone.xyxy[0, 2] - 10
    assert behind.xyxy[0, 0] == alone.xyxy[0, 0]


def test_distractors_are_drawn_but_not_in_the_truth():
    full = shot()
    distractors = tuple(thing for thing in full.things if thing.class_id == DISTRACTOR)
    frame = render_shot(replace(full, things=distractors), 0.0, exposure_seconds=0.0)
    empty = render_shot(replace(full, things=()), 0.0, exposure_seconds=0.0)
    assert distractors
    assert len(frame.xyxy) == 0
    assert (frame.image != empty.image).any()


@pytest.mark.parametrize("seed", range(6))
def test_boxes_lie_in_the_frame_and_have_an_area(seed):
    for frame in random_frames(np.random.default_rng(seed), 320, 180, 4):
        assert frame.xyxy.dtype == np.float32
        assert (frame.xyxy[:, :2] >= 0).all()
        assert (frame.xyxy[:, 2:] <= [320, 180]).all()
        assert (frame.xyxy[:, :2] < frame.xyxy[:, 2:]).all()
        assert len(set(frame.object_id.tolist())) == len(frame.object_id)


def test_the_scene_is_cut_once():
    frames = list(render_frames(replace(SMALL, num_frames=20)))
    images = np.stack([frame.image for frame in frames]).astype(int)
    change = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    cut = cut_frame_index(replace(SMALL, num_frames=20))
    assert change.argmax() == cut - 1
    assert change.max() > 2 * np.sort(change)[-2]
    assert not set(frames[cut - 1].object_id.tolist()) & set(frames[cut].object_id.tolist())


def test_the_file_decodes_to_the_rendered_frames_in_order(tmp_path: Path):
    write_clip(SMALL, tmp_path / "clip.mp4", tmp_path / "truth.json")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.format.name, stream.average_rate) == ("h264", "yuv420p", 25)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    rendered = [frame.image for frame in render_frames(SMALL)]
    assert len(decoded) == SMALL.num_frames
    distance = np.array([[np.abs(a.astype(int) - b).mean() for b in rendered] for a in decoded])
    assert distance.argmin(axis=1).tolist() == list(range(SMALL.num_frames))
    assert np.diag(distance).max() < 6


def test_the_truth_on_disk_is_that_of_the_frames(tmp_path: Path):
    write_clip(SMALL, tmp_path / "clip.mp4", tmp_path / "truth.json")
    truth = json.loads((tmp_path / "truth.json").read_text())
    frames = list(render_frames(SMALL))
    assert [image["id"] for image in truth["images"]] == list(range(1, 13))
    assert truth["images"][11] == {
        "id": 12,
        "file_name": "clip.mp4/000011.jpg",
        "frame_index": 11,
        "video": "clip.mp4",
        "width": 160,
        "height": 96,
    }
    assert [category["name"] for category in truth["categories"]] == list(CLASS_NAMES)
    assert len(truth["annotations"]) == sum(len(frame.xyxy) for frame in frames)
    last = [a for a in truth["annotations"] if a["image_id"] == 12]
    x, y, width, height = np.array([a["bbox"] for a in last]).T
    np.testing.assert_array_equal(np.stack([x, y, x + width, y + height], axis=1), frames[11].xyxy)
    assert [a["category_id"] - 1 for a in last] == frames[11].class_id.tolist()


@pytest.mark.parametrize("wrong", [{"width": 161}, {"height": 32}, {"num_frames": 1}, {"fps": 0}])
def test_a_format_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        replace(SMALL, **wrong)
