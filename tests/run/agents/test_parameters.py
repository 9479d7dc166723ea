"""Which arguments a function gets, by name and by type."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated

import pytest
from encord.objects import LabelRowV2
from encord.project import Project
from encord.storage import StorageItem
from encord.workflow.stages.agent import AgentStage, AgentTask
from encord_agents.tasks import Depends
from encord_agents.tasks.dependencies import dep_asset, dep_client, dep_single_frame, dep_video_iterator

from prelabel.errors import PluginError
from prelabel.run.agents.calls import read_signature

CLIENT = Depends(dep_client)


def test_names() -> None:
    def handle(task, label_row, media, project, client, storage_item, *args, text="a", **rest): ...

    assert set(read_signature(handle, "f").arguments.values()) == {
        "task", "label_row", "media", "project", "client", "storage_item",
    }  # fmt: skip


def test_the_sdk_s_types_go_before_names() -> None:
    def handle(
        lr: LabelRowV2, task: AgentTask, item: StorageItem, p: Project, stage: AgentStage, project: str = ""
    ): ...

    assert read_signature(handle, "f").arguments == {
        "lr": "label_row", "task": "agent_task", "item": "storage_item", "p": "project", "stage": "stage",
        "project": "project",
    }  # fmt: skip


def test_types_that_only_a_checker_imports() -> None:
    def handle(lr, task): ...

    handle.__annotations__ = {"lr": "objects.LabelRowV2", "task": "Missing"}
    assert read_signature(handle, "f").arguments == {"lr": "label_row", "task": "task"}


def test_encord_agents_media_are_ours() -> None:
    def handle(
        a: Annotated[str, Depends(dep_asset)],
        b: Annotated[str, Depends(dep_single_frame)],
        c: Annotated[str, Depends(dep_video_iterator)],
        d=CLIENT,
    ): ...

    assert read_signature(handle, "f").arguments == {"a": "asset", "b": "frame", "c": "frames", "d": "client"}


def test_dependencies_are_called_once_and_ended() -> None:
    told = []

    def opened(task) -> Iterator[str]:
        told.append("opened")
        yield f"{task}!"
        told.append("closed")

    def twice(text: Annotated[str, Depends(opened)]) -> str:
        return text * 2

    def handle(a: Annotated[str, Depends(opened)], b: Annotated[str, Depends(twice)], c=3): ...

    signature = read_signature(handle, "f")
    with ExitStack() as stack:
        assert signature.values(str, stack) == {"a": "task!", "b": "task!task!"}
        assert told == ["opened"]
    assert told == ["opened", "closed"]
    assert signature.given == {"a", "b"}
    assert signature.all_arguments() == {"task"}


def test_objects_that_can_be_called() -> None:
    class Handle:
        def __call__(self, row: LabelRowV2, threshold: int = 3): ...

    assert read_signature(Handle(), "f").arguments == {"row": "label_row"}


def test_what_has_no_readable_parameters_is_named() -> None:
    with pytest.raises(PluginError, match=r"agent\.use: 'f': its parameters cannot be read"):
        read_signature(min, "f")
