"""Scores of small cases whose average precision is known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel.errors import ConfigError
from prelabel.evaluate.coco import score_coco
from prelabel.store.report import Score

SQUARE = [10.0, 10.0, 20.0, 20.0]
FAR = [60.0, 60.0, 20.0, 20.0]


def box(image: int, category: int, bbox: list[float], **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def write(path: Path, annotations: list[dict[str, object]], images: dict[int, str], categories: dict[int, str]) -> Path:
    document = {
        "images": [{"id": number, "file_name": name} for number, name in images.items()],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations)],
    }
    path.write_text(json.dumps(document))
    return path


def score(
    tmp_path: Path,
    found: list[dict[str, object]],
    wanted: list[dict[str, object]],
    *,
    images: tuple[dict[int, str], dict[int, str]] = ({0: "a"}, {0: "a"}),
    categories: tuple[dict[int, str], dict[int, str]] = ({1: "cat"}, {1: "cat"}),
) -> Score:
    predictions = write(tmp_path / "coco.json", found, images[0], categories[0])
    return score_coco(predictions, write(tmp_path / "truth.json", wanted, images[1], categories[1]))


def test_equal_boxes_score_one(tmp_path):
    found = [box(0, 1, SQUARE, score=0.9), box(0, 1, FAR, score=0.8)]
    result = score(tmp_path, found, [box(0, 1, SQUARE), box(0, 1, FAR)])
    assert result.map_50_95 == pytest.approx(1)
    assert result.map_50 == pytest.approx(1)
    assert result.by_class == {"cat": pytest.approx(1)}


def test_a_shifted_box_counts_up_to_its_iou(tmp_path):
    # Shifted by 4.5 of 20: IoU 15.5 / 24.5 = 0.633, which passes 0.50, 0.55 and 0.60 of the ten thresholds.
    result = score(tmp_path, [box(0, 1, [14.5, 10, 20, 20], score=0.9)], [box(0, 1, SQUARE)])
    assert result.map_50_95 == pytest.approx(0.3)
    assert result.map_50 == pytest.approx(1)


def test_a_false_box_between_two_right_ones_costs_what_the_formula_says(tmp_path):
    # Precision is 1 up to recall 0.5 and 2/3 from there on, read at recalls 0, 0.01, ... 1: 51 and 50 of 101.
    found = [box(0, 1, SQUARE, score=0.9), box(0, 1, [5, 70, 9, 9], score=0.8), box(0, 1, FAR, score=0.7)]
    result = score(tmp_path, found, [box(0, 1, SQUARE), box(0, 1, FAR)])
    assert result.map_50_95 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_found_twice_is_right_once(tmp_path):
    found = [box(0, 1, SQUARE, score=0.8), box(0, 1, SQUARE, score=0.9), box(0, 1, FAR, score=0.7)]
    result = score(tmp_path, found, [box(0, 1, SQUARE), box(0, 1, FAR)])
    assert result.map_50_95 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_class_that_was_never_found_scores_zero(tmp_path):
    both = {1: "cat", 2: "dog"}
    found, wanted = [box(0, 1, SQUARE, score=0.9)], [box(0, 1, SQUARE), box(0, 2, FAR)]
    result = score(tmp_path, found, wanted, categories=(both, both))
    assert result.by_class == {"cat": pytest.approx(1), "dog": 0}
    assert result.map_50_95 == pytest.approx(0.5)


def test_a_class_that_the_images_do_not_show_does_not_count(tmp_path):
    both = {1: "cat", 2: "dog"}
    found = [box(0, 1, SQUARE, score=0.9), box(0, 2, FAR, score=0.3)]
    result = score(tmp_path, found, [box(0, 1, SQUARE)], categories=(both, both))
    assert result.by_class == {"cat": pytest.approx(1)}
    assert result.map_50_95 == pytest.approx(1)


def test_a_class_that_the_predictions_do_not_know_is_left_out(tmp_path):
    result = score(
        tmp_path,
        [box(0, 1, SQUARE, score=0.9)],
        [box(0, 1, SQUARE), box(0, 2, FAR)],
        categories=({1: "cat"}, {1: "cat", 2: "dog"}),
    )
    assert result.by_class == {"cat": pytest.approx(1)}
    assert result.map_50_95 == pytest.approx(1)


def test_nothing_found_scores_zero(tmp_path):
    result = score(tmp_path, [], [box(0, 1, SQUARE)])
    assert (result.map_50_95, result.map_50, result.by_class) == (0, 0, {"cat": 0})


def test_a_box_on_a_crowd_is_neither_right_nor_wrong(tmp_path):
    # Without the crowd, the more confident false box would halve the precision.
    found = [box(0, 1, SQUARE, score=0.8), box(0, 1, [65, 65, 5, 5], score=0.9)]
    alone = score(tmp_path, found, [box(0, 1, SQUARE)])
    with_crowd = score(tmp_path, found, [box(0, 1, SQUARE), box(0, 1, FAR, iscrowd=1)])
    assert alone.map_50_95 == pytest.approx(0.5)
    assert with_crowd.map_50_95 == pytest.approx(1)


@pytest.mark.parametrize(
    "truth_image",
    [
        {"file_name": "x.png", "video": "day/clip.mp4", "frame_index": 12},
        {"file_name": "day/clip.mp4/000012.jpg"},
        {"file_name": "day/clip.mp4#000012"},
        {"file_name": "day/clip_12.png"},
        {"file_name": "day/clip/00012.png"},
    ],
    ids=lambda image: image["file_name"],
)
def test_images_match_by_video_and_frame_index_whatever_the_truth_calls_them(tmp_path, truth_image):
    files = []
    for name, image in (
        ("coco", {"file_name": "a", "video": "day/clip.mp4", "frame_index": 12}),
        ("truth", truth_image),
    ):
        path = write(tmp_path / f"{name}.json", [box(1, 1, SQUARE, score=0.9)], {1: ""}, {1: "cat"})
        path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [{"id": 1, **image}]}))
        files.append(path)
    assert score_coco(*files).map_50_95 == pytest.approx(1)


def test_a_still_matches_its_own_file_name_even_if_it_ends_in_a_number(tmp_path):
    images = ({1: "still_0012.jpg/000000.jpg"}, {1: "still_0011.jpg", 2: "still_0012.jpg"})
    wanted = [box(1, 1, FAR), box(2, 1, SQUARE)]
    assert score(tmp_path, [box(1, 1, SQUARE, score=0.9)], wanted, images=images).map_50_95 == pytest.approx(1)


def test_images_meet_by_file_name_and_categories_by_name_whatever_the_ids_and_the_case(tmp_path):
    result = score(
        tmp_path,
        [box(7, 3, SQUARE, score=0.9), box(8, 4, FAR, score=0.9)],
        [box(1, 90, SQUARE), box(2, 10, FAR)],
        images=({7: "a", 8: "b"}, {2: "b", 1: "a"}),
        categories=({3: "Cat", 4: "Dog"}, {10: "dog", 90: "cat"}),
    )
    assert result.map_50_95 == pytest.approx(1)
    assert set(result.by_class) == {"cat", "dog"}


def test_only_images_that_the_predictions_contain_are_scored(tmp_path):
    wanted = [box(0, 1, SQUARE), box(1, 1, SQUARE), box(2, 1, SQUARE)]
    every_second = ({0: "a", 2: "c"}, {0: "a", 1: "b", 2: "c"})
    found = [box(0, 1, SQUARE, score=0.9), box(2, 1, SQUARE, score=0.9)]
    result = score(tmp_path, found, wanted, images=every_second)
    assert result.map_50_95 == pytest.approx(1)


def test_an_image_without_truth_still_counts_its_false_boxes(tmp_path):
    both = ({0: "a", 1: "b"}, {0: "a", 1: "b"})
    found = [box(1, 1, SQUARE, score=0.9), box(0, 1, SQUARE, score=0.8)]
    assert score(tmp_path, found, [box(0, 1, SQUARE)], images=both).map_50_95 == pytest.approx(0.5)


def test_nothing_is_printed(tmp_path, capfd):
    score(tmp_path, [box(0, 1, SQUARE, score=0.9)], [box(0, 1, SQUARE)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not json", "is not JSON"),
        ("[]", "got a list, expected COCO"),
        ('{"categories": [], "annotations": []}', "images: got nothing, expected COCO's list"),
        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', r"images\[0\].file_name: got nothing"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": "x", "bbox": []}]}',
            r"annotations\[0\].category_id: got a text, expected number",
        ),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}',
            r"annotations\[0\].bbox: got \[1, 2, 3\], expected \[x, y, width, height\]",
        ),
    ],
)
def test_truth_that_is_not_coco_is_named_with_the_key(tmp_path, text, complaint):
    predictions = write(tmp_path / "coco.json", [], {0: "a"}, {1: "cat"})
    truth = tmp_path / "truth.json"
    truth.write_text(text)
    with pytest.raises(ConfigError, match=rf"truth\.json: {complaint}"):
        score_coco(predictions, truth)


def test_truth_that_is_missing_is_named(tmp_path):
    predictions = write(tmp_path / "coco.json", [], {0: "a"}, {1: "cat"})
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot be read"):
        score_coco(predictions, tmp_path / "nowhere.json")


def test_predictions_without_scores_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"coco\.json: annotations\[0\]\.score: got nothing, expected number"):
        score(tmp_path, [box(0, 1, SQUARE)], [box(0, 1, SQUARE)])


def test_no_image_in_common_shows_what_the_names_are_like(tmp_path):
    with pytest.raises(
        ConfigError, match=r"truth\.json: images: .*got 'frame_1\.jpg', expected such as 'a\.mp4/000000\.jpg'"
    ):
        score(tmp_path, [], [], images=({0: "a.mp4/000000.jpg"}, {0: "frame_1.jpg"}))


def test_no_category_in_common_lists_both_sides(tmp_path):
    with pytest.raises(ConfigError, match=r"truth\.json: categories: .*got 'dog', expected some of 'cat'"):
        score(tmp_path, [], [], categories=({1: "cat"}, {1: "dog"}))


def test_truth_that_shows_nothing_of_the_common_classes_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"truth\.json: annotations: the 1 images in common show none of: cat"):
        score(tmp_path, [box(0, 1, SQUARE, score=0.9)], [])
