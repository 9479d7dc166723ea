"""A user's function at an agent stage of the test server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import run_config
from prelabel.config.load import load_config
from prelabel.errors import SetupError
from prelabel.run.checks import run_checks
from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, REVIEW, Refusal, Status
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.run.agents.platforms import reasons, report_of, write_config

pytestmark = pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning")

REFUSAL = {"save_label_rows": Refusal("AUTHORISATION_ERROR"), "act_on_tasks": Status(403)}
CAPTION = """
from tests.run.agents.platforms import add_caption

def handle(label_row, text="a street"):
    add_caption(label_row, text)
    return "Annotate 1"
"""


def captions(platform: Platform) -> list[str]:
    row = platform.project.row(platform.clip)
    return [] if row is None else [a["classifications"][0]["answers"] for a in row.classification_answers.values()]


def asked(platform: Platform) -> set[str]:
    return {call.operation for call in platform.server.calls}


def test_a_function_that_asks_for_the_task_alone_reads_nothing_else(site: Platform, tmp_path: Path) -> None:
    site.add_clips(2)
    code = "def handle(task):\n    return 'Night team' if task.title == 'clip.mp4' else 'Annotate 1'\n"
    assert run_config(write_config(site, tmp_path, code)) == 0
    assert site.project.titles_at(REVIEW) == ["clip.mp4"]
    assert site.project.titles_at(ANNOTATE) == ["0.mp4", "1.mp4"]
    assert not asked(site) & {"download", "get_item", "create_label_rows", "save_label_rows"}
    assert report_of(tmp_path)["pathways"] == {"Annotate 1": 2, "Night team": 1}


def test_changes_are_saved_before_the_task_moves(site: Platform, tmp_path: Path) -> None:
    assert run_config(write_config(site, tmp_path, CAPTION, "agent: {use: my_agent.py:handle, text: a park}")) == 0
    assert captions(site) == ["a park"]
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]
    operations = [call.operation for call in site.server.calls]
    assert operations.index("save_label_rows") < operations.index("act_on_tasks")
    assert report_of(tmp_path)["tasks"][0]["instances"] == {"Caption": 1}


def test_a_row_that_was_not_changed_is_not_saved(site: Platform, tmp_path: Path) -> None:
    assert run_config(write_config(site, tmp_path, "def handle(label_row): return 'Annotate 1'\n")) == 0
    assert not site.server.world.saves
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_media_come_by_the_same_reader(site: Platform, tmp_path: Path) -> None:
    code = """
def handle(task, media):
    frames = list(media.frames())
    assert [frame.frame_index for frame in frames] == list(range(task.num_frames))
    assert frames[3].array.shape == (media.info.height, media.info.width, 3)
    assert frames[3].image.size == (media.info.width, media.info.height)
    assert media.path.read_bytes()
    return "Annotate 1"
"""
    assert run_config(write_config(site, tmp_path, code)) == 0, reasons(tmp_path)
    assert report_of(tmp_path)["tasks"][0]["num_frames"] == NUM_FRAMES
    assert [left.name for left in (tmp_path / "out" / ".prelabel" / "cache").iterdir()] == [".lock"]


def test_none_goes_where_the_config_says(site: Platform, tmp_path: Path) -> None:
    rules = """
routing:
  - {when: metadata.city == "Oslo" and duration_seconds < 60 and num_frames == 12, pathway: Night team}
  - otherwise: Annotate 1
priority: 0.9
"""
    agent = f"agent: {{use: my_agent.py:handle}}\n{rules}"
    assert run_config(write_config(site, tmp_path, "def handle(): pass\n", agent)) == 0
    assert site.project.titles_at(REVIEW) == ["clip.mp4"]
    assert site.project.tasks_at(REVIEW)[0].priority == 0.9


def test_none_and_no_pathway_leave_the_task_and_the_next_run_asks_again(site: Platform, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path

def handle(task):
    file = Path({str(tmp_path / "go")!r})
    return "Annotate 1" if file.exists() else None
"""
    config = write_config(site, tmp_path, code)
    assert run_config(config) == 0
    assert site.project.titles_at(AGENT) == ["clip.mp4"]
    (tmp_path / "go").touch()
    assert run_config(config) == 0
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_what_is_asked_of_the_sdk_s_objects_waits_until_the_function_has_returned(
    site: Platform, tmp_path: Path
) -> None:
    code = """
from encord.objects import LabelRowV2
from encord.workflow.stages.agent import AgentTask
from tests.run.agents.platforms import add_caption

def handle(row: LabelRowV2, task: AgentTask):
    task.proceed(pathway_name="Night team")
    add_caption(row, "a street")
    row.set_priority(0.8)
    row.save()
    assert task.data_title == "clip.mp4"
"""
    assert run_config(write_config(site, tmp_path, code)) == 0, reasons(tmp_path)
    assert len(site.server.world.saves) == len(site.server.world.moves) == 1
    assert (site.project.titles_at(REVIEW), captions(site)) == (["clip.mp4"], ["a street"])
    assert site.project.tasks_at(REVIEW)[0].priority == 0.8


