"""The commands as a person types them: exit codes, what is told where, and what is left on disk."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.cli.app import app, main
from prelabel.config.load import config_of_media, load_config
from prelabel.runtime.interrupts import StopSignal
from tests.make_media import NUM_FRAMES, RECIPES, write_clip
from tests.processes import command

ROOT = Path(__file__).parents[2]
DETECTOR = '''
import time
from pathlib import Path
from prelabel import Detections

class Steady:
    class_names = ("person", "car")

    def __init__(self, conf: float = 0.6, stops_after: int = -1):
        self.score, self.left = conf, stops_after

    def detect(self, batch):
        """From some batch on it waits for a file."""
        while self.left == 0 and not Path("go on").exists():
            time.sleep(0.01)
        self.left -= self.left > 0
        with open("batches.log", "a") as log:
            log.write(f"{batch.frame_indices[0]}\\n")
        return [Detections([[10, 10, 40, 40]], [self.score], [0]) for _ in batch.frame_indices]
'''
BATCHES_OF_A_VIDEO = -(-NUM_FRAMES // 4)
CLASSIFIER = """
import torch

class Sure:
    class_names = ("day", "night")

    def classify(self, images):
        return torch.tensor([[0.9, 0.1] for _ in images])
"""
CONFIG = """
source: {path: clips, output: out}
detector: {use: "mine.py:Steady", batch_size: 4}
retries: {wait_seconds: 0}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "mine.py").write_text(DETECTOR)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "empty").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", RECIPES["h264"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def prelabel(monkeypatch):
    """Runs the command line here and returns its exit code."""

    def prelabel(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["prelabel", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0

    return prelabel


def test_a_run_prints_json_on_standard_output_and_a_table_on_standard_error(folder, prelabel, capsys):
    assert prelabel("run", "config.yaml") == 0
    told = capsys.readouterr()
    events = [json.loads(line) for line in told.out.splitlines()]
    assert [event["event"] for event in events] == ["run_started", "task_started", "task_done", "run_done"]
    assert events[-1]["instances"] == {"person": NUM_FRAMES}
    assert re.search(rf"person +{NUM_FRAMES}\n", told.err)
    assert "frames/s" in told.err
    assert "out/report.json" in told.err


def test_a_failed_task_is_exit_1_and_named_with_its_reason(folder, prelabel, capsys):
    (folder / "clips" / "b.mp4").write_bytes(b"nothing")
    assert prelabel("run", "config.yaml") == 1
    assert re.search(r"failed b\.mp4: ", capsys.readouterr().err)
    assert prelabel("status", "config.yaml") == 1
    told = capsys.readouterr().out
    assert re.search(r"done +a\.mp4", told)
    assert re.search(r"failed +b\.mp4", told)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("run", "none.yaml"), "there is no such config"),
        (("run", "config.yaml", "--set", "detector.batch_size=0"), "expected 1 or more"),
        (("run", "config.yaml", "--set", "source.path=nowhere"), "there is nothing at nowhere"),
        (("run", "config.yaml", "--set", "detector.use=mine.py:Stedy"), "did you mean 'Steady'"),
        (("run", "config.yaml", "--set", "labels.classes={persn: X}"), "did you mean 'person'"),
        (("check", "none.yaml"), "there is no such config"),
        (("export", "config.yaml", "target"), "prelabel run"),
        (
            ("export", "config.yaml", "target", "-f", "xml"),
            "coco | cvat | encord | label-studio | mot | voc | yolo | file.py:function",
        ),
        (("preview", "config.yaml"), "prelabel run"),
        (("evaluate", "config.yaml"), "prelabel run"),
        (("status", "nowhere"), "no run has written here"),
        (("init",), "name what to label: VIDEO|FOLDER|GLOB or --project HASH"),
        (("init", ".", "--project", "x"), "got both: VIDEO"),
        (("init", ".", "--words"), "files on this machine have no ontology: name words"),
        (("init", ".", "--words", "cat", "--classify"), "--words and --classify"),
        (("run", "clips", "--words", " , "), "--words: names nothing to look for"),
        (("run", "clips", "--words", ""), "files on this machine have no ontology: name words"),
        (("run", "clips", "--classes", ","), "--classes: names no class"),
        (("preview", "config.yaml", "--dry-run"), "prelabel run CONFIG --dry-run"),
        (("init", "nowhere", "-o", "new.yaml"), "nowhere: there is no such config, file or folder"),
        (("check", "clips/a.mp4"), "is a video, expected a config; `prelabel init clips/a.mp4` writes one"),
        (("run", "nowhere.mp4"), "nowhere.mp4: there is no such config, file or folder"),
        (("run", "clips/*.avi"), "clips/*.avi: there is no such config, file or folder"),
        (("run", "empty"), "at empty"),
        (("run", "rtsp://cam/1"), "rtsp://cam/1 is a live stream: record it first"),
        (("run", "config.yaml", "other.yaml"), "config.yaml, other.yaml: are two configs"),
        (("run",), "nothing to label: name a config, a video or a folder; `prelabel run --demo` needs neither"),
        (("run", "--demo", "clips"), "--demo: labels a video of its own: leave out clips, or --demo"),
        (("run", "clips", "--weights", "yolo1n"), "did you mean 'yolo11n'"),
    ],
)
def test_a_setup_error_is_exit_2_and_one_line_with_the_next_step(folder, prelabel, capsys, words, complaint):
    assert prelabel(*words) == 2
    told = capsys.readouterr()
    assert complaint in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert not (folder / "out" / "report.json").exists()


