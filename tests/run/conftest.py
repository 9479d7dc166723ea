"""What holds for every test of runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prelabel.config.sections import Config
from prelabel.data.ontology import Ontology
from prelabel.run.actor import _FLUSH, InferenceActor, Job

MakeActor = Callable[..., InferenceActor]


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Restores the environment, which a worker changes for its own process: in tests that is this process."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def make_actor() -> Iterator[MakeActor]:
    """Makes workers in this process. Their threads end with the test, which in a process of their own they need not."""
    actors: list[InferenceActor] = []
    before = {*threading.enumerate()}

    def make(config: Config, folder: Path, ontology: Ontology | None = None) -> InferenceActor:
        # `uses_gpu`: else it would hide the GPUs from this process, and so from later tests.
        actors.append(InferenceActor(Job(config, folder, {}, ontology, 1, uses_gpu=True, cache_bytes=10**9)))
        return actors[-1]

    yield make
    for actor in actors:
        actor._stop.ask()
        actor._works.put(_FLUSH)
    for thread in {*threading.enumerate()} - before:
        if thread.name == "infer":
            thread.join()
