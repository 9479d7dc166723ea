"""A worker in another process: it holds the model, and fetches, decodes and infers tasks.

It has no key, no ledger and no connection to the platform. The run sends it `Work` and gets `InferredTask` back.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from prelabel.assembly.assemble import Assembly, assemble
from prelabel.assembly.stored_detector import KnownDetector
from prelabel.config.sections import Config
from prelabel.data.frames import FileLink, Media, MediaKind
from prelabel.data.ontology import Ontology
from prelabel.errors import FetchError, LinkExpiredError
from prelabel.files.media_files import kind_to_read
from prelabel.plugins.protocols import Classifier, Detector
from prelabel.plugins.traits import ModelTraits, traits_of, usage_of, warnings_of
from prelabel.run.agents.agent import Agent
from prelabel.run.agents.box_labels import Detected, label_in_worker
from prelabel.run.agents.make import make_agent
from prelabel.run.work import Failure, InferredTask, TaskResult, Work
from prelabel.run.worker import Worker
from prelabel.runtime.buckets import BucketFile
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import download, session_for_links
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.process_settings import set_up_process
from prelabel.runtime.progress import Value
from prelabel.store.raw_detections import read_raw


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to build its model, as plain values.

    Attributes:
        config: the config of the run; its source is not used.
        folder: the config's folder on the machine of the run.
        plugin_files: content of the config's own plug-in files, by path relative to that folder.
        ontology: the source's ontology; None if it is made from the model's classes.
        num_cores: CPU cores that the worker may use.
        uses_gpu: whether Ray gives the worker a GPU. Without one, the worker must not see any.
        cache_bytes: disk space for downloads.
        detector: of earlier runs, if the worker only labels its detections; None: the worker loads the config's.
    """

    config: Config
    folder: Path
    plugin_files: Mapping[str, bytes]
    ontology: Ontology | None
    num_cores: int
    uses_gpu: bool
    cache_bytes: int
    detector: KnownDetector | None = None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What the run must know of a worker's model.

    Attributes:
        host: name of the worker's machine.
        class_names: names by class id; empty for a function of the user's own.
        traits: the model's facts.
        warnings: what a user should know of how the model was loaded.
        tasks_per_call: number of tasks that a worker should get at a time: for images, as many as fill a batch.
        waits_for_geometry: whether masks, keypoints or rotated boxes must be requested (`with_geometry`).
    """

    host: str
    class_names: tuple[str, ...] = ()
    traits: ModelTraits = ModelTraits()  # noqa: RUF009
    warnings: tuple[str, ...] = ()
    tasks_per_call: int = 1
    waits_for_geometry: bool = False


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A worker began to infer a task."""

    title: str
    num_frames: int
    task_id: str


@dataclass(frozen=True, slots=True)
class FramesInferred:
    """A worker inferred more frames of its current task."""

    num_frames: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event for the log of the run."""

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker did since it was last asked.

    Attributes:
        events: what happened, in order.
        usage: counters of a model behind a service, since the worker began.
    """

    events: tuple[TaskStarted | FramesInferred | Event, ...]
    usage: Mapping[str, float] = field(default_factory=dict)


class EventLog:
    """A `Progress` that stores everything until the run asks for it."""

    def __init__(self) -> None:
        self._events: list[TaskStarted | FramesInferred | Event] = []
        self._lock = threading.Lock()

    def begin(self, title: str, num_frames: int, task_id: str = "", worker: str = "") -> None:
        """Keeps the start of a task."""
        self._add(TaskStarted(title, num_frames, task_id))

    def frames(self, num_frames: int, worker: str = "") -> None:
        """Keeps the number of frames."""
        self._add(FramesInferred(num_frames))

    def waiting(self, stage: str, num_items: int) -> None:
        """Ignored: changes too often."""

    def event(self, name: str, **values: Value) -> None:
        """Keeps an event."""
        self._add(Event(name, values))

    def take(self) -> tuple[TaskStarted | FramesInferred | Event, ...]:
        """Returns what was kept since the last call."""
        with self._lock:
            events, self._events = self._events, []
        return tuple(events)

    def _add(self, one: TaskStarted | FramesInferred | Event) -> None:
        with self._lock:
            self._events.append(one)


_FLUSH = None
"""In the queue of works: fill no batch with later works before those until here are done."""