def test_check_shows_every_failure_not_only_the_first(folder, prelabel, capsys):
    assert prelabel("check", "config.yaml") == 0
    capsys.readouterr()
    settings = ("--set", "reader.use=nosuch", "--set", "labels.classes={persn: X}")
    assert prelabel("check", "config.yaml", *settings) == 2
    told = capsys.readouterr().out
    assert "nosuch" in told
    assert "persn" in told


def test_limit_and_dry_run(folder, prelabel, capsys):
    write_clip(folder / "clips" / "b.mp4", RECIPES["h264"])
    assert prelabel("run", "config.yaml", "--limit", "1", "--dry-run") == 0
    assert "nothing was saved or moved" in capsys.readouterr().err
    assert len(list((folder / "out" / "dry-run").glob("*.labels.json"))) == 1
    assert not list((folder / "out").glob("*.labels.json"))


def test_preview_and_export_after_a_run(folder, prelabel):
    assert prelabel("run", "config.yaml") == 0
    assert prelabel("preview", "config.yaml", "a.mp4", "--kind", "sheet") == 0
    assert (folder / "out" / "a.preview.jpg").stat().st_size > 1000
    assert prelabel("export", "config.yaml", "exported", "-f", "yolo") == 0
    assert len(list((folder / "exported").rglob("*.txt"))) >= NUM_FRAMES
    assert prelabel("export", "config.yaml", "with_images", "-f", "voc", "--frames", "5") == 0
    for words in (("--frames", "config.yaml", "labelled"), ("config.yaml", "labelled", "--frames")):
        assert prelabel("export", *words) == 0
        assert len(list((folder / "labelled" / "images" / "a.mp4").glob("*.jpg"))) == NUM_FRAMES
    assert len(list((folder / "with_images" / "JPEGImages").glob("a.mp4_*.jpg"))) == len(range(0, NUM_FRAMES, 5))


def test_evaluate_after_a_run_shows_what_was_kept(folder, prelabel, capsys):
    assert prelabel("run", "config.yaml") == 0
    capsys.readouterr()
    assert prelabel("evaluate", "config.yaml") == 0
    told = capsys.readouterr().err
    assert re.search(rf"person +{NUM_FRAMES} +{NUM_FRAMES} +0 +0 +0 +0 +1\.00 +1\.00 +1\.00 +100%", told)
    assert (folder / "out" / "evaluation.json").exists()
    assert prelabel("evaluate", "config.yaml", "--against", "nowhere.json") == 2


