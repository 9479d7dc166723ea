"""Fixtures: a running test server, a key that it knows, and the real SDK's client connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prelabel.testing.encord_server import AGENT, EncordServer, connect
from prelabel.testing.encord_server.records import DataUnit, Project
from tests.make_media import Recipe, write_clip

if TYPE_CHECKING:
    from encord import EncordUserClient
    from encord.objects import ClassificationInstance, LabelRowV2, ObjectInstance
    from encord.project import Project as SdkProject
    from encord.storage import StorageItem as SdkStorageItem
    from encord.workflow.stages.agent import AgentStage, AgentTask

NUM_FRAMES = 12


@pytest.fixture
def encord_server() -> Iterator[EncordServer]:
    """A running server without projects. A request that it cannot read fails the test."""
    with EncordServer() as server:
        yield server
    assert not server.errors, "\n".join(server.errors)


@pytest.fixture
def encord_key(encord_server: EncordServer) -> str:
    """The private key of agent@example.com, as text."""
    return encord_server.add_user("agent@example.com")


@pytest.fixture
def encord_client(encord_server: EncordServer, encord_key: str) -> EncordUserClient:
    return connect(encord_server, encord_key)


@pytest.fixture
def encord_environment(encord_server: EncordServer, encord_key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets `ENCORD_SSH_KEY` and `ENCORD_DOMAIN` as a user does."""
    monkeypatch.delenv("ENCORD_SSH_KEY_FILE", raising=False)
    monkeypatch.setenv("ENCORD_SSH_KEY", encord_key)
    monkeypatch.setenv("ENCORD_DOMAIN", encord_server.url)


@pytest.fixture(scope="session")
def encord_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of `NUM_FRAMES` frames."""
    return write_clip(tmp_path_factory.mktemp("encord") / "clip.mp4", Recipe(num_frames=NUM_FRAMES)).path


@dataclass
class Platform:
    """The same project from both sides: as the server keeps it (`project`, `clip`) and as the SDK sees it."""

    server: EncordServer
    project: Project
    clip: DataUnit
    client: EncordUserClient
    sdk: SdkProject

    @classmethod
    def populate(cls, server: EncordServer, client: EncordUserClient, clip_path: Path) -> Platform:
        project = server.world.add_project()
        clip = server.world.add_video(clip_path, title="clip.mp4", client_metadata={"camera": 1})
        server.world.add_task(project.stage(AGENT), clip)
        return cls(server, project, clip, client, client.get_project(project.uuid))

    def add_clips(self, count: int) -> list[DataUnit]:
        """Adds tasks at the agent stage, for the same file under the titles `0.mp4`, `1.mp4` and so on."""
        assert self.clip.item.path is not None
        world, facts = self.server.world, self.clip.item.facts
        clips = [world.add_video(self.clip.item.path, title=f"{number}.mp4", facts=facts) for number in range(count)]
        for clip in clips:
            world.add_task(self.project.stage(AGENT), clip)
        return clips

    @property
    def stage(self) -> AgentStage:
        from encord.workflow.stages.agent import AgentStage

        return self.sdk.workflow.get_stage(name=AGENT, type_=AgentStage)

    def task(self) -> AgentTask:
        """Returns the first task at the agent stage."""
        return next(iter(self.stage.get_tasks()))

    def row(self, branch: str = "main") -> LabelRowV2:
        """Returns the clip's label row, as the server lists it now."""
        (row,) = self.sdk.list_label_rows_v2(data_hashes=[self.clip.data_hash], branch_name=branch)
        return row

    def initialised_row(self, branch: str = "main") -> LabelRowV2:
        row = self.row(branch)
        row.initialise_labels()
        return row

    def item(self) -> SdkStorageItem:
        """Returns the clip's storage item, with a new link."""
        return self.client.get_storage_item(self.clip.item.uuid, sign_url=True)

    def box(self, frames: list[int], name: str = "Pedestrian") -> ObjectInstance:
        """Returns a box of confidence 0.875 on these frames, not yet on any row."""
        from encord.objects import Object
        from encord.objects.coordinates import BoundingBoxCoordinates

        instance = self.sdk.ontology_structure.get_child_by_title(name, type_=Object).create_instance()
        place = BoundingBoxCoordinates(height=0.1, width=0.2, top_left_x=0.3, top_left_y=0.4)
        instance.set_for_frames(place, frames=frames, confidence=0.875, manual_annotation=False)
        return instance

    def wet_weather(self) -> ClassificationInstance:
        """Returns a classification on the first frame, not yet on any row."""
        from encord.objects import Classification

        weather = self.sdk.ontology_structure.get_child_by_title("Weather", type_=Classification)
        instance = weather.create_instance()
        instance.set_answer(weather.get_child_by_title("Wet"))
        instance.set_for_frames(frames=0)
        return instance


@pytest.fixture
def platform(encord_server: EncordServer, encord_client: EncordUserClient, encord_clip: Path) -> Platform:
    """A project with one video at the agent stage."""
    return Platform.populate(encord_server, encord_client, encord_clip)


ConnectAs = Callable[[str], "EncordUserClient"]


@pytest.fixture
def encord_client_as(encord_server: EncordServer) -> ConnectAs:
    """Connects further users, by e-mail: `encord_client_as("anna@example.com")`."""
    return lambda email: connect(encord_server, encord_server.add_user(email))
