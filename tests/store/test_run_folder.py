"""The output folder: one run at a time, and file names that no two tasks share."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prelabel.errors import MachineError
from prelabel.store.run_folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from prelabel.store.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).hold():
    print("held", flush=True)
    time.sleep(60)
"""
NAMES = """
import sys
from pathlib import Path
from types import SimpleNamespace
from prelabel.store.run_folder import RunFolder
store = RunFolder(Path(sys.argv[1]))
tasks = [SimpleNamespace(key=f"{sys.argv[2]}/{number}", title=f"{number % 10}.mp4") for number in range(30)]
print(*map(store.name, tasks), sep="\\n")
"""
PARTS = (
    *("..", ".", "/", "//", "\\", "\0", "\n", " ", "a", "A", "é", "e\u0301", "\ud800", "\u202e", "x" * 200),
    *(".mp4", "~", ".prelabel"),
)
TITLES = st.one_of(st.text(), st.lists(st.sampled_from(PARTS), max_size=8).map("".join))


@dataclass(frozen=True)
class Named:
    key: str
    title: str


def names_of(store: RunFolder, *titles: str) -> list[str]:
    return [store.name(Named(title, title)) for title in titles]


def test_a_second_run_is_refused_and_told_who_holds_the_folder(tmp_path):
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with RunFolder(tmp_path).hold(), pytest.raises(MachineError, match=holder), RunFolder(tmp_path).hold():
        pass


def test_the_run_that_holds_the_folder_may_hold_it_again(tmp_path):
    store = RunFolder(tmp_path)
    with store.hold():
        with store.hold():
            pass
        with pytest.raises(MachineError, match="another run writes here"), RunFolder(tmp_path).hold():
            pass


def test_a_folder_is_free_after_the_run_also_after_an_error(tmp_path):
    with pytest.raises(KeyError), RunFolder(tmp_path).hold():
        raise KeyError
    with RunFolder(tmp_path).hold():
        pass


def test_a_killed_run_frees_the_folder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(MachineError, match=f"process {process.pid} on"), RunFolder(tmp_path).hold():
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with RunFolder(tmp_path).hold():
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / ".prelabel").write_text("a file where the folder should be")
    with pytest.raises(MachineError, match=r"run\.lock: cannot be written"), RunFolder(tmp_path).hold():
        pass
    with pytest.raises(MachineError, match=r"ledger\.sqlite"):
        names_of(RunFolder(tmp_path), "a.mp4")


def test_reading_a_folder_without_a_run_writes_nothing(tmp_path):
    store = RunFolder(tmp_path / "out")
    assert (store.has_ledger, store.entries()) == (False, [])
    assert not (tmp_path / "out").exists()


def test_two_clips_of_one_stem_have_different_names(tmp_path):
    assert names_of(RunFolder(tmp_path), "a.mp4", "a.mov", "b/a.mp4") == ["a", "a.mov", "b/a"]


def test_names_stay_in_later_runs_whatever_the_order(tmp_path):
    first = names_of(RunFolder(tmp_path), "a.mp4", "a.mov", "a")
    assert names_of(RunFolder(tmp_path), "a", "a.mov", "a.mp4") == first[::-1]
    assert len(set(first)) == 3


def test_two_tasks_of_one_title_are_told_apart_by_key(tmp_path):
    store = RunFolder(tmp_path)
    names = [store.name(Named(key, "clip.mp4")) for key in ("task 1", "task 2", "task 3")]
    assert names[:2] == ["clip", "clip.mp4"]
    assert names[2].startswith("clip.mp4-")


def test_two_folders_objects_give_a_task_the_same_name(tmp_path):
    one, two = RunFolder(tmp_path), RunFolder(tmp_path)
    assert (names_of(one, "a.mp4"), names_of(two, "a.mov")) == (["a"], ["a.mov"])
    assert (names_of(two, "a.mp4"), names_of(one, "a.mov")) == (["a"], ["a.mov"])


@pytest.mark.slow
def test_processes_that_give_names_in_one_folder_give_each_once(tmp_path):
    command = [sys.executable, "-c", NAMES, str(tmp_path)]
    workers = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    names = [name for worker in workers for name in worker.communicate()[0].split()]
    assert len(set(names)) == len(names) == 120


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.text(), TITLES), unique_by=lambda task: task[0], max_size=8))
def test_no_title_leaves_the_folder_and_no_two_tasks_meet(tasks):
    with TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        store = RunFolder(output)
        names = [store.name(Named(key, title)) for key, title in tasks]
        assert len(set(names)) == len(tasks)
        for name in names:
            path = output / f"{name}.labels.json"
            assert Path(os.path.normpath(path)) == path
            assert path.is_relative_to(output)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert [RunFolder(output).name(Named(key, title)) for key, title in tasks] == names