def test_init_writes_a_config_that_loads_and_never_replaces_a_file(folder, prelabel, capsys):
    assert prelabel("init", "clips", "-o", "new.yaml", "--weights", "demo") == 0
    assert prelabel("check", "new.yaml") == 0
    assert prelabel("init", "clips", "-o", "new.yaml") == 2
    assert "exists already" in capsys.readouterr().err


def test_init_keeps_the_words_of_a_run_without_a_config(folder, prelabel):
    assert prelabel("init", "clips", "--words", "fork lift, pallet", "--weights", "models/own") == 0
    shorthands = {"words": "fork lift,pallet", "weights": "models/own"}
    loaded, of_run = load_config(Path("prelabel.yaml")), config_of_media([Path("clips")], (), shorthands)
    expected = {"weights": "models/own", "words": ["fork lift", "pallet"]}
    assert of_run.detector.options == expected
    assert loaded.detector.options == {**expected, "conf": 0.25}
    assert (loaded.detector.use, loaded.labels) == ("transformers", of_run.labels)


def test_a_video_is_labelled_without_a_config(folder, prelabel, capsys):
    assert prelabel("run", "clips/a.mp4", "--weights", "demo", "--conf", "0.9", "--stride", "2", "-o", "there") == 0
    report = json.loads((folder / "there" / "report.json").read_text())
    assert [task["title"] for task in report["tasks"]] == ["a.mp4"]
    assert report["model"]["name"] == "demo"


@pytest.mark.slow
def test_the_demo_needs_no_file(folder, prelabel):
    assert prelabel("run", "--demo", "--stride", "10", "--output", "shown") == 0
    report = json.loads((folder / "shown" / "report.json").read_text())
    assert [task["title"] for task in report["tasks"]] == ["demo.mp4"]
    assert (folder / "shown" / "demo.labels.json").exists()


def test_classes_choose_among_those_of_the_demo(folder, prelabel, capsys):
    assert prelabel("run", "--demo", "--stride", "10", "--output", "shown", "--classes", "ball") == 0
    (task,) = json.loads((folder / "shown" / "report.json").read_text())["tasks"]
    assert task["instances"].keys() == {"ball"}
    assert prelabel("run", "--demo", "--classes", "bal") == 2
    assert "detector.only: 'bal' is no class of this model; did you mean 'ball'" in capsys.readouterr().err
    assert prelabel("run", "--demo", "--classes", "²") == 2  # a digit to Python, but no number
    assert "detector.only: '²' is no class of this model" in capsys.readouterr().err


def test_the_command_that_a_run_without_a_config_prints_writes_the_same_as_a_config(folder, prelabel, capsys):
    own = ("--set", "detector.use=mine.py:Steady", "--set", "frames=warn")
    assert prelabel("run", "clips", *own, "--conf", "0.7", "--tracks", "--stride", "3", "--output", "my out") == 0
    (printed,) = re.findall(r"to keep this as a config: prelabel (.*)", capsys.readouterr().err)
    assert prelabel(*shlex.split(printed)) == 0
    kept = load_config(Path("prelabel.yaml"))
    assert kept == config_of_media(
        [Path("clips")],
        ["detector.use=mine.py:Steady", "frames=warn"],
        {"conf": 0.7, "tracks": True, "stride": 3, "output": Path("my out")},
    )
    assert prelabel("run", "prelabel.yaml") == 0
    assert "already done" in capsys.readouterr().err


def test_a_config_that_names_what_a_run_chose_itself_does_not_detect_again(folder, prelabel, capsys):
    assert prelabel("run", "clips", "--weights", "demo", "--stride", "10") == 0
    (printed,) = re.findall(r"to keep this as a config: prelabel (.*)", capsys.readouterr().err)
    assert prelabel(*shlex.split(printed)) == 0
    assert load_config(Path("prelabel.yaml")).detector.use == "onnx"
    assert prelabel("run", "prelabel.yaml") == 0
    assert "already done" in capsys.readouterr().err


