"""The protocol of agents. An agent infers, labels and saves a task; the run does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from prelabel.plugins.protocols import ModelRecord, Task
from prelabel.run.work import FetchedTask, Found, InferredTask, LabelledTask, Labels
from prelabel.store.ledger import Step
from prelabel.store.report import RunReport


class Agent(Protocol[Found, Labels]):
    """One kind of work at an agent stage: detection, classification, or a user's function.

    `infer` runs on a separate thread, at the same time as the other methods. `Found` and `Labels` are plain values.
    """

    # Before the run

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Returns the checks of `prelabel check`, in order. Each returns a description or raises a SetupError."""

    def prepare(self) -> None:
        """Creates the components that label tasks.

        Raises:
            SetupError: a component is misconfigured.
        """

    @property
    def routing_classes(self) -> Sequence[str]:
        """The class names that routing rules may use."""

    # The run

    @property
    def model(self) -> ModelRecord:
        """The model that makes the labels."""

    @property
    def reads_media(self) -> bool:
        """Whether media must be fetched before `infer`."""

    @property
    def stays_because(self) -> str:
        """Why `infer` must run in the process of the run; empty if a worker without the key can run it."""

    def fingerprint(self, task: Task) -> str:
        """Returns the hash of everything that affects the task's labels."""

    def load_cached(self, task: Task, step: Step | None) -> Found | None:
        """Returns the cached result of an earlier run under the same fingerprint; None if inference is needed.

        Args:
            task: a waiting task.
            step: the last step that an earlier run completed under the same fingerprint; None: no step.
        """

    def infer(self, fetched: Iterable[FetchedTask]) -> Iterator[InferredTask[Found]]:
        """Yields the inference result of each task, in order, and closes each task's `release`.

        It may read several tasks before it yields the first result. A task's failure is yielded, not raised.

        Raises:
            Stopped: a second stop request.
        """

    def store(self, task: Task, found: Found) -> None:
        """Writes the inference result to the run's folder."""

    def build_labels(self, task: Task, found: Found) -> LabelledTask[Labels]:
        """Returns the labels of a task and its pathway, without saving them.

        Raises:
            TaskError: the labels cannot be made.
        """

    def save(self, task: Task, labelled: LabelledTask[Labels]) -> int | None:
        """Saves the labels, all or nothing. A repeated call has the same effect as one.

        Returns:
            The size of the label row in bytes; None if it is not known.

        Raises:
            TaskError: the labels were not saved.
        """

    def outputs_exist(self, task: Task) -> bool:
        """Returns whether the files of a finished task still exist, so that it need not be repeated."""

    # After the run

    @property
    def warnings(self) -> Sequence[str]:
        """What a user should know even if no task failed; grows during the run."""

    @property
    def shapes(self) -> Sequence[str]:
        """The shapes of the labelled ontology objects; empty unless the agent detects objects."""

    @property
    def device(self) -> str:
        """The model's device, such as `cuda:0`; empty if the model does not report one."""

    @property
    def summary_path(self) -> Path | None:
        """Path of the file about all tasks, `coco.json` or `classifications.csv`; None if there is none."""

    def write_summary(self, path: Path, report: RunReport) -> None:
        """Writes the file about all tasks."""
