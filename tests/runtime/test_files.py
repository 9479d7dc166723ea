"""Names and contents of output files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.runtime.files import atomic_write, output_name, safe_name


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("clip.mp4", "clip"),
        ("day 1/cam-2/clip.v2.mov", "day 1/cam-2/clip.v2"),
        ("köln straße.mp4", "köln straße"),
        ("日本/動画.mkv", "日本/動画"),
        ("no suffix", "no suffix"),
    ],
)
def test_ordinary_titles_lose_their_suffix_alone(title, name):
    assert output_name(title) == name


@pytest.mark.parametrize(
    "title",
    [
        *("../../etc/passwd", "/etc/passwd", "", ".", "..", "///", ".hidden", "a//b", "a/./b", "a\\b", "con:*?"),
        *("a\x00b", "a\nb.mp4", "\u202egnp.mp4", "🎬.mp4", "\ud800.mp4", "trailing. "),
        *("x" * 400, "é" * 200, "/".join(["deep"] * 400)),
    ],
)
def test_odd_titles_become_safe_relative_names(tmp_path, title):
    name = output_name(title)
    path = tmp_path / f"{name}.labels.json"
    with atomic_write(path) as unfinished:
        unfinished.write_text("{}")
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert path.read_text() == "{}"
    assert not any(part.startswith(".") for part in name.split("/"))


@given(st.text(), st.text())
def test_different_titles_have_different_names(a, b):
    assert (safe_name(a) == safe_name(b)) == (a == b)


def test_two_forms_of_one_letter_are_two_titles():
    assert safe_name("caf\u00e9") != safe_name("cafe\u0301")


def test_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail():
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"