def test_a_dry_run_changes_nothing_and_writes_the_row_to_a_file(site: Platform, tmp_path: Path) -> None:
    assert run_config(write_config(site, tmp_path, CAPTION), dry_run=True) == 0
    assert asked(site) <= {"get_project", "get_ontology", "list_tasks", "list_label_rows"}
    (path,) = (tmp_path / "out" / "dry-run").glob("*.labels.json")
    row = json.loads(path.read_text())
    assert [answer["classifications"][0]["answers"] for answer in row["classification_answers"].values()] == [
        "a street"
    ]
    assert row["data_hash"] == site.clip.data_hash
    assert site.project.titles_at(AGENT) == ["clip.mp4"]


def test_a_dry_run_shows_the_labels_that_are_there(site: Platform, tmp_path: Path) -> None:
    row = site.initialised_row()
    row.add_object_instance(site.box([0, 1]))
    row.save()
    num_saves = len(site.server.world.saves)
    code = "def handle(label_row):\n    assert len(label_row.get_object_instances()) == 1\n    return 'Annotate 1'\n"
    assert run_config(write_config(site, tmp_path, code), dry_run=True) == 0
    assert len(site.server.world.saves) == num_saves


def test_people_s_labels_stay_as_they_are(site: Platform, tmp_path: Path) -> None:
    row = site.initialised_row()
    row.add_object_instance(site.box([0, 1]))
    row.add_classification_instance(site.wet_weather())
    row.save()
    before = site.project.row(site.clip).objects()
    assert run_config(write_config(site, tmp_path, CAPTION)) == 0
    after = site.project.row(site.clip)
    assert after.objects() == before
    assert len(after.classification_answers) == 2


def test_a_person_who_saves_meanwhile_loses_nothing(site: Platform, tmp_path: Path) -> None:
    code = """
import json, os
from tests.run.agents.platforms import add_caption

def handle(label_row, client, project):
    theirs = client.get_project(project.project_hash).list_label_rows_v2()[0]
    theirs.initialise_labels()
    add_caption(theirs, "by hand")
    theirs.save()
    add_caption(label_row, "by machine")
    return "Annotate 1"
"""
    assert run_config(write_config(site, tmp_path, code)) == 1
    assert "somebody changed its labels while the function had them" in reasons(tmp_path)
    assert captions(site) == ["by hand"]
    assert site.project.titles_at(AGENT) == ["clip.mp4"]


@pytest.mark.parametrize("operation", ["save_label_rows", "act_on_tasks"])
def test_a_run_that_is_cut_off_does_not_write_twice(site: Platform, tmp_path: Path, operation: str) -> None:
    def refuse(carry_out, stopping):
        if operation == "save_label_rows":
            carry_out()  # saved, but nobody is told
        return REFUSAL[operation](carry_out, stopping)

    config = write_config(site, tmp_path, CAPTION)
    site.server.faults.add(operation, refuse, times=None)
    assert run_config(config) == 1
    site.server.faults.clear()
    assert run_config(config) == 0, reasons(tmp_path)
    assert captions(site) == ["a street"]
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_a_task_that_comes_back_is_a_new_one(site: Platform, tmp_path: Path) -> None:
    code = """
from tests.run.agents.platforms import add_caption

def handle(label_row):
    if label_row.get_classification_instances():
        return "Night team"
    add_caption(label_row, "a street")
    return "Annotate 1"
"""
    config = write_config(site, tmp_path, code)
    assert run_config(config) == 0
    (task,) = site.project.tasks_at(ANNOTATE)
    site.server.world.move_task(task, site.project.stage(AGENT), user="anna@example.com")
    assert run_config(config) == 0
    assert site.project.titles_at(REVIEW) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise ValueError('no luck')", "clip.mp4: my_agent.py:handle raised ValueError: no luck ("),
        ("exit(3)", "my_agent.py:handle raised SystemExit: 3 ("),
        ("return 3", "my_agent.py:handle returned 3, a int; expected the name or uuid of a pathway, or None"),
        ("return ''", "returned an empty text"),
        ("return (x for x in 'ab')", "a generator; expected the name"),
        ("return 'Anotate 1'", "returned 'Anotate 1': pathway: stage 'Pre-Labeling Agent' has no pathway 'Anotate 1'"),
        ("label_row.set_priority(7)\n    return 'Annotate 1'", "priority: got 7, expected a number from 0 to 1"),
        ("label_row.workflow_complete()", "the run moves the task"),
        ("add_caption(label_row, 'x'); label_row.save(); 1 / 0", "raised ZeroDivisionError: division by zero ("),
    ],
)
def test_a_function_s_fault_costs_its_task_and_saves_nothing(
    site: Platform, tmp_path: Path, body: str, complaint: str
) -> None:
    site.add_clips(1)
    code = f"""
from tests.run.agents.platforms import add_caption

def handle(task, label_row):
    if task.title == "0.mp4":
        return "Annotate 1"
    {body}
"""
    assert run_config(write_config(site, tmp_path, code)) == 1
    assert complaint in reasons(tmp_path)
    assert site.project.titles_at(AGENT) == ["clip.mp4"]
    assert site.project.titles_at(ANNOTATE) == ["0.mp4"]
    assert not site.server.world.saves


