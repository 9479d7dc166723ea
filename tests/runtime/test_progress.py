from __future__ import annotations

import io
import json

from rich.console import Console

from prelabel.runtime.progress import Bars, JsonLines, show_progress


def test_drawing_is_no_start_of_a_task_in_a_log_and_a_line_on_a_terminal():
    stream, screen = io.StringIO(), io.StringIO()
    JsonLines(stream).event("drawing", task="a.mp4", task_id="a")
    assert json.loads(stream.getvalue())["event"] == "drawing"
    with Bars(Console(file=screen, force_terminal=True)) as bars:
        bars.begin("a.mp4", 10)
        bars.event("drawing", task="a[1].mp4", task_id="a")
    assert "drawing a[1].mp4" in screen.getvalue()


def test_every_event_is_a_json_line():
    stream = io.StringIO()
    progress = JsonLines(stream)
    progress.begin("ünïcode.mp4", 10)
    progress.event("task_failed", task="a", reason="b\nc")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["task_started", "task_failed"]
    assert events[0]["task"] == "ünïcode.mp4"
    assert events[1]["reason"] == "b\nc"


def test_a_long_task_tells_how_far_it_is():
    stream = io.StringIO()
    progress = JsonLines(stream, seconds_between=0.0)
    progress.begin("a.mp4", 100)
    progress.frames(25)
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["event"], last["frames_seen"], last["frames"]) == ("progress", 25, 100)
    assert last["seconds_left"] >= 0


def test_bars_show_a_failure_with_its_reason():
    stream = io.StringIO()
    with Bars(Console(file=stream, force_terminal=True, width=100, no_color=True)) as bars:
        bars.begin("a.mp4", 10)
        bars.frames(5)
        bars.event("task_failed", task="a.mp4", reason="a.mp4: no such [file]")
    assert "failed a.mp4: no such [file]" in stream.getvalue()


def test_what_a_part_of_ones_own_prints_gets_not_between_json_lines(capsys):
    with show_progress() as progress:
        progress.event("run_started", tasks=1)
        print("detecting")
        progress.event("run_done", done=1)
    print("after")
    told = capsys.readouterr()
    first, last, after = told.out.splitlines()
    assert [json.loads(line)["event"] for line in (first, last)] == ["run_started", "run_done"]
    assert (after, told.err) == ("after", "detecting\n")
