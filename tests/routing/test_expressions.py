"""The language of rules: what it says, and how it complains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.data.frames import VideoInfo
from prelabel.routing.expressions import Facts, RuleError
from prelabel.routing.parser import parse_condition, parse_number

VIDEO = VideoInfo(width=1920, height=1080, num_frames=100, average_fps=25.0, duration_seconds=4.0)
# Three cars (one on two frames), a person; confidences 0.1 … 0.5.
FACTS = Facts(
    title="night_07.mp4",
    info=VIDEO,
    metadata={"city": "Oslo", "camera": {"id 1": 3}, "rain": True, "list": [1]},
    class_names=("Car", "Road sign", "Person"),
    class_index=np.array([0, 0, 0, 0, 2]),
    frame_index=np.array([0, 1, 1, 2, 2]),
    instance=np.array([0, 0, 1, 2, 3]),
    confidence=np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32),
    num_frames_seen=4,
)
NOTHING = Facts(title="empty.mp4", info=VIDEO, class_names=FACTS.class_names, num_frames_seen=4)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count", 4),
        ("count(Car)", 3),
        ("count(Car, Person)", 4),
        ("count(Road sign)", 0),
        ("boxes(Car)", 4),
        ("frame_share", 0.75),
        ("frame_share(Person)", 0.25),
        ("confidence.min", 0.1),
        ("confidence.max", 0.5),
        ("confidence.mean", 0.3),
        ("confidence(Car).median", 0.25),
        ("confidence.p10", 0.14),
        ("confidence.p100", 0.5),
        ("width * height", 1920 * 1080),
        ("num_frames / fps - duration_seconds", 0),
        ("1 - 2 - 3", -4),
        ("2 + 3 * -(4 - 1)", -7),
        ("12 / 3 / 2", 2),
        ('metadata.camera["id 1"] + 1', 4),
    ],
)
def test_numbers(text: str, value: float) -> None:
    assert parse_number(text).number(FACTS) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("has(Car)", True),
        ('has("Road sign")', False),
        ("not has(Road sign)", True),
        ("has(Road sign, Person)", True),
        ("count(Car) > 2 and confidence.p10 < 0.4", True),
        ("count > 9 or count == 4", True),
        ("1 == 1 or 1 == 1 and 1 == 2", True),
        ("(1 == 1 or 1 == 1) and 1 == 2", False),
        ("0.2 < confidence.mean <= 0.3001", True),
        ("5 > 4 > 4", False),
        ('title like "night_*"', True),
        ('title like "ight*"', False),
        ('title not like "*.mov"', True),
        (r"""title matches "_0\d\." """, True),
        ('title == "night_07.mp4"', True),
        ('kind == "video"', True),
        ('metadata.city in ["Oslo", "Bergen"]', True),
        ("count not in [1, 2, -3]", True),
        ("metadata.rain", True),
        ("metadata.rain == true", True),
        ("metadata.snow", False),
        ("not metadata.snow", True),
    ],
)
def test_conditions(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(FACTS) is holds


@pytest.mark.parametrize(
    "text",
    [
        "confidence.mean < 1",
        "confidence.mean >= 0",
        "confidence(Road sign).max != 2",
        "count / 0 < 1",
        'metadata.nowhere == "x"',
        'metadata.nowhere != "x"',
        "metadata.city < 3",
        "metadata.city.quarter == 1",
        "metadata.list == 1",
    ],
)
def test_a_comparison_with_what_is_not_there_does_not_hold(text: str) -> None:
    assert not parse_condition(text).holds(NOTHING)
    assert parse_condition(f"not ({text})").holds(NOTHING)


def test_a_number_of_nothing_is_none() -> None:
    assert parse_number("1 - confidence.mean").number(NOTHING) is None
    assert parse_number("-metadata.city").number(FACTS) is None


def test_media_that_nobody_opened_have_no_size() -> None:
    assert not parse_condition("width > 0").holds(Facts("a.pdf"))
    assert parse_condition("count == 0").holds(Facts("a.pdf"))


def test_boxes_that_nobody_measured_are_left_out_of_confidences() -> None:
    facts = Facts("a", VIDEO, confidence=np.array([0.5, np.nan], np.float32), class_index=np.zeros(2, np.int64))
    assert parse_number("confidence.mean").number(facts) == 0.5


@pytest.mark.parametrize(
    ("text", "column", "complaint"),
    [
        ("", 1, "there is nothing"),
        ("count >", 8, "got the end, expected a value"),
        ("cuont > 3", 1, "no word 'cuont': did you mean 'count'?"),
        ("count(Car > 3", 11, "got '>', expected ')'"),
        ("count() > 3", 7, "expected a class"),
        ("has > 3", 5, "which class?"),
        ("count = 3", 7, "did you mean '=='?"),
        ("count > 3 & count < 5", 11, "did you mean 'and'?"),
        ("count > 3 count", 11, "got 'count', expected an operator or the end"),
        ("title > 3", 7, "compares a text with a number"),
        ('title > "a"', 7, "orders a text: only == and !="),
        ("title + 1 == 2", 1, "is a text, expected a number"),
        ("count and has(Car)", 1, "is a number, expected true or false"),
        ("has(Car) and count", 14, "is a number, expected true or false"),
        ("not count", 5, "is a number, expected true or false"),
        ("count", 1, "is a number, expected true or false"),
        ('title like "a', 12, "has no closing quote"),
        ("title like night", 12, "expected a text in quotes"),
        ('title matches "("', 15, "is no regular expression"),
        ("confidence > 0.5", 12, "expected '.'"),
        ("confidence.p101 > 0.5", 12, "percentiles"),
        ("confidence.avg > 0.5", 12, "after 'confidence.'"),
        ("metadata > 3", 10, "which key? metadata.camera"),
        ("metadata[camera] > 3", 10, "expected a key"),
        ("count in [1, width]", 14, "expected a number or a text"),
        ('count in ["a"]', 11, "compares a number with a text"),
        ("count in [1", 12, "got the end, expected ']'"),
        ("count not > 3", 11, "after 'not', expected in, like or matches"),
        ("otherwise", 1, "no word"),
        ("__import__('os')", 1, "no word"),
        ("(" * 60 + "1" + ")" * 60 + " == 1", 42, "nested more than 40 deep"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_condition(text)
    assert complaint in str(caught.value)
    assert caught.value.column == column


def test_a_condition_is_no_priority() -> None:
    with pytest.raises(RuleError, match="column 1: is true or false, expected a number"):
        parse_number("count > 3")


def test_named_classes_and_the_look_at_metadata_are_known_beforehand() -> None:
    rule = parse_condition("count(Car, Van) > 3 or not (confidence(Bus).min < 0.3 and metadata.city == 'Oslo')")
    assert rule.classes == ("Car", "Van", "Bus")
    assert rule.asks_metadata
    assert not parse_condition("has(Car)").asks_metadata


ANYTHING = st.text() | st.lists(
    st.sampled_from(["count", "(", ")", "Car", ">", "3", "and", "not", "in", "[", "]", '"a"', ".", "p10", "-", "or"])
).map(" ".join)


@given(ANYTHING)
def test_any_text_is_read_or_refused_with_a_column_in_it(text: str) -> None:
    assert isinstance(_holds_or_column(text), bool) or 1 <= _holds_or_column(text) <= len(text) + 1


def _holds_or_column(text: str) -> bool | int:
    try:
        return parse_condition(text).holds(FACTS)
    except RuleError as error:
        return error.column


NUMBERS = st.recursive(
    st.floats(0, 1000, allow_subnormal=False).map(lambda number: f"{number:.3f}"),
    lambda part: st.builds("({} {} {})".format, part, st.sampled_from("+-*/"), part) | part.map("-{}".format),
    max_leaves=8,
)
CONDITIONS = st.recursive(
    st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS),
    lambda part: st.builds("({} {} {})".format, part, st.sampled_from(["and", "or"]), part) | part.map("not {}".format),
    max_leaves=6,
)


@given(NUMBERS)
@settings(max_examples=200)
def test_numbers_come_to_what_python_makes_of_them(text: str) -> None:
    value = parse_number(text).number(NOTHING)
    try:
        expected = eval(text)
    except ZeroDivisionError:
        expected = None
    assert value == expected or (value is not None and math.isnan(value))


@given(CONDITIONS)
@settings(max_examples=200)
def test_conditions_hold_where_python_says_so(text: str) -> None:
    try:
        expected = eval(text)
    except ZeroDivisionError:  # here a comparison with nothing, which does not hold; Python knows no such thing
        return
    assert parse_condition(text).holds(NOTHING) is expected