def test_a_failure_names_the_line(site: Platform, tmp_path: Path) -> None:
    code = "import json\n\ndef handle(task):\n    return json.loads('{')\n"
    assert run_config(write_config(site, tmp_path, code)) == 1
    assert reasons(tmp_path).endswith(f"({tmp_path / 'my_agent.py'}, line 4)")


def test_what_a_function_prints_stays_out_of_the_log(site: Platform, tmp_path: Path, capsys) -> None:
    assert run_config(write_config(site, tmp_path, "def handle():\n    print('hello')\n    return 'Annotate 1'\n")) == 0
    told = capsys.readouterr()
    assert "hello" in told.err
    assert all(json.loads(line) for line in told.out.splitlines())


@pytest.mark.parametrize(
    ("code", "agent", "complaint"),
    [
        ("handle = 3", "use: my_agent.py:handle", "'handle' is a int, expected a class or function"),
        ("def hanle(): pass", "use: my_agent.py:handle", "did you mean 'hanle'?"),
        ("def handle(: pass", "use: my_agent.py:handle", "SyntaxError"),
        ("def handle(): pass", "use: other.py:handle", "there is no file"),
        ("def handle(task, text): pass", "use: my_agent.py:handle", "needs 'text': add it"),
        (
            "def handle(text='a'): pass",
            "{use: my_agent.py:handle, txt: b}",
            "agent.txt: 'my_agent.py:handle' has no such",
        ),
        ("def handle(task, /): pass", "use: my_agent.py:handle", "'task' is positional only"),
        ("class handle: pass", "use: my_agent.py:handle", "objects of this class cannot be called"),
    ],
)
def test_what_is_no_function_is_named_before_the_first_task(
    site: Platform, tmp_path: Path, code: str, agent: str, complaint: str
) -> None:
    config = write_config(site, tmp_path, code, "agent:\n  " + agent + "\npathway: Annotate 1")
    with pytest.raises(SetupError) as caught:
        run_config(config)
    assert complaint in str(caught.value)
    failed = [check.detail for check in run_checks(assemble(load_config(config), tmp_path)) if not check.passed]
    assert any(complaint in detail for detail in failed)


def test_a_check_says_what_the_function_is_called_with(site: Platform, tmp_path: Path) -> None:
    code = "def handle(task, media, text='a'): pass\n"
    config = write_config(site, tmp_path, code, "agent: {use: my_agent.py:handle, text: b}\npathway: Annotate 1")
    checks = {check.name: check for check in run_checks(assemble(load_config(config), tmp_path))}
    assert checks["agent"].detail == "my_agent.py:handle, called with media, task, text"


def test_a_class_is_built_once(site: Platform, tmp_path: Path) -> None:
    site.add_clips(2)
    code = """
class Handle:
    def __init__(self, pathway):
        print("built")
        self.pathway = pathway

    def __call__(self, task):
        return self.pathway
"""
    config = write_config(site, tmp_path, code, "agent: {use: my_agent.py:Handle, pathway: Nothing to label}")
    assert run_config(config) == 0
    assert len(site.project.titles_at(COMPLETE)) == 3


def test_kinds_without_frames_are_tasks_like_any_other(site: Platform, tmp_path: Path) -> None:
    world, stage = site.server.world, site.project.stage(AGENT)
    for kind in ("audio", "pdf", "plain_text"):
        (tmp_path / f"a.{kind}").write_bytes(b"contents of " + kind.encode())
        world.add_task(stage, world.add_other(tmp_path / f"a.{kind}", kind))
    code = """
def handle(task, media):
    if task.title == "clip.mp4":
        return "Annotate 1"
    assert media.path.read_bytes().startswith(b"contents of ")
    return "Nothing to label"
"""
    assert run_config(write_config(site, tmp_path, code)) == 0, reasons(tmp_path)
    assert site.project.titles_at(COMPLETE) == ["a.audio", "a.pdf", "a.plain_text"]


def test_frames_of_a_document_are_refused_with_what_to_do(site: Platform, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    world = site.server.world
    world.add_task(site.project.stage(AGENT), world.add_other(tmp_path / "a.pdf", "pdf"))
    assert (
        run_config(write_config(site, tmp_path, "def handle(media):\n    media.frame()\n    return 'Annotate 1'\n"))
        == 1
    )
    assert "a.pdf: is of a kind that has no frames: media.path is the file itself" in reasons(tmp_path)


def test_a_save_that_is_refused_fails_the_task(site: Platform, tmp_path: Path) -> None:
    site.server.faults.add("save_label_rows", REFUSAL["save_label_rows"], times=None)
    assert run_config(write_config(site, tmp_path, CAPTION)) == 1
    assert "clip.mp4: saving its labels" in reasons(tmp_path)
    assert site.project.titles_at(AGENT) == ["clip.mp4"]
