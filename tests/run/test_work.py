"""One unit of work travels between processes: what a worker gets and what it returns are plain values."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.config.sections import Config
from prelabel.data.frames import Media, MediaLocation
from prelabel.errors import AccountError, DetectError, OutageError, TakenError
from prelabel.run.agents.make import make_agent
from prelabel.run.work import Failure, FetchedTask, InferredTask, Work
from tests.kept import write_grey_clip

AGENTS = {
    "detection": {"detector": {"use": "tests.kept:BoxDetector"}},
    "classification": {"classifier": {"use": "tests.run.test_work:Sees"}},
    "function": {"agent": {"use": "tests.run.test_work:label"}},
}


class Sees:
    class_names = ("Grey", "Green")

    def classify(self, images):
        return np.tile(np.array([[0.9, 0.1]], np.float32), (len(images), 1))


def label(media):
    assert media.frame().array.shape == (64, 96, 3)


def config_of(folder: Path, kind: str) -> Config:
    source = {"path": str(folder / "clips"), "output": str(folder / "out")}
    return check_config({"source": source, **AGENTS[kind]}, "test")


def infer(config: Config, work: bytes, media: bytes) -> bytes:
    """What a worker does: it builds the model from the config and gets the task as plain values."""
    agent = make_agent(assemble(config, Path()))
    fetched = FetchedTask(pickle.loads(work), pickle.loads(media), ExitStack(), 0.0)
    (result,) = agent.infer([fetched])
    return pickle.dumps(result)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_grey_clip(tmp_path / "clips" / "a.mp4", 96, 64, 4)
    return tmp_path


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detection", "classification"])
def test_a_model_infers_in_another_process_and_the_run_labels_and_saves_the_result(
    folder: Path, kind: str, pool: ProcessPoolExecutor
) -> None:
    config = config_of(folder, kind)
    assembly = assemble(config, Path())
    (task,) = assembly.source.tasks()
    with task.open() as media:
        sent = pickle.dumps(Work.of(task, MediaLocation("none"))), pickle.dumps(media)
        result: InferredTask = pickle.loads(pool.submit(infer, config, *sent).result())
    assert (result.key, result.failure) == ("a.mp4", None)
    assert result.seconds.keys() > {"fetch", "decode"}
    agent = make_agent(assembly)
    agent.store(task, result.found)
    labelled = pickle.loads(pickle.dumps(agent.build_labels(task, result.found)))
    agent.save(task, labelled)
    assert agent.outputs_exist(task)
    assert labelled.report.num_frames == 4
    assert agent.load_cached(task, None) is not None


def test_what_a_function_says_is_plain_values_too(folder: Path) -> None:
    agent = make_agent(assemble(config_of(folder, "function"), Path()))
    (task,) = agent.assembly.source.tasks()
    with task.open() as media:
        (result,) = agent.infer([FetchedTask(task, media, ExitStack(), 0.0)])
    found = pickle.loads(pickle.dumps(result)).found
    assert (found.info.width, found.record.num_frames, found.edited) == (96, 4, None)


def test_a_task_that_cannot_be_read_comes_back_as_a_record(folder: Path) -> None:
    path = folder / "text.mp4"
    path.write_text("no video at all")
    agent = make_agent(assemble(config_of(folder, "detection"), Path()))
    work = Work("text.mp4", "text.mp4", "", None, MediaLocation("none"))
    (result,) = agent.infer([FetchedTask(work, Media("video", (path,)), ExitStack(), 0.0)])
    failure = pickle.loads(pickle.dumps(result)).failure
    assert (failure.kind, failure.effect, failure.retryable) == ("ReadError", "failed", True)
    assert "text.mp4" in failure.reason


@pytest.mark.parametrize(
    ("error", "effect", "retryable"),
    [
        (DetectError("a"), "failed", True),
        (RuntimeError("a"), "failed", True),
        (TakenError("a"), "skipped", False),
        (AccountError("a"), "run_ends", False),
        (OutageError("a"), "outage", False),
    ],
)
def test_a_failure_says_what_it_means_for_the_run(error: Exception, effect: str, retryable: bool) -> None:
    failure = Failure.of(error)
    assert (failure.kind, failure.effect, failure.retryable) == (type(error).__name__, effect, retryable)
