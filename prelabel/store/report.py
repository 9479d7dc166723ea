"""The report of a run: `report.json`, also shown at the end of the run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from prelabel.config.base import ReportSection
from prelabel.data.ontology import noun_of
from prelabel.errors import ConfigError
from prelabel.labels.keyframes import KeyframeStats, sum_up
from prelabel.plugins.load import describe_first
from prelabel.plugins.protocols import SkippedTask
from prelabel.runtime.files import read_json, write_text_atomically
from prelabel.runtime.progress import without_title

_MEANS = ("map_50_95", "map_50")


@dataclass(frozen=True, slots=True)
class Score:
    """Average precision over the images and categories that the labels and the ground truth have in common.

    Attributes:
        map_50_95: mean over categories and over IoU thresholds 0.50, 0.55, ... 0.95.
        map_50: mean over categories at IoU 0.50.
        by_class: AP over IoU 0.50 to 0.95, by the ground truth's category name; only categories that the images show.
    """

    map_50_95: float
    map_50: float
    by_class: Mapping[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """The values for JSON: the means, then AP by class.

        >>> Score(0.5, 0.7, {"car": 0.5, "map_50": 0.1}).figures
        {'map_50_95': 0.5, 'map_50': 0.7, 'car': 0.5}
        """
        means = {"map_50_95": self.map_50_95, "map_50": self.map_50}
        return means | {name: ap for name, ap in self.by_class.items() if name not in means}


def _fields_of(figures: object) -> object:
    if not isinstance(figures, dict):
        return figures
    means = {name: figures[name] for name in _MEANS if name in figures}
    return {**means, "by_class": {name: ap for name, ap in figures.items() if name not in _MEANS}}


ScoreOfFigures = Annotated[Score, BeforeValidator(_fields_of)]
"""A score that pydantic can also read from its `figures`."""


Status = Literal["done", "already done", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The result of one task.

    Attributes:
        title: the name to show to people.
        key: its key in the ledger.
        status: `done`; `already done` (by an earlier run); `failed`; or `skipped` (a person or another run has moved
            the task).
        reason: why the task is not done; else empty.
        partial: what a labelled task lacks; None if it is complete.
        num_frames: number of frames that the media have.
        num_inferred: number of frames that the model saw.
        instances: number of object instances by ontology object.
        num_boxes: number of boxes of these instances, on all frames.
        num_interpolated: number of these boxes that were filled in, in gaps of tracks and between kept boxes.
        thinning: how many boxes of the tracks were kept, and how well they fit; None if all were kept.
        dropped: number of detections that became no instance, by reason.
        pathway: where the task went, or would go in a dry run or without a workflow.
        priority: the new priority, 0 to 1; None if the task keeps its own.
        reader: which reader read the media, and why.
        seconds: busy time by step: fetch, decode, detect or classify, refine (filters, tracks and masks), save.
        outputs: files written for the task.
        row_bytes: size of its label row; None if nothing was written, or if the sink does not say.
    """

    title: str
    key: str
    status: Status
    reason: str = ""
    partial: str | None = None
    num_frames: int = 0
    num_inferred: int = 0
    instances: Mapping[str, int] = field(default_factory=dict)
    num_boxes: int = 0
    num_interpolated: int = 0
    thinning: KeyframeStats | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    pathway: str | None = None
    priority: float | None = None
    reader: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    row_bytes: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether this run or an earlier one has written the task's labels."""
        return self.status in ("done", "already done")

    @property
    def is_bare(self) -> bool:
        """Whether the model saw the task and found nothing to label."""
        return self.is_done and self.num_inferred > 0 and not self.instances

    @property
    def short_reason(self) -> str:
        """The reason without the task's title."""
        return without_title(self.title, self.reason)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker did.

    Attributes:
        name: the name in the progress.
        host: its machine.
        device: the model's device, such as `cuda:0`.
        tasks: number of tasks that it inferred.
        frames: number of frames that it inferred.
        busy: share of the run's time in which it had a task. If it is low, the run did not give out tasks fast
            enough, or there were too few.
    """

    name: str
    host: str
    device: str
    tasks: int
    frames: int
    busy: float


def count_devices(workers: Sequence[WorkerReport], gpus_per_worker: float) -> int:
    """Returns the number of GPUs of the workers or, without GPUs, of their machines; 1 without workers.

    Workers with a part of a GPU share it.

    >>> worker = WorkerReport("w", "host", "cuda:0", tasks=1, frames=9, busy=1.0)
    >>> count_devices([worker] * 3, 0.5), count_devices([], 1.0)
    (2, 1)
    """
    if any(worker.device.startswith("cuda") for worker in workers):
        return math.ceil(len(workers) * gpus_per_worker)
    return max(1, len({worker.host for worker in workers}))


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a GPU, or of a machine without GPUs, for an hour.

    Attributes:
        per_hour: in the currency.
        currency: such as USD.
    """

    per_hour: float
    currency: str

    @classmethod
    def of(cls, section: ReportSection) -> Price | None:
        """Returns the price that a config names; None if it names none."""
        return None if section.gpu_hour_price is None else cls(section.gpu_hour_price, section.currency)


