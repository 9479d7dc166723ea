"""Starts the workers of a run as Ray actors, and waits until they have loaded their model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prelabel import errors
from prelabel.config.sections import Config
from prelabel.errors import MachineError, SetupError
from prelabel.run.actor import InferenceActor, Job, ModelDescription
from prelabel.run.ray_cluster import first_line
from prelabel.run.work import Failure
from prelabel.run.worker_handle import LOST_SECONDS, MAX_DEATHS, POLL_SECONDS, TASKS_PER_WORKER, WorkerHandle

START_SECONDS = 1800.0
"""A worker may have to fetch weights or to build an engine before its model is loaded."""


def start_actors(job: Job, num: int, cpus: float, gpus: float) -> list[WorkerHandle]:
    """Returns new workers, which may not have started yet.

    Args:
        job: what each worker needs.
        num: number of workers.
        cpus: that each asks Ray for.
        gpus: that each asks Ray for.
    """
    import ray

    actor = ray.remote(InferenceActor).options(
        num_cpus=cpus,
        num_gpus=gpus,
        max_restarts=-1,  # only its tasks are lost with a worker, and the run gives them to others
        max_task_retries=0,
        # One thread for `status`, and one for a task that comes before Ray has ended the last call.
        max_concurrency=TASKS_PER_WORKER + 2,
    )
    return [WorkerHandle(f"worker {number}", actor.remote(job)) for number in range(1, num + 1)]


def describe_model(handles: Sequence[WorkerHandle]) -> ModelDescription:
    """Returns what the run must know of the workers' model, as soon as all workers have loaded it.

    Raises:
        SetupError: the model does not load.
    """
    import ray

    asked = [handle.actor.describe.remote() for handle in handles]
    described = [_describe(ray, handle, answer) for handle, answer in zip(handles, asked, strict=True)]
    return described[0]


def plugin_files(config: Config, folder: Path) -> dict[str, bytes]:
    """Returns the config's own plug-in files that workers need, by path relative to the folder."""
    sections = (config.reader, config.detector, config.classifier, config.tracker, config.refine, config.agent)
    uses = [section.use for section in sections if section is not None]
    names = [use.rpartition(":")[0] for use in uses]
    return {name: (folder / name).read_bytes() for name in names if name.endswith(".py") and (folder / name).is_file()}


def _describe(ray: Any, handle: WorkerHandle, answer: Any) -> ModelDescription:
    """Returns a worker's description of its model; asks again if the worker dies meanwhile, a few times.

    Raises:
        SetupError: the model does not load.
    """
    for deaths in range(1, MAX_DEATHS + 1):
        try:
            described: ModelDescription | Failure = ray.get(answer, timeout=START_SECONDS)
        except ray.exceptions.GetTimeoutError:
            text = f"workers: {handle.name} has not loaded the model within {START_SECONDS:.0f} s"
            raise MachineError(text) from None
        except ray.exceptions.RayError as error:
            if deaths == MAX_DEATHS:
                text = f"workers: {handle.name} ended {deaths} times while it loaded the model: {first_line(error)}"
                raise MachineError(text) from None
            _wait_until_up(ray, handle)
            answer = handle.actor.describe.remote()
            continue
        if isinstance(described, Failure):
            kind = getattr(errors, described.kind, MachineError)
            raise (kind if issubclass(kind, SetupError) else MachineError)(described.reason)
        handle.host, handle.device = described.host, described.traits.device or ""
        return described
    raise AssertionError("unreachable")


def _wait_until_up(ray: Any, handle: WorkerHandle) -> None:
    """Waits until Ray has restarted a worker; meanwhile, each call to it fails at once."""
    give_up = time.monotonic() + LOST_SECONDS
    while time.monotonic() < give_up:
        try:
            ray.get(handle.actor.status.remote(), timeout=LOST_SECONDS)
            return
        except ray.exceptions.RayError:
            time.sleep(POLL_SECONDS)
