"""The run's side of workers on Ray: it starts them, gives them tasks, and goes on when one of them dies.

Each worker has two tasks at a time: it infers one and fetches the next. For each of these tasks, a thread of the run
waits for the result.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from prelabel.assembly.stored_detector import KnownDetector
from prelabel.config.sections import Config
from prelabel.data.ontology import Ontology
from prelabel.files.folder_source import FolderSection
from prelabel.plugins.protocols import Task
from prelabel.run.actor import FramesInferred, Job, ModelDescription, Status, TaskStarted
from prelabel.run.agents.box_labels import Detected
from prelabel.run.ray_cluster import connect, divide, first_line, import_ray, part_of
from prelabel.run.work import CachedTask, Failure, InferredTask, TaskResult, Work
from prelabel.run.worker_handle import (
    LOST_SECONDS,
    MAX_DEATHS,
    MAX_POLLS_PER_SECOND,
    POLL_SECONDS,
    TASKS_PER_WORKER,
    WorkerHandle,
)
from prelabel.run.worker_start import describe_model, plugin_files, start_actors
from prelabel.runtime.interrupts import Stopped, StopSignal
from prelabel.runtime.prefetch import map_ahead
from prelabel.runtime.progress import Progress
from prelabel.store.report import WorkerReport

MAX_LINKS = 3
"""Links that a task gets in one attempt. A link may expire while the task waits for its turn."""

_LOG = logging.getLogger(__name__)


class RayWorkers:
    """Workers of one stage on a Ray cluster, which is started on this machine unless the config names one.

    Ray is imported and the workers start when the model is first asked for.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        find_ontology: Callable[[], Ontology | None],
        num_stages: int = 1,
        detector: KnownDetector | None = None,
    ) -> None:
        """Stores the settings; starts nothing.

        Args:
            config: a config with a section `workers`.
            folder: the config's folder, which plug-in paths are relative to.
            find_ontology: returns the source's ontology; None if it is made from the model's classes.
            num_stages: number of stages that take turns on the same GPUs and cores.
            detector: of earlier runs, if the workers only label its detections.
        """
        assert config.workers is not None
        self._section, self._num_stages = config.workers, num_stages
        self._config, self._folder, self._find_ontology = config, folder, find_ontology
        self._detector = detector
        self._handles: list[WorkerHandle] = []
        self._changed = threading.Condition()
        self._aborted = threading.Event()
        self._has_connected = False
        self._seconds = 0.0

    @cached_property
    def model(self) -> ModelDescription:
        """Facts about the model; starts the workers, and waits until all of them have loaded it.

        Raises:
            SetupError: Ray cannot be started or joined, has too little for the workers, or the model does not load.
        """
        return self._start()

    @property
    def num(self) -> int:
        """The number of workers; starts them."""
        _ = self.model
        return len(self._handles)

    def usage(self) -> dict[str, float]:
        """Returns the sum of the workers' usage counters."""
        total: dict[str, float] = {}
        for handle in self._handles:
            for name, number in handle.usage.items():
                total[name] = total.get(name, 0) + number
        return total

    def reports(self) -> tuple[WorkerReport, ...]:
        """Returns what each worker did so far."""
        return tuple(handle.report(self._seconds) for handle in self._handles)

    def process(
        self,
        tasks: Iterable[Task | CachedTask[Any] | TaskResult],
        make_work: Callable[[Task | CachedTask[Detected], ExitStack], Work],
        progress: Progress,
        stop: StopSignal,
    ) -> Generator[InferredTask[Any] | TaskResult, None, None]:
        """Yields the result of each task as soon as it is there. Results among the input are passed on.

        The workers also label detections of earlier runs.

        Args:
            tasks: tasks or results; read on the caller's thread, only as far as workers are free.
            make_work: returns what a worker gets for a task; may open files until the stack closes.
            progress: notified of what the workers do.
            stop: checked while the run waits; a second stop request ends the workers.

        Raises:
            Stopped: a second stop request.
        """
        _ = self.model
        self._aborted.clear()
        began = time.monotonic()
        infer = partial(self._infer, make_work=make_work, progress=progress, stop=stop)
        most = TASKS_PER_WORKER * len(self._handles)
        with (
            self._watching(progress),
            closing(map_ahead(infer, self._chunks(tasks), num_workers=most, name="worker")) as answers,
        ):
            try:
                for results in answers:
                    yield from results
            except BaseException:
                self._abort()  # before the context waits for the threads, which wait for the workers
                raise
            finally:
                self._seconds += time.monotonic() - began

    def close(self) -> None:
        """Ends the workers, and leaves or ends the cluster."""
        if not self._handles:
            return
        import ray

        for handle in self._handles:
            ray.kill(handle.actor)
        self._handles = []
        if self._has_connected:
            ray.shutdown()

    # Start

    def _start(self) -> ModelDescription:
        ray = import_ray()
        self._has_connected = connect(ray, self._section)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num, gpus, cores = divide(nodes, self._section)
        job = Job(
            config=self._config.model_copy(
                update={"source": FolderSection(path=Path()), "sink": None, "workers": None, "routing": ()}
            ),
            folder=self._folder.absolute(),
            plugin_files=plugin_files(self._config, self._folder),
            ontology=self._find_ontology(),
            num_cores=cores,
            uses_gpu=gpus > 0,
            detector=self._detector,
            cache_bytes=int(getattr(self._config.source, "cache_gb", 20.0) * 1e9),
        )
        cpus_each, gpus_each = part_of(cores, self._num_stages), part_of(gpus, self._num_stages)
        self._handles = start_actors(job, num, cpus_each, gpus_each)
        return describe_model(self._handles)

    # Tasks

    def _chunks(
        self, tasks: Iterable[Task | CachedTask[Any] | TaskResult]
    ) -> Iterator[list[Task] | list[CachedTask[Detected]] | InferredTask[Any] | TaskResult]:
        """Yields the tasks that a worker gets at once. Images of several tasks share a batch."""
        chunk: list[Task] = []
        for task in tasks:
            if isinstance(task, CachedTask):
                yield [task] if isinstance(task.found, Detected) and task.found.raw_file else task.result
                continue
            if isinstance(task, TaskResult):
                yield task
                continue
            chunk.append(task)
            if len(chunk) == self.model.tasks_per_call:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _infer(
        self,
        chunk: list[Task] | list[CachedTask[Detected]] | InferredTask[Any] | TaskResult,
        *,
        make_work: Callable[[Task | CachedTask[Detected], ExitStack], Work],
        progress: Progress,
        stop: StopSignal,
    ) -> list[InferredTask[Any] | TaskResult]:
        """Returns the results of a chunk's tasks. Runs on one thread per chunk."""
        if isinstance(chunk, InferredTask | TaskResult):
            return [chunk]
        results: list[InferredTask[Any] | TaskResult] = []
        to_do: Sequence[Task | CachedTask[Detected]] = chunk
        with ExitStack() as stack:
            for _ in range(MAX_LINKS):
                works = []
                for task in to_do:
                    try:
                        works.append(make_work(task, stack))
                    except Exception as error:
                        results.append(InferredTask.failed(task.key, error))
                found = self._run(works, progress, stop) if works else []
                refused = {result.key for result in found if _lost_its_link(result)}
                results += [result for result in found if result.key not in refused]
                to_do = [task for task in to_do if task.key in refused]
                if not to_do:
                    return results
        return [*results, *(result for result in found if result.key in refused)]

    def _run(
        self, works: Sequence[Work], progress: Progress, stop: StopSignal, deaths: int = 0
    ) -> list[InferredTask[Any]]:
        """Returns the results of works from some worker; from another one if it dies."""
        import ray

        while True:
            with self._take(stop, alone=deaths > 0) as handle:
                if handle is None:
                    return [InferredTask(work.key, failure=_NOBODY_LEFT) for work in works]
                try:
                    answer: tuple[list[InferredTask[Any]], Status]
                    answer = self._await(handle.actor.infer.remote(works), stop)
                    self._forward(handle, answer[1], progress)
                    handle.num_tasks += len(works)
                    return answer[0]
                except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
                    handle.set_down()
                    reason = first_line(error)
                except ray.exceptions.RayError as error:  # a result that cannot travel, or a bug
                    failure = Failure("WorkerError", f"the worker raised: {first_line(error)}")
                    return [InferredTask(work.key, failure=failure) for work in works]
            deaths += 1
            _LOG.info("%s ended: %s", handle.name, reason)
            titles = ", ".join(work.title for work in works)
            progress.event(
                "warning", message=f"{handle.name} ended while it had {titles}: {reason}", worker=handle.name
            )
            if len(works) > 1:  # one of them may be what ends workers
                return [result for work in works for result in self._run([work], progress, stop, deaths)]
            if deaths >= MAX_DEATHS:
                text = f"{titles}: {MAX_DEATHS} workers ended while they had it, the last one: {reason}"
                failure = Failure("WorkerError", text, retryable=False)
                return [InferredTask(works[0].key, failure=failure)]

    def _await(self, answer: Any, stop: StopSignal) -> Any:
        import ray

        while True:
            with suppress(ray.exceptions.GetTimeoutError):
                return ray.get(answer, timeout=POLL_SECONDS)
            if stop.is_now or self._aborted.is_set():
                raise Stopped

    @contextmanager
    def _take(self, stop: StopSignal, *, alone: bool) -> Iterator[WorkerHandle | None]:
        """Waits for a place at the worker with the fewest tasks; yields None if all workers are lost.

        Args:
            stop: a second stop request ends the waiting.
            alone: wait for a worker without tasks, and give it no other task meanwhile. So a task that ends workers
                harms no other task.

        Raises:
            Stopped: a second stop request.
        """
        lost_at = time.monotonic() + LOST_SECONDS
        handle: WorkerHandle | None = None
        with self._changed:
            while handle is None:
                if stop.is_now or self._aborted.is_set():
                    raise Stopped
                if any(handle.is_up for handle in self._handles):
                    lost_at = time.monotonic() + LOST_SECONDS
                elif time.monotonic() > lost_at:
                    break
                most = 0 if alone else TASKS_PER_WORKER - 1
                free = [each for each in self._handles if each.is_up and not each.is_alone and each.num_current <= most]
                handle = min(free, key=lambda each: each.num_current, default=None)
                if handle is None:
                    self._changed.wait(POLL_SECONDS)
            if handle is not None:
                handle.begin(alone=alone)
        try:
            yield handle
        finally:
            if handle is not None:
                with self._changed:
                    handle.end(alone=alone)
                    self._changed.notify_all()

    def _abort(self) -> None:
        """Restarts the workers that have tasks, since a call to the model cannot be ended otherwise."""
        import ray

        self._aborted.set()
        for handle in self._handles:
            if handle.num_current:
                ray.kill(handle.actor, no_restart=False)

    # Progress

    @contextmanager
    def _watching(self, progress: Progress) -> Iterator[None]:
        """Polls the workers on a separate thread, and restarts those that do not answer."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(progress, ended), name="watch workers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch(self, progress: Progress, ended: threading.Event) -> None:
        import ray

        asked: dict[WorkerHandle, tuple[Any, float]] = {}
        # Each question costs the run a millisecond, and the answer to each task says the same.
        while not ended.wait(max(POLL_SECONDS, len(self._handles) / MAX_POLLS_PER_SECOND)):
            for handle in self._handles:
                answer, since = asked[handle] if handle in asked else (handle.actor.status.remote(), time.monotonic())
                asked[handle] = answer, since
                if ray.wait([answer], timeout=0)[0]:
                    del asked[handle]
                    self._receive(handle, answer, since, progress)
                elif handle.is_up and time.monotonic() - since > self._section.stall_seconds:
                    _LOG.warning(
                        "%s has not answered for %.0f s: it is restarted", handle.name, time.monotonic() - since
                    )
                    del asked[handle]
                    handle.set_down()
                    ray.kill(handle.actor, no_restart=False)
        for handle, (answer, since) in asked.items():  # the last answers may hold the last frames
            if handle.is_up and ray.wait([answer], timeout=POLL_SECONDS)[0]:
                self._receive(handle, answer, since, progress)

    def _receive(self, handle: WorkerHandle, answer: Any, since: float, progress: Progress) -> None:
        """Passes on a worker's answer; a worker whose call failed is down until it answers a later one."""
        import ray

        try:
            self._forward(handle, ray.get(answer), progress)
            if since > handle.down_since:  # an older answer may come from the process that has ended
                handle.is_up = True
        except ray.exceptions.RayError:
            handle.set_down()

    def _forward(self, handle: WorkerHandle, status: Status, progress: Progress) -> None:
        with handle.forwarding:
            handle.usage = dict(status.usage) or handle.usage
            for one in status.events:
                if isinstance(one, TaskStarted):
                    progress.begin(one.title, one.num_frames, one.task_id, handle.name)
                elif isinstance(one, FramesInferred):
                    handle.num_frames += one.num_frames
                    progress.frames(one.num_frames, handle.name)
                else:
                    progress.event(one.name, **one.values)


_NOBODY_LEFT = Failure(
    "MachineError", f"workers: none has answered for {LOST_SECONDS:.0f} s", "run_ends", retryable=False
)


def _lost_its_link(result: InferredTask[Any]) -> bool:
    return result.failure is not None and result.failure.kind == "LinkExpiredError"
