"""Several stages of one project in one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prelabel.assembly.assemble import assemble
from prelabel.cli.commands import check_config_file, run_config, show_status
from prelabel.config.load import load_config, load_configs
from prelabel.errors import AccountError, ConfigError
from prelabel.run.finished import every_task
from prelabel.run.passes import run_passes
from prelabel.runtime.interrupts import StopSignal
from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, EncordServer, Status
from prelabel.testing.encord_server.ontologies import editor, radio_classification
from prelabel.testing.encord_server.records import Project
from tests.mixed_tasks import MixedTasks

pytestmark = [
    pytest.mark.usefixtures("encord_environment"),
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
]

SORT = "Sort"
CODE = """
from prelabel import Detections

class Boxes:
    class_names = ("Pedestrian", "Vehicle")

    def __init__(self, side=20):
        print("built")
        self.side = side

    def detect(self, batch):
        return [Detections([[2, 2, self.side, self.side]], [0.7], [0]) for _ in batch.frame_indices]

class Counting:
    class_names = ("Rain", "Sun")

    def __init__(self):
        self.usage = {}

    def classify(self, images):
        self.usage["requests"] = self.usage.get("requests", 0) + len(images)
        return [[0.9, 0.1] for _ in images]

    def usage_warnings(self, usage):
        return [f"{usage['requests']} are many"]

def sort(task):
    return "Label it" if task.title.endswith(".mp4") else "Leave it"
"""
STAGES = """
stages:
  - {stage: Sort, agent: {use: mine.py:sort}}
  - {stage: Pre-Labeling Agent, pathway: Annotate 1}
