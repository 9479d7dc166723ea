"""From a config to the parts of a run, each made when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.finders import LiveDetector, Shared
from prelabel.config.base import DemoSection, EncordSection, FolderSection, make_router
from prelabel.config.fingerprints import config_fingerprint
from prelabel.config.sections import Config
from prelabel.data.label_map import NO_BOXES
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, OntologyError
from prelabel.labels.row.own import KINDS_WITH_FRAMES
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import LabelSink, ModelRecord, TaskSource
from prelabel.routing.rules import Router
from prelabel.runtime.files import DRY_RUN
from prelabel.store.run_folder import RunFolder

if TYPE_CHECKING:
    from prelabel.encord.client import EncordProject
    from prelabel.encord.model_note import ModelNote
    from prelabel.encord.sink import EncordSink
    from prelabel.files.folder_sink import FolderSink


@dataclass(frozen=True)
class ProjectParts:
    """What a config's source belongs to.

    Attributes:
        config: whose source it is.
        shared: parts that other assemblies of the same run may have, too.
    """

    config: Config
    shared: Shared = field(default_factory=Shared)

    @cached_property
    def encord(self) -> EncordProject:
        """The project on the platform."""
        from prelabel.encord.connection import connect

        source = self.config.source
        assert isinstance(source, EncordSection)
        made_of = ("project", source.project_hash, source.domain)
        return self.shared.once(made_of, lambda: connect(source.project_hash, source.domain or None))

    @cached_property
    def ontology(self) -> Ontology | None:
        """The project's or the config's; None where it is made from the model's classes."""
        section = self.config.source
        if isinstance(section, EncordSection):
            return self.encord.ontology()
        if isinstance(section, FolderSection) and section.ontology is not None:
            return Ontology.load(section.ontology)
        return None


class TaskParts(Protocol):
    """Where tasks come from, and which way they go."""

    @property
    def source(self) -> TaskSource:
        """Gives the tasks, and moves them."""
        ...

    @property
    def router(self) -> Router:
        """Which pathway a task takes."""
        ...


