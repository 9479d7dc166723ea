"""The report of a run: `report.json`, also shown at the end of the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, TypeAdapter, ValidationError

from prelabel.data.ontology import noun_of
from prelabel.errors import ConfigError
from prelabel.labels.keyframes import KeyframeStats, sum_up
from prelabel.plugins.load import describe_first
from prelabel.plugins.protocols import SkippedTask
from prelabel.runtime.files import read_json, write_text_atomically
from prelabel.runtime.progress import reason_beside

_MEANS = ("map_50_95", "map_50")


@dataclass(frozen=True, slots=True)
class Score:
    """Average precision over the images and the categories that labels and truth have in common.

    Attributes:
        map_50_95: mean over categories and over IoU thresholds 0.50, 0.55, ... 0.95.
        map_50: mean over categories at IoU 0.50.
        by_class: AP over IoU 0.50 to 0.95 by the truth's category name; only categories that the images show.
    """

    map_50_95: float
    map_50: float
    by_class: Mapping[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """The values as JSON holds them: the means, then AP by class.

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
"""A score, also when it is read back from JSON."""


Status = Literal["done", "already done", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class TaskReport:
    """How one task ended.

    Attributes:
        title: what people call it.
        key: its key in the ledger.
        status: `done`; `already done` by an earlier run; `failed`; `skipped`: a person or another run has moved it on.
        reason: why it is not done; else empty.
        partial: what a labelled task lacks; None if it is whole.
        num_frames: frames that the media have.
        num_inferred: frames that the model saw.
        instances: object instances by ontology object.
        num_boxes: of these instances, on all frames.
        num_interpolated: of these boxes, those filled in: in gaps of tracks, and between kept boxes.
        thinning: boxes saved by keeping few of each track, and what that cost; None where all are kept.
        dropped: detections that became no instance, by reason.
        pathway: where the task went, or would go in a dry run or without a workflow.
        priority: the new one, 0 to 1; None: the task kept its own.
        reader: which reader read it, and why.
        seconds: busy time by stage: fetch, decode, detect or classify, save.
        outputs: files written for it.
        row_bytes: of its label row; None where nothing was written, or the sink does not say.
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
        """Whether its labels are written, by this run or an earlier one."""
        return self.status in ("done", "already done")

    @property
    def reason_beside_title(self) -> str:
        """Why it is not done, without its title."""
        return reason_beside(self.title, self.reason)


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended.

    Attributes:
        prelabel: version.
        started_at: UTC, ISO 8601.
        config_sha256: of what decides what the labels say.
        model: name, weights_sha256, licence, engine.
        dry_run: nothing on the platform was changed.
        seconds: from the first task to the end of the last.
        tasks: in the order in which they ended.
        skipped: tasks that are not for this tool, and why.
        warnings: what a user should know although no task failed.
        instances_are: `per_frame`: one for each box; `tracks`: one for each thing, over all its frames.
        usage: what a model behind a service counted, by name: requests, tokens, cost.
        stopped: a stop was asked for before all was done.
        aborted: why the run ended early; else empty.
        shapes: of the ontology objects that a detector labels; empty of answers.
        device: of the detector, such as `cuda:0`; empty where it does not say.
        is_outage: the run ended since the platform did not answer; a later run may go on.
        score: against the ground truth, where one was given.
        unwritten: why the file about all tasks could not be written; else empty.
        outputs: files of the run itself.
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

    @property
    def failed(self) -> list[TaskReport]:
        """The tasks that failed."""
        return [task for task in self.tasks if task.status == "failed"]

    @property
    def num_worked_on(self) -> int:
        """Tasks that this run did or failed: not those that an earlier run had done or that were skipped."""
        return sum(task.status in ("done", "failed") for task in self.tasks)

    @property
    def instances(self) -> dict[str, int]:
        """Object instances by ontology object, the most frequent first."""
        counts: Counter[str] = Counter()
        for task in self.tasks:
            counts.update(task.instances)
        return dict(counts.most_common())

    @property
    def pathways(self) -> dict[str, int]:
        """Tasks by the pathway that they took, the most frequent first."""
        counts = Counter(task.pathway for task in self.tasks if task.status == "done" and task.pathway)
        return dict(counts.most_common())

    @property
    def dropped(self) -> dict[str, int]:
        """Detections that became no instance, by reason, the most frequent first."""
        counts: Counter[str] = Counter()
        for task in self.tasks:
            counts.update(task.dropped)
        return dict(counts.most_common())

    @property
    def num_boxes(self) -> int:
        """Boxes of these instances, on all frames."""
        return sum(task.num_boxes for task in self.tasks)

    @property
    def noun(self) -> tuple[str, str]:
        """What one label is called by its shape, and several of them."""
        return noun_of(self.shapes)

    @property
    def num_interpolated(self) -> int:
        """Boxes that were filled in, over all tasks."""
        return sum(task.num_interpolated for task in self.tasks)

    @property
    def thinning(self) -> KeyframeStats | None:
        """Boxes saved by keeping few of each track, over all tasks; None where all are kept."""
        return sum_up([task.thinning for task in self.tasks if task.thinning is not None])

    @property
    def num_inferred(self) -> int:
        """Frames that the model saw in this run."""
        looked = (task for task in self.tasks if task.seconds.keys() & {"detect", "classify"})
        return sum(task.num_inferred for task in looked)

    @property
    def frames_per_second(self) -> float:
        """Frames that the model saw by the run's whole time; 0.0 if it saw none."""
        return self.num_inferred / self.seconds if self.seconds > 0 else 0.0

    @property
    def busy_seconds(self) -> dict[str, float]:
        """Busy time by stage, over all tasks. Stages overlap, so that the sum passes the run's time."""
        totals: Counter[str] = Counter()
        for task in self.tasks:
            totals.update(task.seconds)
        return dict(totals)

    @property
    def limit(self) -> str:
        """The stage that was busiest, and so set the pace; empty if nothing was worked on."""
        busy = self.busy_seconds
        return max(busy, key=lambda stage: busy[stage]) if busy else ""

    @classmethod
    def read(cls, path: Path) -> RunReport:
        """Returns the report that an earlier run wrote.

        Raises:
            ConfigError: there is none, or it is of another version.
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
            "busy_seconds": {stage: round(value, 3) for stage, value in self.busy_seconds.items()},
            "limit": self.limit,
        }
        write_text_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
