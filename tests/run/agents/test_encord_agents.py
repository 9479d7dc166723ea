"""Functions written for encord-agents' Runner, unchanged: the file that their users have."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.cli.commands import run_config
from prelabel.testing.encord_server import ANNOTATE, REVIEW
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.run.agents.platforms import reasons, write_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:encord_agents"),
]

BOXES = """
from typing import Annotated, Iterable

from encord.objects.coordinates import BoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.project import Project
from encord_agents.core.data_model import Frame
from encord_agents.tasks import Depends, Runner
from encord_agents.tasks.dependencies import dep_video_iterator

runner = Runner()

@runner.stage(stage="Pre-Labeling Agent")
def boxes(lr: LabelRowV2, project: Project, frames: Annotated[Iterable[Frame], Depends(dep_video_iterator)]) -> str:
    for frame in frames:
        assert frame.content.shape[2] == 3
        instance = project.ontology_structure.objects[0].create_instance()
        place = BoundingBoxCoordinates(top_left_x=0.1, top_left_y=0.2, width=0.3, height=0.4)
        instance.set_for_frames(frames=frame.frame, coordinates=place, confidence=0.5)
        lr.add_object_instance(instance)
    lr.save()
    return "Annotate 1"

if __name__ == "__main__":
    runner.run()
"""
PRIORITIES = """
from typing import Annotated

from encord.objects.ontology_labels_impl import LabelRowV2
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentTask
from encord_agents.tasks import Depends, Runner
from encord_agents.tasks.dependencies import dep_storage_item
from encord_agents.tasks.models import TaskAgentReturnStruct

runner = Runner()

@runner.stage(stage="Pre-Labeling Agent")
def by_city(task: AgentTask, lr: LabelRowV2, item: Annotated[StorageItem, Depends(dep_storage_item)]):
    assert task.data_title == lr.data_title
    priority = len(item.client_metadata["city"]) / 10
    return TaskAgentReturnStruct(pathway="Night team", label_row=lr, label_row_priority=priority)
"""


def test_boxes_on_frames(site: Platform, tmp_path: Path) -> None:
    config = write_config(site, tmp_path, BOXES, "agent: {use: my_agent.py:boxes}")
    assert run_config(config) == 0, reasons(tmp_path)
    row = site.project.row(site.clip)
    assert [frame for frame, _ in row.objects()] == list(range(NUM_FRAMES))
    assert len(site.server.world.saves) == 1
    assert site.project.titles_at(ANNOTATE) == ["clip.mp4"]


def test_their_own_runner_ends_in_the_same_state(site: Platform, tmp_path: Path) -> None:
    """The same file, run by itself."""
    from encord_agents.tasks import Runner

    namespace: dict[str, object] = {"__name__": "my_agent"}
    exec(compile(BOXES, "my_agent.py", "exec"), namespace)
    runner = namespace["runner"]
    assert isinstance(runner, Runner)
    runner(project_hash=site.project.uuid)
    theirs = site.project.row(site.clip)
    other = site.add_clips(1)[0]
    config = write_config(site, tmp_path, BOXES, "agent: {use: my_agent.py:boxes}")
    assert run_config(config) == 0, reasons(tmp_path)
    ours = site.project.row(other)
    assert stripped(ours.objects()) == stripped(theirs.objects())
    assert site.project.titles_at(ANNOTATE) == ["0.mp4", "clip.mp4"]


def stripped(objects: list) -> list:
    """The objects without what differs by chance and by clock."""
    clocks = {"objectHash", "createdAt", "lastEditedAt"}
    return [(frame, {key: value for key, value in entry.items() if key not in clocks}) for frame, entry in objects]


def test_a_struct_with_a_priority(site: Platform, tmp_path: Path) -> None:
    config = write_config(site, tmp_path, PRIORITIES, "agent: {use: my_agent.py:by_city}")
    assert run_config(config) == 0, reasons(tmp_path)
    (task,) = site.project.tasks_at(REVIEW)
    assert task.priority == 0.4
    assert not site.server.world.saves