@dataclass(frozen=True)
class WaitingTasks:
    """The tasks that wait where a config says.

    Attributes:
        config: what to make.
        project: which the source is of.
    """

    config: Config
    project: ProjectParts

    @cached_property
    def source(self) -> TaskSource:
        """Where tasks come from."""
        section = self.config.source
        if isinstance(section, FolderSection):
            from prelabel.files.folder_source import FolderSource

            return FolderSource(section.path, section.output)
        if isinstance(section, DemoSection):
            from prelabel.files.demo import DemoSource

            return DemoSource(section.output)
        return self._waiting_at(section)

    def _waiting_at(self, section: EncordSection) -> TaskSource:
        from prelabel.encord.listing import Wanted
        from prelabel.encord.source import EncordSource, Fetching

        is_shuffled, is_function = section.order == "shuffled", self.config.agent is not None
        fetching = Fetching(
            cache=section.output / ".prelabel" / "cache",
            max_cache_bytes=int(section.cache_gb * 1e9),
            num_workers=section.fetch_workers,
            refuses_begun=self.config.labels.skips_begun,
            refuses_moved=is_shuffled,
        )
        wanted = Wanted(
            kinds=None if is_function else KINDS_WITH_FRAMES,
            with_metadata=self.router.uses_metadata or is_function,
            is_shuffled=is_shuffled,
        )
        return EncordSource(self.project.encord, section.stage, fetching, wanted, self.config.on_failure)

    @cached_property
    def router(self) -> Router:
        """Which pathway a task takes; of files, which have nowhere to go, only what rules would say is of interest."""
        moves = isinstance(self.config.source, EncordSection)
        return make_router(self.config.routing, self.config.pathway if moves else None, self.config.priority)


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, each made when first asked for, and once: tasks, a model, a sink.

    Attributes:
        config: what to make.
        folder: the config's folder, to which plug-in paths are relative.
        dry_run: labels go to files below the output, and nothing on the platform changes.
        store: the output folder of this run.
        found_store: the folder with the raw detections; another one when a dry run relabels what a run has found.
        project: which the source is of.
        tasks: where tasks come from, and which way they go.
        detection: the parts of an agent that detects.
        classification: the parts of an agent that classifies.
    """

    config: Config
    folder: Path
    dry_run: bool
    store: RunFolder
    found_store: RunFolder
    project: ProjectParts
    tasks: TaskParts
    detection: DetectorParts
    classification: ClassifierParts

    @property
    def output(self) -> Path:
        """Where everything that a run writes goes."""
        return self.store.output

    @property
    def stage(self) -> str:
        """Title or uuid of the agent stage, as the config has it; empty of files."""
        source = self.config.source
        return source.stage if isinstance(source, EncordSection) else ""

    @property
    def encord(self) -> EncordProject:
        """The project on the platform."""
        return self.project.encord

    @cached_property
    def source(self) -> TaskSource:
        """Where tasks come from."""
        return self.tasks.source

    @property
    def router(self) -> Router:
        """Which pathway a task takes."""
        return self.tasks.router

    @cached_property
    def agent_plugin(self) -> Plugin:
        """What the config names as its agent.

        Raises:
            ConfigError: it names none.
        """
        if self.config.agent is None:
            raise ConfigError("agent: is missing: this config has no function of your own")
        return load_plugin("agent", self.config.agent.use, self.folder)

    @property
    def model(self) -> ModelRecord:
        """Which model makes the labels."""
        if self.config.agent is not None:
            return self.agent_plugin.model
        return self.classification.model if self.config.classifier is not None else self.detection.finder.model

    @property
    def ontology(self) -> Ontology:
        """What may be labelled: the project's, the config's, or made from the model's classes."""
        if self.config.classifier is not None:
            return self.classification.ontology
        if self.config.agent is None:
            return self.detection.ontology
        if self.project.ontology is None:
            raise OntologyError("source.ontology: is missing: the function gets label rows, and these need one")
        return self.project.ontology

    @cached_property
    def sink(self) -> LabelSink:
        """Where labels go."""
        if self.config.sink is not None and not self.dry_run:
            plugin = load_plugin("sink", self.config.sink.use, self.folder)
            sink = plugin.build(options=self.config.sink.options)
            if not isinstance(sink, LabelSink):
                raise ConfigError(f"sink.use: {plugin.use!r} lacks `write(task, info, detections)`")
            return sink
        return self.rows

    @cached_property
    def rows(self) -> EncordSink | FolderSink:
        """Where label rows are: on the platform, or in files."""
        label_map = self.detection.label_map if self.config.detector is not None else NO_BOXES
        skips_begun = self.config.labels.skips_begun
        if not self.writes_files:
            from prelabel.encord.sink import EncordSink

            return EncordSink(self.encord, label_map, self.max_row_bytes, self.model_note, skips_begun=skips_begun)
        from prelabel.files.folder_sink import FolderSink

        return FolderSink(self.store, self.ontology, label_map, self.max_row_bytes, skips_begun=skips_begun)

    @property
    def writes_files(self) -> bool:
        """Whether labels go to files below the output."""
        return self.dry_run or (self.config.sink is None and not isinstance(self.config.source, EncordSection))

    @property
    def max_row_bytes(self) -> int:
        """Largest label row that may be written."""
        return int(self.config.labels.max_row_mb * 1e6)

    @property
    def model_note(self) -> ModelNote | None:
        """What puts the model on record beside the labels; None if nothing is to."""
        section = self.config.source
        if not isinstance(section, EncordSection) or not section.record:
            return None
        from prelabel.encord.model_note import ModelNote

        record = {
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "config_sha256": config_fingerprint(self.config),
        }
        return ModelNote(self.encord, record)


def assemble(config: Config, folder: Path, dry_run: bool = False, shared: Shared | None = None) -> Assembly:
    """Returns the parts of a run of a config.

    Args:
        config: what to make.
        folder: the config's, to which plug-in paths are relative.
        dry_run: labels go to files below the output, and nothing on the platform changes.
        shared: parts that other assemblies of the same run may have, too.
    """
    shared = Shared() if shared is None else shared
    project = ProjectParts(config, shared)
    store = RunFolder(output_of(config, dry_run))
    return Assembly(
        config=config,
        folder=folder,
        dry_run=dry_run,
        store=store,
        found_store=store,
        project=project,
        tasks=WaitingTasks(config, project),
        detection=DetectorParts(config, folder, LiveDetector(config, folder, shared), lambda: project.ontology),
        classification=ClassifierParts(config, folder, lambda: project.ontology, shared),
    )


def output_of(config: Config, dry_run: bool) -> Path:
    """Returns where everything that a run of a config writes goes."""
    return config.source.output / DRY_RUN if dry_run else config.source.output
