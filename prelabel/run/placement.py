"""Puts the model of a run into workers, if the config has a section `workers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.assembly.detectors import LiveDetector
from prelabel.config.sections import WorkersSection
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.plugins.protocols import Classifier, Detector
from prelabel.plugins.traits import ModelTraits
from prelabel.run.agents.make import make_agent
from prelabel.run.ray_cluster import check_answers, require_ray
from prelabel.run.workers import RayWorkers


@dataclass(frozen=True)
class WorkersModel:
    """Facts about the model that the workers hold. It cannot infer by itself.

    Attributes:
        workers: hold the model.
    """

    workers: RayWorkers = field(repr=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class id."""
        return self.workers.model.class_names

    @property
    def traits(self) -> ModelTraits:
        """The model's facts."""
        return self.workers.model.traits

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of how the model was loaded."""
        return self.workers.model.warnings

    @property
    def usage(self) -> dict[str, float]:
        """The sum of the workers' usage counters."""
        return self.workers.usage()

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Raises a TypeError, since only the workers detect."""
        raise TypeError("the workers detect")

    def classify(self, images: Sequence[Any]) -> Any:
        """Raises a TypeError, since only the workers classify."""
        raise TypeError("the workers classify")


@dataclass(frozen=True)
class WorkersGeometryModel(WorkersModel):
    """Facts about a detector whose masks, keypoints or rotated boxes must be requested."""

    def with_geometry(self, class_ids: frozenset[int]) -> WorkersGeometryModel:
        """Returns this object, since each worker requests by itself what the labels need."""
        return self


@dataclass(frozen=True)
class WorkersDetector(LiveDetector):
    """The detector that a config names, if it runs in workers."""

    workers: RayWorkers = field(kw_only=True)

    @cached_property
    def detector(self) -> Detector:
        """The facts about the workers' detector; this starts the workers."""
        waits = self.workers.model.waits_for_geometry
        return WorkersGeometryModel(self.workers) if waits else WorkersModel(self.workers)


@dataclass(frozen=True)
class WorkersClassifier(ClassifierParts):
    """The components of a classification agent whose classifier is in workers."""

    workers: RayWorkers = field(kw_only=True)

    @cached_property
    def classifier(self) -> Classifier:
        """The facts about the workers' classifier; this starts the workers."""
        _ = self.workers.model
        return WorkersModel(self.workers)


def use_workers(assembly: Assembly, num_stages: int = 1) -> tuple[Assembly, RayWorkers | None]:
    """Returns the components of a run whose model is in workers, and the workers; None if the config has none.

    Args:
        assembly: the components of a run.
        num_stages: number of stages that take turns on the same GPUs and cores, each with its own workers.
    """
    config = assembly.config
    if config.workers is None:
        return assembly, None
    workers = RayWorkers(config, assembly.folder, assembly.parts.find_ontology, num_stages)
    if config.agent_kind == "function":  # the run finds out whether the function can run in workers
        return assembly, workers
    if config.agent_kind == "detection":
        provider = WorkersDetector(config, assembly.folder, assembly.detection.find_ontology, workers=workers)
        return replace(assembly, detection=replace(assembly.detection, provider=provider)), workers
    parts = WorkersClassifier(config, assembly.folder, assembly.classification.find_ontology, workers=workers)
    return replace(assembly, classification=parts), workers


def labelling_workers(assembly: Assembly, num: int) -> RayWorkers:
    """Returns workers that label stored detections. They have no model and no GPU.

    Args:
        assembly: from `assemble_stored`; its agent is prepared.
        num: number of workers.
    """
    assert assembly.stored is not None
    section = (assembly.config.workers or WorkersSection()).model_copy(update={"num": num, "gpus": 0.0})
    config = assembly.config.model_copy(update={"workers": section})
    return RayWorkers(config, assembly.folder, assembly.parts.find_ontology, detector=assembly.stored.known)


def start_workers(assembly: Assembly, workers: RayWorkers | None) -> None:
    """Starts the workers of a run, if it has some and its agent can run there.

    Raises:
        SetupError: they do not start.
    """
    if workers is not None and not make_agent(assembly).stays_because:
        _ = workers.model


def describe_workers(assembly: Assembly) -> str:
    """Describes where the model or function of a config with workers will run.

    Raises:
        MachineError: Ray is not installed.
        ConfigError: no cluster answers at the address.
    """
    section = assembly.config.workers
    assert section is not None
    if reason := make_agent(assembly).stays_because:
        return f"none: this process calls the function, because {reason}"
    require_ray()
    if section.address is not None:
        check_answers(section.address)
    num = "one per GPU" if section.num == "auto" else f"{section.num}"
    place = "Ray, started on this machine" if section.address is None else f"the Ray cluster at {section.address}"
    return f"{num}, on {place}"