def _total(counts: Iterable[Mapping[str, float]]) -> Counter[str]:
    """Returns the sums of counts or seconds, by name."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of a run.

    Attributes:
        prelabel: version of prelabel.
        started_at: UTC, ISO 8601.
        config_sha256: of the part of the config that affects the labels.
        model: name, weights_sha256, licence, engine.
        dry_run: whether the run was a dry run, which changes nothing on the platform.
        seconds: from the start of the first task to the end of the last.
        tasks: in the order in which they ended.
        skipped: tasks that are not for this tool, and why.
        warnings: what a user should know although no task failed.
        instances_are: `per_frame` for one instance a box; `tracks` for one instance a thing, over all its frames.
        usage: what a model behind a service counted, by name: requests, tokens, cost.
        stopped: whether somebody requested a stop before all tasks were done.
        aborted: why the run ended early; else empty.
        shapes: of the ontology objects that a detector labels; empty for answers.
        device: of the detector, such as `cuda:0`; empty if the detector does not say.
        is_outage: whether the run ended because the platform did not answer; a later run may continue.
        score: against the ground truth, if one was given.
        unwritten: why the file about all tasks could not be written; else empty.
        outputs: files of the run itself.
        workers: what each worker did; empty if the run had none.
        num_devices: number of GPUs that the run held, or of machines if it had no GPU.
        price: of each of them; None if the config has no price.
    """

    prelabel: str
    started_at: str
    config_sha256: str
    model: Mapping[str, str | None]
    dry_run: bool
    seconds: float
    tasks: tuple[TaskReport, ...]
    skipped: tuple[SkippedTask, ...] = ()
    warnings: tuple[str, ...] = ()
    instances_are: Literal["per_frame", "tracks"] = "per_frame"
    usage: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False
    aborted: str = ""
    shapes: tuple[str, ...] = ()
    device: str = ""
    is_outage: bool = False
    score: ScoreOfFigures | None = None
    unwritten: str = ""
    outputs: tuple[str, ...] = ()
    workers: tuple[WorkerReport, ...] = ()
    num_devices: int = 1
    price: Price | None = None

    @property
    def failed(self) -> list[TaskReport]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.status == "failed"]

    @property
    def num_worked_on(self) -> int:
        """The number of tasks that ended in this run as done or failed.

        Tasks that were skipped, or that an earlier run had done, do not count.
        """
        return sum(task.status in ("done", "failed") for task in self.tasks)

    @property
    def instances(self) -> dict[str, int]:
        """The number of object instances by ontology object, the most frequent first."""
        return dict(_total(task.instances for task in self.tasks).most_common())

    @property
    def pathways(self) -> dict[str, int]:
        """The number of tasks by pathway, the most frequent first."""
        counts = Counter(task.pathway for task in self.tasks if task.status == "done" and task.pathway)
        return dict(counts.most_common())

    @property
    def dropped(self) -> dict[str, int]:
        """The number of detections that became no instance, by reason, the most frequent first."""
        return dict(_total(task.dropped for task in self.tasks).most_common())

    @property
    def num_boxes(self) -> int:
        """The number of boxes of all instances, on all frames."""
        return sum(task.num_boxes for task in self.tasks)

    @property
    def noun(self) -> tuple[str, str]:
        """The noun for one label and for several, such as box and boxes; it depends on the shapes."""
        return noun_of(self.shapes)

    @property
    def num_interpolated(self) -> int:
        """The number of filled-in boxes, over all tasks."""
        return sum(task.num_interpolated for task in self.tasks)

    @property
    def thinning(self) -> KeyframeStats | None:
        """How many boxes of the tracks were kept, over all tasks; None if all were kept."""
        return sum_up([task.thinning for task in self.tasks if task.thinning is not None])

    @property
    def num_inferred(self) -> int:
        """The number of frames that the model saw in this run."""
        looked = (task for task in self.tasks if task.seconds.keys() & {"detect", "classify"})
        return sum(task.num_inferred for task in looked)

    @property
    def frames_per_second(self) -> float:
        """The number of frames that the model saw, divided by the run's time; 0.0 if it saw none."""
        return self.num_inferred / self.seconds if self.seconds > 0 else 0.0

    @property
    def device_hours(self) -> float:
        """The run's time multiplied by its number of GPUs, or of machines if it had no GPU, in hours."""
        return self.seconds / 3600 * self.num_devices

    @property
    def device_noun(self) -> str:
        """What the run's time is counted for."""
        devices = (self.device, *(worker.device for worker in self.workers))
        return "GPU-hours" if any(device.startswith("cuda") for device in devices) else "machine-hours"

    @property
    def cost(self) -> float | None:
        """The price of the device-hours; None without a price."""
        return None if self.price is None else self.device_hours * self.price.per_hour

    @property
    def busy_seconds(self) -> dict[str, float]:
        """The busy time by step, over all tasks. Steps overlap, so the sum can exceed the run's time."""
        return dict(_total(task.seconds for task in self.tasks))

    @property
    def limit(self) -> str:
        """The busiest step, which limits the speed; empty if no task was worked on."""
        busy = self.busy_seconds
        return max(busy, key=lambda stage: busy[stage]) if busy else ""

    @classmethod
    def read(cls, path: Path) -> RunReport:
        """Returns the report that an earlier run wrote.

        Raises:
            ConfigError: there is no report, or another version has written it.
        """
        if not path.exists():
            raise ConfigError(f"{path}: there is no report yet: `prelabel run CONFIG` first")
        try:
            return TypeAdapter(cls).validate_python(read_json(path, ConfigError))
        except ValidationError as error:
            raise ConfigError(
                f"{path}: is not a report of this version: run again ({describe_first(error)})"
            ) from error

    def write(self, path: Path) -> None:
        """Writes the report as JSON."""
        values = {
            **asdict(self),
            "score": None if self.score is None else self.score.figures,
            "instances": self.instances,
            "pathways": self.pathways,
            "num_boxes": self.num_boxes,
            "num_interpolated": self.num_interpolated,
            "thinning": None if self.thinning is None else asdict(self.thinning),
            "frames_per_second": round(self.frames_per_second, 2),
            "device_hours": round(self.device_hours, 4),
            "cost": None if self.cost is None else round(self.cost, 4),
            "busy_seconds": {stage: round(value, 3) for stage, value in self.busy_seconds.items()},
            "limit": self.limit,
        }
        write_text_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