class InferenceActor:
    """The Ray actor. Ray calls its methods on several threads: `infer` for several works at a time, and `status`."""

    def __init__(self, job: Job) -> None:
        if not job.uses_gpu:  # Ray shows all GPUs to an actor that has asked for none
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = str(job.num_cores)  # for torch, if it is imported, and the decoding process
        set_up_process()
        self._job = job
        self._events, self._stop = EventLog(), StopSignal()
        self._cache = DiskCache(Path(tempfile.gettempdir()) / f"prelabel-{os.getuid()}" / "cache", job.cache_bytes)
        self._agent: Agent[Any, Any] | None = None
        self._works: SimpleQueue[Work | None] = SimpleQueue()
        self._results: dict[str, Future[InferredTask[Any]]] = {}
        self._loading = threading.Lock()

    def describe(self) -> ModelDescription | Failure:
        """Loads the model and returns what the run must know of it, or why it cannot be loaded."""
        try:
            agent, assembly = self._loaded_agent(), self._assembly
            model: Detector | Classifier
            match self._job.config.agent_kind:
                case "detection":
                    model = assembly.detection.provider.detector
                    warnings, tasks_per_call = warnings_of(assembly.detection.asked_detector), 1
                case "classification":
                    model = assembly.classification.classifier
                    warnings, tasks_per_call = warnings_of(model), assembly.classification.batch_size
                case "function":
                    agent.prepare()
                    return ModelDescription(host=socket.gethostname())
            return ModelDescription(
                class_names=tuple(map(str, model.class_names)),
                traits=traits_of(model),
                warnings=tuple(warnings),
                tasks_per_call=tasks_per_call,
                waits_for_geometry=callable(getattr(model, "with_geometry", None)),
                host=socket.gethostname(),
            )
        except Exception as error:
            return Failure.of(error)

    def infer(self, works: Sequence[Work]) -> tuple[list[InferredTask[Any]], Status]:
        """Returns the result of each work. They share batches, if the model takes images of several tasks at once."""
        if all(work.raw_file for work in works):
            return [self._label(work, _stored_result(work)) for work in works], self.status()
        try:
            self._loaded_agent()
        except Exception as error:
            return [InferredTask.failed(work.key, error) for work in works], self.status()
        awaited = [self._results.setdefault(work.key, Future()) for work in works]
        for work in works:
            self._works.put(work)
        if self._job.config.agent_kind == "classification":
            self._works.put(_FLUSH)
        # On this thread, so that the model goes on with the next task meanwhile.
        results = [self._label(work, future.result()) for work, future in zip(works, awaited, strict=True)]
        return results, self.status()

    def status(self) -> Status:
        """Returns what happened since the last call. An answer also shows that the worker is alive."""
        usage = {} if self._agent is None else usage_of(self._agent)
        return Status(self._events.take(), usage)

    @cached_property
    def _assembly(self) -> Assembly:
        job = self._job
        assembly = assemble(job.config, _plugin_folder(job), find_ontology=lambda: job.ontology)
        if job.detector is None:
            return assembly
        return replace(assembly, detection=replace(assembly.detection, provider=job.detector))

    def _loaded_agent(self) -> Agent[Any, Any]:
        with self._loading:
            if self._agent is None:
                agent = make_agent(self._assembly, self._events, self._stop)
                # A daemon, because Ray waits for other threads before it ends the process.
                threading.Thread(target=self._infer_all, args=(agent,), name="infer", daemon=True).start()
                self._agent = agent
            return self._agent

    def _infer_all(self, agent: Agent[Any, Any]) -> None:
        # One fetcher: with several, the worker would wait for as many works before it passes on the first.
        worker: Worker[Any, Work] = Worker(agent, self._open, 1, self._events, self._stop)
        while not self._stop.is_set:
            try:
                with closing(worker.process(self._arriving())) as results:
                    for result in results:
                        assert not isinstance(result, TaskResult)
                        self._results.pop(result.key).set_result(result)
            except BaseException as error:  # a bug
                failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
                for key in list(self._results):
                    self._results.pop(key).set_result(InferredTask.failed(key, failure))

    def _label(self, work: Work, result: InferredTask[Any]) -> InferredTask[Any]:
        """Turns detections into labels. This takes time, and the run would do it for all workers."""
        if not isinstance(result.found, Detected):
            return result
        try:
            return replace(result, found=label_in_worker(self._assembly.detection, work, result.found))
        except Exception:  # the run meets the same error, and handles it
            return result

    def _arriving(self) -> Iterator[Work]:
        """Yields works as they arrive. It ends at a flush after which none has arrived yet, so that batches end too."""
        while True:
            work = self._works.get()
            if work is not _FLUSH:
                yield work
            elif self._works.empty():
                return

    @contextmanager
    def _open(self, work: Work) -> Iterator[Media]:
        """Opens the media of a work, and deletes what was downloaded at the end.

        Raises:
            FetchError: the media cannot be read here, or not be downloaded completely.
        """
        location, title = work.location, work.title
        if not location.links:
            for path in location.paths:
                if not path.exists():
                    host = socket.gethostname()
                    raise FetchError(
                        f"{path}: worker on {host} cannot see it: put videos on storage that all workers mount there"
                    )
            yield _media(location.kind, location.paths)
            return
        with self._cache.room(sum(link.num_bytes or 0 for link in location.links), title) as folder:
            paths = []
            with session_for_links() as session:
                for number, link in enumerate(location.links):
                    path = folder / f"{number:06d}{link.suffix}"
                    if isinstance(link, BucketFile):
                        link.download(path, title)
                    else:
                        max_bytes = self._cache.max_bytes
                        download(_once(link, title), path, link.num_bytes, title, max_bytes=max_bytes, session=session)
                    paths.append(path)
            yield _media(location.kind, tuple(paths))


def _media(kind: MediaKind | None, paths: tuple[Path, ...]) -> Media:
    return Media(kind_to_read(paths[0]) if kind is None else kind, paths)


def _stored_result(work: Work) -> InferredTask[Detected]:
    return InferredTask(work.key, Detected(read_raw(work.raw_file), raw_file=work.raw_file), is_cached=True)


def _plugin_folder(job: Job) -> Path:
    """Returns a folder with the config's plug-in files as the run has them; on another machine, a new one."""
    if all(_content(job.folder / name) == content for name, content in job.plugin_files.items()):
        return job.folder
    folder = Path(tempfile.mkdtemp(prefix="prelabel-plugins-"))
    for name, content in job.plugin_files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _once(link: FileLink, title: str) -> Callable[[], str]:
    """Returns a function that returns the link, and raises at its second call, since only the run can get another."""
    links = [link.url]

    def next_link() -> str:
        if not links:
            raise LinkExpiredError(f"{title}: the storage refused its link")
        return links.pop()

    return next_link