def test_the_command_keeps_a_classifier(folder, prelabel, capsys):
    (folder / "mine.py").write_text(CLASSIFIER)
    assert prelabel("run", "clips", "--set", "classifier.use=mine.py:Sure") == 0
    (printed,) = re.findall(r"to keep this as a config: prelabel (.*)", capsys.readouterr().err)
    assert prelabel(*shlex.split(printed)) == 0
    assert load_config(Path("prelabel.yaml")).classifier.use == "mine.py:Sure"
    assert prelabel("check", "prelabel.yaml") == 0


def test_the_printed_command_names_a_config_that_does_not_exist_yet(folder, prelabel, capsys):
    (folder / "prelabel.yaml").write_text("source: {path: other}\n")
    assert prelabel("run", "clips", "--set", "detector.use=mine.py:Steady") == 0
    assert capsys.readouterr().err.strip().endswith("--output prelabel-2.yaml")


def test_run_accepts_a_glob_that_the_shell_has_expanded(folder, prelabel):
    write_clip(folder / "clips" / "b.mp4", RECIPES["h264"])
    assert prelabel("run", "clips/a.mp4", "clips/b.mp4", "--set", "detector.use=mine.py:Steady") == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [task["title"] for task in report["tasks"]] == ["a.mp4", "b.mp4"]


def test_a_config_labels_the_media_that_are_named_after_it(folder, prelabel):
    write_clip(folder / "other.mp4", RECIPES["h264"])
    assert prelabel("run", "config.yaml", "other.mp4") == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [task["title"] for task in report["tasks"]] == ["other.mp4"]


