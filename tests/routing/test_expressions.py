"""What rules mean, and what is reported when one is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.data.frames import VideoInfo
from prelabel.routing.expressions import RuleError, parse_condition, parse_number
from prelabel.routing.facts import Facts

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
        ('count("Road sign")', 0),
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
        ('not has("Road sign")', True),
        ('has("Road sign", Person)', True),
        ("count(Car) > 2 and confidence.p10 < 0.4", True),
        ("count > 9 or count == 4", True),
        ("1 == 1 or 1 == 1 and 1 == 2", True),
        ("(1 == 1 or 1 == 1) and 1 == 2", False),
        ("0.2 < confidence.mean <= 0.3001", True),
        ("5 > 4 > 4", False),
        ('title.like("night_*")', True),
        ('title.like("ight*")', False),
        ('title.like("NIGHT*")', False),
        ('not title.like("*.mov")', True),
        (r'title.matches(r"_0\d\.")', True),
        ('metadata.city.like("O*")', True),
        ('metadata.camera.like("*")', False),
        ('title == "night_07.mp4"', True),
        ('kind == "video"', True),
        ('metadata.city in ["Oslo", "Bergen"]', True),
        ("count not in [1, 2, -3]", True),
        ("count in (3, 4.0)", True),
        ("1 < count in [4] ", True),
        ("metadata.rain == 1", False),
        ("metadata.rain == True", True),
        (" \n count(Car) > 2\n  and has(Person)\n", True),
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
        'confidence("Road sign").max != 2',
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
        ("", 1, "the rule is empty"),
        (" ", 1, "the rule is empty"),
        ("count >", 8, "the rule is not complete"),
        ("cuont > 3", 1, "unknown word 'cuont': did you mean 'count'?"),
        ("  cuont > 3", 3, "unknown word 'cuont'"),
        ('title == "Ä" and cuont > 3', 18, "unknown word 'cuont'"),
        ("count(Car > 3", 6, "'(' was never closed"),
        ("count() > 3", 7, "expected a class"),
        ("count(1) > 3", 7, "expected a class"),
        ("count(Car, n=1) > 3", 7, "expected a class"),
        ("has > 3", 1, "has: of what? has(Person)"),
        ("has(Road sign)", 5, 'needs quotes: has("Road sign", Car)'),
        ("count = 3", 7, "got '=', did you mean '=='?"),
        ("count ≥ 3", 7, "got '≥', did you mean '>='?"),
        ("count > 3 & count < 5", 11, "got '&', did you mean 'and'?"),
        ("(count > 3) && count < 5", 14, "got '&', did you mean 'and'?"),
        ("count % 3 == 1", 7, "got '%', which is not an operator of rules"),
        ("count is 3", 7, "got 'i', which is not an operator of rules"),
        ("count > 3 count", 11, "got 'count', expected an operator or a value"),
        ("title > 3", 7, "compares a number with a text"),
        ('title > "a"', 7, "orders a text: only == and !="),
        ("title + 1 == 2", 1, "is a text, expected a number"),
        ("count and has(Car)", 1, "is a number, expected true or false"),
        ("has(Car) and count", 14, "is a number, expected true or false"),
        ("not count", 5, "is a number, expected true or false"),
        ("count", 1, "is a number, expected true or false"),
        ('title.like("a', 12, "unterminated string literal"),
        ('title like "night*"', 7, 'write title.like("…")'),
        ('title not matches "a"', 11, 'write title.matches("…")'),
        ("title.like(night)", 1, "expected a text in quotes"),
        ('title.matches("(")', 15, "is not a regular expression"),
        (r'title.matches("\d")', 15, "put an r before the text"),
        (r'title.matches("\bnight")', 15, "put an r before the text"),
        ("confidence > 0.5", 1, "confidence: of what? confidence.min"),
        ("confidence.p101 > 0.5", 1, "percentiles"),
        ("confidence.avg > 0.5", 1, "after 'confidence.'"),
        ("metadata > 3", 1, "metadata: of what? metadata.camera"),
        ("metadata[camera] > 3", 1, 'expected a key in quotes: metadata.camera or metadata["camera 1"]'),
        ("count in width", 10, "expected a list"),
        ("count in []", 10, "expected a list"),
        ('count in ["a"]', 7, "compares a number with a text"),
        ("count in [1", 10, "'[' was never closed"),
        ("count not > 3", 11, "got '>', expected an operator or a value"),
        ("count > 3 # crowded", 11, "comments are not part of a rule"),
        ("count > 3 # crowded\n and has(Car)", 11, "comments are not part of a rule"),
        ("1e999 > 3", 1, "expected a number of up to 308 digits"),
        ("1" + "0" * 400 + " > 3", 1, "expected a number of up to 308 digits"),
        ("otherwise", 1, "unknown word"),
    ],
)
def test_a_mistake_is_named_with_its_column(text: str, column: int, complaint: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_condition(text)
    assert complaint in str(caught.value)
    assert caught.value.column == column


HOSTILE = [
    "__import__('os')",
    "title.__class__ == 1",
    "title.__class__.__mro__[1].__subclasses__() == 1",
    "().__class__ == 1",
    "metadata.get('x') == 1",
    "metadata.city.like.__globals__('x')",
    "[x for x in title] == 1",
    "(lambda: true)() == 1",
    "f'{title}' == 'a'",
    "(x := 3) > 1",
    "title if count else title",
    "9 ** 9 ** 9 ** 9 > 1",
    "9 << 999999999 > 1",
    "'a' * 999999999 == 'a'",
    "b'a' == b'a'",
    "3j == 1",
    "... == 1",
    "title[0] == 'n'",
    "title.like(*metadata.patterns)",
    "count\0 > 3",
    "title == '\ud800'",
    "(" * 5000 + "1" + ")" * 5000 + " == 1",
    "-" * 15000 + "1 == 1",
    "not " * 150 + "has(Car)",
    "+".join("1" * 150) + " == 1",
    "metadata" + ".a" * 9000 + " == 1",
    "has" + "(Car)" * 4000,
    "count == " + "9" * 19000,
    "title == '" + "a" * 20000 + "'",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:20])
def test_nothing_but_rules_is_read(text: str) -> None:
    with pytest.raises(RuleError):
        parse_condition(text)


def test_long_lists_and_long_sums_are_read() -> None:
    titles = ", ".join(f'"{number}.mp4"' for number in range(1000))
    assert not parse_condition(f"title in [{titles}]").holds(FACTS)
    assert parse_number("+".join("1" * 90)).number(FACTS) == 90


def test_numbers_too_large_for_a_float_are_missing() -> None:
    assert parse_number("metadata.id").number(Facts("a", metadata={"id": 10**400})) is None


def test_a_condition_is_no_priority() -> None:
    with pytest.raises(RuleError, match="column 1: is true or false, expected a number"):
        parse_number("count > 3")


def test_named_classes_and_the_look_at_metadata_are_known_beforehand() -> None:
    rule = parse_condition("count(Car, Van) > 3 or not (confidence(Bus).min < 0.3 and metadata.city == 'Oslo')")
    assert rule.classes == ("Car", "Van", "Bus")
    assert rule.uses_metadata
    assert not parse_condition("has(Car)").uses_metadata


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