"""


@pytest.fixture
def project(encord_server: EncordServer, encord_clip: Path) -> Project:
    """A workflow of two agent stages, two clips and a document at the first."""
    world = encord_server.world
    stages = {SORT: "AGENT", AGENT: "AGENT", ANNOTATE: "ANNOTATION", "Review 1": "REVIEW", COMPLETE: "DONE"}
    pathways = {"Label it": AGENT, "Leave it": COMPLETE, "Annotate 1": ANNOTATE}
    made = world.add_project(stages=stages, pathways=pathways)
    units = [world.add_video(encord_clip, title=f"{number}.mp4") for number in range(2)]
    for unit in (*units, world.add_other(encord_clip, "pdf", title="a.pdf")):
        world.add_task(made.stage(SORT), unit)
    return made


def write_config(project: Project, folder: Path, stages: str = STAGES) -> Path:
    (folder / "mine.py").write_text(CODE)
    path = folder / "config.yaml"
    path.write_text(
        f"source: {{project_hash: {project.uuid}, output: {folder / 'out'}}}\nretries: {{attempts: 1}}\n"
        f"detector: {{use: mine.py:Boxes}}\n{stages}"
    )
    return path


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_a_task_goes_through_both_stages_in_one_run(project: Project, tmp_path: Path) -> None:
    config = write_config(project, tmp_path)
    assert run_config(config) == 0
    assert project.titles_at(ANNOTATE) == ["0.mp4", "1.mp4"]
    assert project.titles_at(COMPLETE) == ["a.pdf"]
    assert all(len(row.objects()) == 12 for row in project.rows.values())
    report = report_of(tmp_path / "out")
    assert report["tasks"] == {"done": 5}
    assert report["stages"][SORT]["pathways"] == {"Label it": 2, "Leave it": 1}
    assert report["stages"][AGENT]["instances"] == {"Pedestrian": 24}
    assert report_of(tmp_path / "out" / AGENT)["pathways"] == {"Annotate 1": 2}
    assert show_status(config) == 0


def test_a_run_that_finds_nothing_to_do_points_to_the_reports_of_the_one_before(
    project: Project, tmp_path: Path
) -> None:
    config = write_config(project, tmp_path)
    run_config(config)
    before = report_of(tmp_path / "out" / SORT)
    assert run_config(config) == 0
    report = report_of(tmp_path / "out")
    assert report["stages"][SORT]["report"] == str(tmp_path / "out" / SORT / "report.json")
    assert report_of(tmp_path / "out" / SORT) == before


def test_a_watch_keeps_a_stage_in_the_report_of_all_when_only_another_has_work(
    project: Project, encord_server: EncordServer, encord_clip: Path, tmp_path: Path
) -> None:
    configs = load_configs(write_config(project, tmp_path))
    stop = StopSignal()
    assemblies = [assemble(config, tmp_path) for config in configs]
    passes = run_passes(
        [(assembly, None) for assembly in assemblies], stop, every_task, (), rest=lambda: not stop.is_set
    )
    assert [next(passes)[0].stage for _ in assemblies] == [SORT, AGENT]
    world = encord_server.world
    world.add_task(project.stage(AGENT), world.add_video(encord_clip, title="late.mp4"))
    assert next(passes)[0].stage == AGENT
    stop.ask()
    assert list(passes) == []
    report = report_of(tmp_path / "out")
    assert report["stages"][SORT]["pathways"] == {"Label it": 2, "Leave it": 1}
    assert report["stages"][AGENT]["tasks"] == {"done": 1}


def test_a_limit_counts_over_all_stages(project: Project, tmp_path: Path) -> None:
    assert run_config(write_config(project, tmp_path), limit=4) == 0
    assert (project.titles_at(SORT), len(project.titles_at(AGENT)), len(project.titles_at(ANNOTATE))) == ([], 1, 1)


def test_a_dry_run_looks_at_what_waits_where_it_is(project: Project, tmp_path: Path) -> None:
    assert run_config(write_config(project, tmp_path), dry_run=True) == 0
    assert len(project.titles_at(SORT)) == 3
    assert report_of(tmp_path / "out" / "dry-run")["stages"][SORT]["pathways"] == {"Label it": 2, "Leave it": 1}


def test_one_stage_may_be_chosen(project: Project, tmp_path: Path) -> None:
    config = write_config(project, tmp_path)
    assert run_config(config, [f"stage={SORT}"]) == 0
    assert project.titles_at(AGENT) == ["0.mp4", "1.mp4"]
    assert load_config(config, [f"stage={AGENT}"]).source.output == tmp_path / "out" / AGENT


def test_a_model_of_both_stages_is_loaded_once(project: Project, tmp_path: Path, capsys) -> None:
    both = "stages:\n  - {stage: Sort, pathway: Label it}\n  - {stage: Pre-Labeling Agent, pathway: Annotate 1}\n"
    assert run_config(write_config(project, tmp_path, both)) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("built") == 1
    assert project.titles_at(ANNOTATE) == ["0.mp4", "1.mp4"]


def test_a_service_that_two_stages_share_is_counted_once(
    encord_server: EncordServer, encord_clip: Path, tmp_path: Path
) -> None:
    world = encord_server.world
    stages = {SORT: "AGENT", AGENT: "AGENT", ANNOTATE: "ANNOTATION", COMPLETE: "DONE"}
    ontology = world.add_ontology(editor([], [radio_classification("Weather", ["Rain", "Sun"])]))
    made = world.add_project(stages=stages, pathways={"Label it": AGENT, "Annotate 1": ANNOTATE}, ontology=ontology)
    world.add_task(made.stage(SORT), world.add_video(encord_clip, title="0.mp4"))
    chain = "stages:\n  - {stage: Sort, pathway: Label it}\n  - {stage: Pre-Labeling Agent, pathway: Annotate 1}\n"
    config = write_config(made, tmp_path, chain)
    config.write_text(
        config.read_text().replace(
            "detector: {use: mine.py:Boxes}", "classifier: {use: mine.py:Counting, frames_per_video: 3}"
        )
    )
    assert run_config(config) == 0
    assert made.titles_at(ANNOTATE) == ["0.mp4"]
    reports = [report_of(tmp_path / "out" / stage) for stage in (SORT, AGENT)]
    assert [report["usage"] for report in reports] == [{"requests": 3}] * 2
    assert [report["warnings"] for report in reports] == [["3 are many"]] * 2


def test_a_stage_s_failure_costs_no_other(project: Project, encord_server: EncordServer, tmp_path: Path) -> None:
    config = write_config(project, tmp_path)
    for task in project.tasks_at(SORT)[:1]:
        encord_server.world.move_task(task, project.stage(AGENT), user="anna@example.com")
    encord_server.faults.add(lambda call: call.operation == "list_tasks", Status(403), times=1)
    assert run_config(config) == 2
    assert project.titles_at(ANNOTATE) == ["0.mp4"]
    assert report_of(tmp_path / "out")["stages"][SORT]["aborted"]


def test_a_check_looks_at_every_stage(project: Project, tmp_path: Path, capsys) -> None:
    assert check_config_file(write_config(project, tmp_path), ()) == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("tasks wait") == 2
    assert "mine.py:sort, called with task" in told.out


def test_a_stage_that_is_not_there_is_named_before_anything_runs(project: Project, tmp_path: Path) -> None:
    stages = STAGES.replace("Pre-Labeling Agent", "Pre-Labelling Agent")
    with pytest.raises(AccountError, match=r"stage 'Pre-Labelling Agent': .* did you mean 'Pre-Labeling Agent'"):
        run_config(write_config(project, tmp_path, stages))
    assert len(project.titles_at(SORT)) == 3


@pytest.mark.parametrize(
    ("stages", "settings", "complaint"),
    [
        ("stages: {stage: Sort}", (), "stages: got {'stage': 'Sort'}, expected a list"),
        ("stages: [Sort]", (), "stages.0: got 'Sort', expected sections"),
        (STAGES, ["stage=1"], "stage: '1' is not a stage of this config"),
        ("stages: [{pathway: A}]", (), "stages.0.stage: got None, expected the title or uuid"),
        ("stages: [{stage: A, pathway: A}, {stage: A, pathway: A}]", (), "'A' occurs 2 times"),
        ("stages: [{stage: A, pathwya: A}]", (), "stages.0.pathwya: is not a key of a stage: did you mean 'pathway'?"),
        (
            "stages: [{stage: A, source: {}}]",
            (),
            "stages.0.source: is not a key of a stage: it is the same for all stages",
        ),
        ("stages: [{stage: A}, {stage: B, pathway: C}]", (), "stage 'A': pathway: is missing: name the one"),
        (STAGES, ("source={path: clips}",), "only an Encord workflow has stages"),
        (STAGES, ("stage=Srot",), "stage: 'Srot' is not a stage of this config: did you mean 'Sort'?"),
    ],
)
def test_a_mistake_is_named(
    project: Project, tmp_path: Path, stages: str, settings: Sequence[str], complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_configs(write_config(project, tmp_path, stages), settings)
    assert complaint in str(caught.value)


def test_a_stage_is_chosen_by_its_whole_title(project: Project, tmp_path: Path) -> None:
    stages = "stages:\n  - {stage: AB, pathway: A}\n  - {stage: A, pathway: A}\n"
    (config,) = load_configs(write_config(project, tmp_path, stages), ["stage=AB"])
    assert config.source.output == tmp_path / "out" / "AB"


def test_commands_for_one_stage_say_how_to_choose(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"has 2 stages, 'Sort', 'Pre-Labeling Agent': choose one: --set 'stage=Sort'"
    ):
        load_config(write_config(project, tmp_path))


def test_a_stage_s_own_sections_take_the_place_of_the_common_ones(project: Project, tmp_path: Path) -> None:
    stages = """
pathway: Annotate 1
reader: {stride: 2}
stages:
  - {stage: Sort, agent: {use: mine.py:sort}, routing: {otherwise: Label it}}
  - {stage: Pre-Labeling Agent, reader: {only_keyframes: true}}
"""
    sort, label = load_configs(write_config(project, tmp_path, stages))
    assert (sort.detector, sort.pathway, sort.reader.stride) == (None, None, 2)
    assert label.detector is not None
    assert (label.pathway, label.reader.stride, label.reader.only_keyframes) == ("Annotate 1", 1, True)


def test_tasks_of_all_kinds_are_sorted_and_labelled_and_none_is_lost(
    encord_server: EncordServer, tmp_path: Path
) -> None:
    mixed = MixedTasks.populate(encord_server, tmp_path, 60)
    assert run_config(mixed.write_config(tmp_path)) == 0
    assert mixed.lost() == []
    assert report_of(tmp_path / "out")["tasks"] == {"done": 60 + 30}
