"""What an agent does with each task: infer, label, save. The run does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prelabel.plugins.protocols import ModelRecord, Task
from prelabel.run.work import FetchedTask, Found, InferredTask, LabelledTask, Labels
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.ledger import Step
from prelabel.store.report import RunReport

if TYPE_CHECKING:
    from prelabel.assembly.assemble import Assembly


class Agent(Protocol[Found, Labels]):
    """One kind of work at an agent stage: detection, classification, or a function of the user's.

    `infer` runs on a thread of its own, at the same time as the other methods. `Found` and `Labels` are plain values.
    """

    # Before the run

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Returns what `prelabel check` shows, in order: each says in words what is there, or raises a SetupError."""

    def prepare(self) -> None:
        """Makes the parts that label tasks.

        Raises:
            SetupError: one is wrong.
        """

    @property
    def routing_classes(self) -> Sequence[str]:
        """Names that routing rules may use."""

    # The run

    @property
    def model(self) -> ModelRecord:
        """The model that makes the labels."""

    @property
    def reads_media(self) -> bool:
        """Whether media have to be fetched before `infer`."""

    def fingerprint(self, task: Task) -> str:
        """Returns a hash of all that decides what the task's labels say."""

    def load_cached(self, task: Task, step: Step | None) -> Found | None:
        """Returns what an earlier run has found under the same fingerprint; None: inference is needed.

        Args:
            task: one that waits.
            step: how far an earlier run came with it under the same fingerprint; None: not at all.
        """

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Found]]:
        """Yields what is found in each task's media, in order; closes `release` of each.

        It may read several tasks before it yields the first one. The failure of a task is yielded, not raised.

        Raises:
            Stopped: a second stop request.
        """

    def store(self, task: Task, found: Found) -> None:
        """Writes what was found to the run's folder."""

    def build_labels(self, task: Task, found: Found) -> LabelledTask[Labels]:
        """Returns the labels of a task and where the task goes. Saves nothing.

        Raises:
            TaskError: there can be no labels.
        """

    def save(self, task: Task, labelled: LabelledTask[Labels]) -> int | None:
        """Saves the labels: all or nothing, and the same when repeated.

        Returns:
            Bytes of the label row, where that is known.

        Raises:
            TaskError: the labels were not saved.
        """

    def outputs_exist(self, task: Task) -> bool:
        """Tells whether the files of a finished task are still there, so that it need not be done again."""

    # After the run

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should know although no task failed; grows during the run."""

    @property
    def shapes(self) -> Sequence[str]:
        """Shapes of the ontology objects that are labelled; empty without boxes."""

    @property
    def device(self) -> str:
        """Device of the model, such as `cuda:0`; empty where the model does not say."""

    @property
    def summary_path(self) -> Path | None:
        """The file about all tasks: `coco.json`, `classifications.csv`; None where there is none."""

    def write_summary(self, path: Path, report: RunReport) -> None:
        """Writes the file about all tasks."""


def make_agent(assembly: Assembly, progress: Progress | None = None, stop: StopSignal | None = None) -> Agent[Any, Any]:
    """Returns the agent that a config asks for."""
    progress, stop = progress or NullProgress(), stop or StopSignal()
    match assembly.config.agent_kind:
        case "detection":
            from prelabel.run.agents.detection import DetectionAgent

            return DetectionAgent(assembly, progress, stop)
        case "classification":
            from prelabel.run.agents.classification import ClassificationAgent

            return ClassificationAgent(assembly, progress, stop)
        case "function":
            from prelabel.run.agents.function import FunctionAgent

            return FunctionAgent(assembly, progress, stop)
