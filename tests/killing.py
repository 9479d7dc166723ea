"""Runs that are killed at a point of one's choice, against a platform that goes on: what is left must be right.

A point is a request to the platform, which then kills the client before it carries the request out, when half of the
answer is sent, or before any of the answer is; or a step within the process: a batch, a file's rename, an entry of the
ledger, a file's name. `python -m tests.killing --kills 500 --seed 1` kills at random points for as long as asked,
`--workers 2` on Ray.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

from prelabel import Detections, FrameBatch
from prelabel.cli.commands import run_config
from prelabel.store.ledger import LEDGER, Ledger
from prelabel.testing.encord_server import (
    AGENT,
    Delay,
    EncordServer,
    LostAnswer,
    MalformedJson,
    ResetInsideBody,
    Status,
)
from prelabel.testing.encord_server.faults import Action, CarryOut
from prelabel.testing.encord_server.records import LabelRow, Project, probe_video
from prelabel.testing.encord_server.wire import Answer, ConnectionCutError
from tests.make_media import Recipe, write_clip

NUM_FRAMES = 12
TROUBLE: tuple[Action, ...] = (
    Status(429, retry_after_seconds=1),
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    LostAnswer(carried_out=True),
    LostAnswer(carried_out=False),
    ResetInsideBody(20),
    MalformedJson(),
    Delay(0.2),
)
"""What a service does now and then to any answer."""
REQUESTS = (
    "get_project",
    "get_ontology",
    "list_tasks",
    "list_label_rows",
    "get_item",
    "download",
    "create_label_rows",
    "get_label_rows",
    "save_label_rows",
    "update_item",
    "act_on_tasks",
)
STEPS = {
    "batch": ("tests.killing", "Fixed", "detect"),
    "rename": ("pathlib", "Path", "replace"),
    "ledger": ("prelabel.store.ledger", "Ledger", "record"),
    "name": ("prelabel.store.ledger", "Ledger", "give_name"),
}
"""Methods that part one state on disk from the next, by the name of the step."""

PRELOADED = (
    "tests.killing",
    "encord",
    "encord.objects",
    "torch",
    "av",
    "pyarrow.parquet",
    "prelabel.encord.project",
    "prelabel.encord.connection",
    "prelabel.encord.sink",
    "prelabel.encord.source",
    "prelabel.media.decord",
    "prelabel.media.isolation.reader",
    "prelabel.media.cuda",
    "prelabel.media.pyav",
    "prelabel.media.torchcodec",
    "prelabel.run.agents.detection",
)
"""What a run imports: most of the time that it takes to start."""

Moment = Literal["before", "inside", "after"]
Found = list[tuple[int, str, float, float]]


class Fixed:
    """Finds the same on a frame whenever it is asked."""

    class_names = ("Pedestrian", "Vehicle")

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [self._found(index) for index in batch.frame_indices.tolist()]

    def _found(self, index: int) -> Detections:
        return Detections([(2 + index, 2, 20 + index, 20), (5, 5, 30, 40)], [0.75, 0.5], [0, 1])


@dataclass(frozen=True)
class KillPoint:
    """Where a run is killed.

    Attributes:
        name: of `REQUESTS` or `STEPS`.
        moment: `inside`, of requests only: half of the answer is sent.
        nth: time that the run comes there, from 1.
    """

    name: str
    moment: Moment = "before"
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.moment} {self.name} {self.nth}"


def every_kind() -> list[KillPoint]:
    """Every request and step, at each of its moments, the first time."""
    requests = [KillPoint(name, moment) for name in REQUESTS for moment in ("before", "inside", "after")]
    return requests + [KillPoint(name, moment) for name in STEPS for moment in ("before", "after")]


@dataclass
class Client:
    """The process that labels; killed by whoever holds this."""

    process: BaseProcess | None = None
    started: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        assert self.started.wait(120)
        assert self.process is not None
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class KillClient:
    """The client is killed by its own request."""

    client: Client
    moment: Moment

    def __call__(self, carry_out: CarryOut, stopping: threading.Event) -> Answer:
        if self.moment == "inside":
            answer = carry_out()
            return replace(answer, body=self._half(answer))
        if self.moment == "after":
            carry_out()
        self.client.kill()
        raise ConnectionCutError

    def _half(self, answer: Answer) -> Iterator[bytes]:
        body = b"".join(answer.body)
        yield body[: len(body) // 2]
        self.client.kill()
        raise ConnectionCutError


def label(config: str, environment: dict[str, str], step: KillPoint | None, limit: int | None) -> None:
    """Runs a config in a process of its own, which dies at the step."""
    os.environ.update(environment)
    sys.stdout = sys.stderr = Path(config).with_suffix(".log").open("a")
    if step is not None:
        _die_at(step)
    raise SystemExit(run_config(Path(config), limit=limit))


def _die_at(step: KillPoint) -> None:
    module, owner_name, name = STEPS[step.name]
    owner = getattr(importlib.import_module(module), owner_name)
    method: Callable[..., object] = getattr(owner, name)
    times = 0

    def dies(*args: object, **kwargs: object) -> object:
        nonlocal times
        times += 1
        if times == step.nth and step.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*args, **kwargs)
        if times == step.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dies)


class Scene:
    """A stage with tasks, and a config that labels them, with so many workers on Ray."""

    def __init__(self, server: EncordServer, folder: Path, num_tasks: int, workers: int = 0) -> None:
        self.server, self.folder, self.workers = server, folder, workers
        clip = write_clip(folder / "clip.mp4", Recipe(num_frames=NUM_FRAMES)).path
        facts = probe_video(clip)
        self.project: Project = server.world.add_project()
        for number in range(num_tasks):
            unit = server.world.add_video(clip, title=f"{number}.mp4", facts=facts)
            server.world.add_task(self.project.stage(AGENT), unit)
        self.environment = {"ENCORD_SSH_KEY": server.add_user(), "ENCORD_DOMAIN": server.url}
        self._processes = multiprocessing.get_context("forkserver")  # each run a fork of one that has all imported
        self._processes.set_forkserver_preload(list(PRELOADED))

    def config(self, name: str = "config", output: str = "out") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"source: {{stage: {AGENT}, project_hash: {self.project.uuid}, output: {self.folder / output}}}\n"
            "detector: {use: 'tests.killing:Fixed', batch_size: 5}\n"
            "reader: {isolate: never}\n"
            "retries: {wait_seconds: 0}\n"
            "pathway: Annotate 1\n" + (f"workers: {{num: {self.workers}, gpus: 0, cpus: 1}}\n" if self.workers else "")
        )
        return path

    def start(self, config: Path, step: KillPoint | None = None, limit: int | None = None) -> BaseProcess:
        process = self._processes.Process(target=label, args=(str(config), self.environment, step, limit))
        process.start()
        return process

    def run(self, kill_at: KillPoint | None = None, limit: int | None = None) -> int | None:
        """The exit code of a run; that of a killed one is -9."""
        client = Client()
        if kill_at is not None and kill_at.name in REQUESTS:
            self.server.faults.add(kill_at.name, KillClient(client, kill_at.moment), skip=kill_at.nth - 1)
        client.process = self.start(self.config(), kill_at if kill_at and kill_at.name in STEPS else None, limit)
        client.started.set()
        client.process.join()
        self.server.faults.clear()
        return client.process.exitcode

    def misbehave(self, rate: float, seed: int) -> None:
        """Lets trouble of every kind happen to this share of all answers, downloads included."""
        self.server.faults.draw.seed(seed)
        draw = random.Random(seed)

        def trouble(carry_out: CarryOut, stopping: threading.Event) -> Answer:
            return draw.choice(TROUBLE)(carry_out, stopping)

        self.server.faults.add(lambda call: call.operation != "state", trouble, times=None, rate=rate)

    def check(self) -> None:
        """What holds at any time: no label twice, none lost, and no task moved without all of its labels, or twice."""
        with self.server.world.lock:
            moved = Counter(move.task.data.title for move in self.server.world.moves)
            assert max(moved.values(), default=0) <= 1, moved
            for row in self.project.rows.values():
                assert found(row) in ([], expected()), row.data.title
            labelled = {row.data.title for row in self.project.rows.values() if found(row)}
            assert set(moved) <= labelled

    def check_done(self) -> None:
        """What holds at the end."""
        self.check()
        assert self.project.tasks_at(AGENT) == []
        assert len(self.project.rows) == len(self.project.tasks) == len(self.server.world.moves)
        with closing(Ledger(self.folder / "out" / LEDGER)) as ledger:
            assert {entry.step for entry in ledger.entries()} <= {"done", "labelled"}
        assert not list((self.folder / "out").rglob("*.mp4"))


def found(row: LabelRow) -> Found:
    return [(frame, label["name"], label["confidence"], label["boundingBox"]["x"]) for frame, label in row.objects()]


def expected() -> Found:
    """What an undisturbed run leaves on a row: `test_an_undisturbed_run_leaves_what_is_expected` holds it to that."""
    return [
        place
        for frame in range(NUM_FRAMES)
        for place in (
            (frame, "Pedestrian", 0.75, round((2 + frame) / 96, 5)),
            (frame, "Vehicle", 0.5, round(5 / 96, 5)),
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.killing", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="on Ray; every second run has none")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    killed: Counter[str] = Counter()
    num_rounds = 0
    while killed.total() < options.kills:
        num_rounds += 1
        with tempfile.TemporaryDirectory() as folder, EncordServer() as server:
            scene = Scene(server, Path(folder), options.tasks)
            while scene.project.tasks_at(AGENT) and killed.total() < options.kills:
                point = replace(draw.choice(every_kind()), nth=draw.randint(1, 6))
                scene.workers = options.workers - scene.workers
                if scene.run(point, limit=3) == -signal.SIGKILL:
                    killed[f"{point.moment} {point.name}"] += 1
                scene.check()
            assert scene.run() == 0
            scene.check_done()
            assert not server.errors, server.errors
    for name, number in sorted(killed.items()):
        print(f"{number:5} {name}")
    print(f"{killed.total()} kills over {num_rounds} stages of {options.tasks} tasks: each labelled and moved once")


if __name__ == "__main__":
    main()
