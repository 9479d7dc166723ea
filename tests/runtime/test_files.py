"""Names and contents of output files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.errors import MachineError
from prelabel.runtime.files import OutputNames, atomic_write, output_name, safe_name


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


def test_two_clips_of_one_stem_do_not_meet(tmp_path):
    names = OutputNames(tmp_path)
    assert [names.of(title, title) for title in ("a.mp4", "a.mov", "b/a.mp4")] == ["a", "a.mov", "b/a"]


def test_names_stay_in_later_runs_whatever_the_order(tmp_path):
    first = OutputNames(tmp_path)
    given_names = {title: first.of(title, title) for title in ("a.mp4", "a.mov", "a")}
    later = OutputNames(tmp_path)
    assert {title: later.of(title, title) for title in ("a", "a.mov", "a.mp4")} == given_names
    assert len(set(given_names.values())) == 3


def test_two_tasks_of_one_title_are_told_apart_by_key(tmp_path):
    names = OutputNames(tmp_path)
    given_names = [names.of(key, "clip.mp4") for key in ("task 1", "task 2", "task 3")]
    assert given_names[:2] == ["clip", "clip.mp4"]
    assert given_names[2].startswith("clip.mp4-")


def test_two_that_give_names_in_one_folder_agree(tmp_path):
    one, two = OutputNames(tmp_path), OutputNames(tmp_path)
    assert (one.of("a.mp4", "a.mp4"), two.of("a.mov", "a.mov")) == ("a", "a.mov")
    assert (two.of("a.mp4", "a.mp4"), one.of("a.mov", "a.mov")) == ("a", "a.mov")


PARTS = (
    "..",
    ".",
    "/",
    "//",
    "\\",
    "\0",
    "\n",
    " ",
    "a",
    "A",
    "é",
    "e\u0301",
    "\ud800",
    "\u202e",
    "x" * 200,
    ".mp4",
    "~",
    ".prelabel",
)
TITLES = st.one_of(st.text(), st.lists(st.sampled_from(PARTS), max_size=8).map("".join))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(), TITLES), unique_by=lambda task: task[0], max_size=12))
def test_no_title_leaves_the_folder_and_no_two_tasks_meet(tasks):
    with TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        names = OutputNames(output)
        given_names = [names.of(key, title) for key, title in tasks]
        assert len(set(given_names)) == len(tasks)
        for name in given_names:
            path = output / f"{name}.labels.json"
            assert Path(os.path.normpath(path)) == path
            assert path.is_relative_to(output)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert [OutputNames(output).of(key, title) for key, title in tasks] == given_names


NAMES = """
import sys
from pathlib import Path
from prelabel.runtime.files import OutputNames
names = OutputNames(Path(sys.argv[1]))
print(*[names.of(f"{sys.argv[2]}/{number}", f"{number % 10}.mp4") for number in range(30)], sep="\\n")
"""


@pytest.mark.timeout(60)
def test_processes_that_give_names_in_one_folder_give_each_once(tmp_path):
    command = [sys.executable, "-c", NAMES, str(tmp_path)]
    workers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    given_names = [name for worker in workers for name in worker.communicate()[0].split()]
    assert len(set(given_names)) == len(given_names) == 120


def test_damaged_note_of_names_is_an_error(tmp_path):
    OutputNames(tmp_path).of("a", "a")
    (tmp_path / ".prelabel" / "names.jsonl").write_text("{\n")
    with pytest.raises(MachineError, match=r"names\.json"):
        OutputNames(tmp_path)


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


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".prelabel").write_text("a file where the folder should be")
    with pytest.raises(MachineError, match="cannot be written"):
        OutputNames(tmp_path).of("key", "clip.mp4")


def test_a_name_that_was_cut_off_by_a_loss_of_power_is_given_again(tmp_path):
    names = OutputNames(tmp_path)
    names.of("1", "a.mp4")
    note = tmp_path / ".prelabel" / "names.jsonl"
    with note.open("ab") as file:
        file.write(b'["a.mp4", "3')
    assert OutputNames(tmp_path).of("2", "a.mov") == "a.mov"
    assert [OutputNames(tmp_path).of(key, title) for key, title in (("1", "a.mp4"), ("2", "a.mov"))] == ["a", "a.mov"]
    assert len(note.read_text().splitlines()) == 2


def test_a_name_costs_a_line_however_many_there_are(tmp_path):
    names = OutputNames(tmp_path)
    for number in range(300):
        names.of(f"{number}", f"{number}.mp4")
    before = (tmp_path / ".prelabel" / "names.jsonl").stat().st_size
    names.of("more", "more.mp4")
    assert (tmp_path / ".prelabel" / "names.jsonl").stat().st_size - before == len('["more", "more"]\n')