def test_options_override_keys_of_a_config(folder, prelabel):
    assert prelabel("run", "config.yaml", "--conf", "0.8", "--stride", "2", "--output", "elsewhere") == 0
    report = json.loads((folder / "elsewhere" / "report.json").read_text())
    assert [task["instances"] for task in report["tasks"]] == [{"person": (NUM_FRAMES + 1) // 2}]
    assert not (folder / "out").exists()


def test_every_command_has_help_and_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert "export-model" in names
    for registered, name in zip(app.registered_commands, names, strict=True):
        assert registered.callback.__doc__
        assert registered.epilog.startswith(f"Example: prelabel {name}")
        assert f"`prelabel {name}" in readme


@pytest.mark.slow
def test_help_needs_none_of_the_heavy_packages():
    code = (
        "import sys; import prelabel.cli.app; print([m for m in ('torch','encord','av','decord') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts Python with `prelabel run config.yaml` and more words, as a person does."""
    started = []

    def start(*words: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "prelabel", "run", "config.yaml", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=folder, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end_of(process: subprocess.Popen) -> tuple[str, str]:
    return process.communicate()


def wait_for_event(lines: Iterable[str], name: str) -> dict[str, Any]:
    """Returns the next event of that name."""
    said = []
    for line in lines:
        said.append(line)
        if line.startswith("{") and json.loads(line)["event"] == name:
            return json.loads(line)
    pytest.fail(f"ended without {name} after {said}")


def interrupt(process: subprocess.Popen) -> str:
    """Presses Ctrl-C; returns what the process says to it, once it has seen it."""
    process.send_signal(signal.SIGINT)
    return wait_for_event(process.stdout, "stopping")["message"]


def statuses_of(folder: Path) -> list[str]:
    return [task["status"] for task in json.loads((folder / "out" / "report.json").read_text())["tasks"]]


@pytest.mark.slow
def test_ctrl_c_ends_after_the_current_task_and_the_next_run_continues(folder, start, prelabel):
    for name in ("b.mp4", "c.mp4", "d.mp4", "e.mp4"):
        write_clip(folder / "clips" / name, RECIPES["h264"])
    settings = ("--set", f"detector.stops_after={BATCHES_OF_A_VIDEO}")
    process = start(*settings)
    wait_for_event(process.stdout, "task_done")
    assert "stopping after the current tasks" in interrupt(process)
    (folder / "go on").touch()
    end_of(process)
    assert process.returncode == 130
    done = len(list((folder / "out").glob("*.labels.json")))
    assert 1 <= done < 5
    assert prelabel("run", "config.yaml", *settings) == 0
    assert len(list((folder / "out").glob("*.labels.json"))) == 5
    assert statuses_of(folder).count("already done") == done


@pytest.mark.slow
def test_ctrl_c_twice_ends_now_and_leaves_nothing_half_written(folder, start, prelabel):
    process = start("--set", "detector.stops_after=0")
    wait_for_event(process.stdout, "task_started")
    interrupt(process)  # two signals that come before the first is seen are one
    interrupt(process)
    (folder / "go on").touch()
    end_of(process)
    assert process.returncode == 130
    log = folder / "batches.log"  # some batches were not begun
    assert not log.exists() or len(log.read_text().splitlines()) < NUM_FRAMES // 4
    assert not list((folder / "out").rglob("*.labels.json"))
    assert not list((folder / "out").rglob("*.tmp"))
    assert prelabel("run", "config.yaml") == 0


@pytest.mark.slow
def test_the_next_run_continues_after_a_killed_one(folder, prelabel):
    write_clip(folder / "clips" / "b.mp4", RECIPES["h264"])
    settings = ("--set", f"detector.stops_after={BATCHES_OF_A_VIDEO}")
    with command(["run", "config.yaml", *settings], folder) as killed:
        wait_for_event(killed.lines(), "task_done")
    (folder / "go on").touch()
    assert prelabel("run", "config.yaml", *settings) == 0
    assert statuses_of(folder) == ["already done", "done"]


@pytest.mark.slow
def test_watching_labels_files_that_appear_later(folder):
    with command(["run", "config.yaml", "--watch", "1"], folder) as watching:
        wait_for_event(watching.lines(), "run_done")
        write_clip(folder / "later.mp4", RECIPES["h264"]).path.rename(folder / "clips" / "later.mp4")
        assert wait_for_event(watching.lines(), "task_done")["task"] == "later.mp4"
        watching.process.terminate()
        assert watching.end() == 0
    assert (folder / "out" / "later.labels.json").exists()


def test_watching_is_silent_while_nothing_new_comes(folder, prelabel, capsys, monkeypatch):
    told = []

    def rest(stop: StopSignal, seconds: float) -> bool:
        """Stands for the time between two passes, and ends the run after the third."""
        told.append(capsys.readouterr())
        if len(told) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return not stop.is_set

    monkeypatch.setattr("prelabel.cli.commands._rest", rest)
    assert prelabel("run", "config.yaml", "--watch", "1") == 0
    first, *later = told
    assert "run_done" in first.out
    assert [said.out for said in later] == ["", ""]
    assert [said.err.count("already done") for said in later] == [0, 0]


def test_a_limit_counts_over_all_passes_of_watching(folder, prelabel):
    write_clip(folder / "clips" / "b.mp4", RECIPES["h264"])
    assert prelabel("run", "config.yaml", "--watch", "1", "--limit", "1") == 0
    assert len(list((folder / "out").glob("*.labels.json"))) == 1


SLOW_TO_LOAD = """
import time
from pathlib import Path

class Slow:
    class_names = ("person",)

    def __init__(self):
        Path("loading").touch()
        time.sleep(600)
"""


@pytest.mark.slow
def test_ctrl_c_while_the_model_is_loaded_ends_at_once(folder, start):
    (folder / "slow.py").write_text(SLOW_TO_LOAD)
    process = start("--set", "detector={use: slow.py:Slow}")
    while not (folder / "loading").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = end_of(process)
    assert process.returncode == 130
    assert "Traceback" not in said


@pytest.mark.slow
def test_ctrl_c_a_third_time_does_not_wait_for_the_detector(folder, start):
    process = start("--set", "detector.stops_after=0")
    wait_for_event(process.stdout, "task_started")
    interrupt(process)
    interrupt(process)
    process.send_signal(signal.SIGINT)
    _, said = end_of(process)
    assert process.returncode == 130
    assert "Traceback" not in said
