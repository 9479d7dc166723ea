"""From a config to the parts of a run: source, model, sink. Each part is made when it is first asked for, and once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.assembly.classifier_parts import ClassifierParts, FunctionParts
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.detectors import LiveDetector
from prelabel.assembly.stored import StoredDetector
from prelabel.config.base import make_router
from prelabel.config.fingerprints import config_fingerprint
from prelabel.config.sections import Config
from prelabel.data.ontology import Ontology
from prelabel.encord.source import EncordSource
from prelabel.errors import ConfigError
from prelabel.files.folder_sink import LABELS_ENDING, FolderSink
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import LabelSink, ModelRecord, TaskSource
from prelabel.routing.rules import Router
from prelabel.runtime.files import DRY_RUN
from prelabel.runtime.shared import Shared
from prelabel.store.run_folder import Keyed, RunFolder
from prelabel.store.source import BareSource, RowOptions, RowSink, Source

if TYPE_CHECKING:
    from prelabel.encord.project import EncordProject


@dataclass(frozen=True)
class Assembly:
    """The parts of a run.

    Attributes:
        config: what to make.
        folder: the config's, to which plug-in paths are relative.
        dry_run: labels go to files below the output, and nothing on the platform changes.
        store: the output folder of this run.
        found_store: the folder with the raw detections; another one when a dry run relabels what a run has found.
        named_source: the source that the config names.
        detection: the parts of an agent that detects.
        classification: the parts of an agent that classifies.
        function: the parts of an agent that calls a function.
        stored: the detector of earlier runs, where their raw detections are labelled again.
    """

    config: Config
    folder: Path
    dry_run: bool
    store: RunFolder
    found_store: RunFolder
    named_source: Source
    detection: DetectorParts
    classification: ClassifierParts
    function: FunctionParts
    stored: StoredDetector | None = None

    # Where tasks come from, and where they go

    @cached_property
    def source(self) -> Source:
        """Gives the tasks."""
        return self.named_source if self.stored is None else self.stored.stored_tasks()

    @cached_property
    def router(self) -> Router:
        """Chooses the pathway of a task. For tasks that do not move, it gives what the rules say, to report it."""
        config = self.config
        if self.stored is not None:
            return make_router((), None, None)
        pathway = config.pathway if self.named_source.moves_tasks else None
        return make_router(config.routing, pathway, config.priority)

    @property
    def stage(self) -> str:
        """Title or uuid of the agent stage, as the config has it; empty without a workflow."""
        return self.config.source.stage_name

    @property
    def on_platform(self) -> bool:
        """Whether tasks are those of an Encord project."""
        return isinstance(self.named_source, EncordSource)

    @property
    def encord(self) -> EncordProject:
        """The project on the platform.

        Raises:
            ConfigError: tasks come from elsewhere.
        """
        if not isinstance(self.named_source, EncordSource):
            raise ConfigError(f"source.use: got {self.config.source.use!r}, expected encord")
        return self.named_source.project

    # What is done with a task

    @property
    def parts(self) -> DetectorParts | ClassifierParts | FunctionParts:
        """The parts of the config's kind of agent."""
        match self.config.agent_kind:
            case "detection":
                return self.detection
            case "classification":
                return self.classification
            case "function":
                return self.function

    @property
    def model(self) -> ModelRecord:
        """Which model makes the labels."""
        return self.parts.model

    @property
    def ontology(self) -> Ontology:
        """What may be labelled: the source's ontology, or one made from the model's classes."""
        return self.parts.ontology

    @property
    def ignored_keys(self) -> list[str]:
        """The config's keys that have changed since the stored detections were made, and do not change these."""
        provider = self.detection.provider
        return provider.ignored_keys if isinstance(provider, StoredDetector) else []

    # Where labels go

    @property
    def output(self) -> Path:
        """Where a run writes everything."""
        return self.store.output

    @cached_property
    def sink(self) -> LabelSink:
        """Where labels go: the user's own sink, or `rows`."""
        if self.config.sink is None or self.dry_run:
            return self.rows
        plugin = load_plugin("sink", self.config.sink.use, self.folder)
        sink = plugin.build(options=self.config.sink.options)
        if not isinstance(sink, LabelSink):
            raise ConfigError(f"sink.use: {plugin.use!r} lacks `write(task, info, detections)`")
        return sink

    @cached_property
    def rows(self) -> RowSink:
        """Where label rows are: the source's own place, or files."""
        if self.named_source.keeps_rows and not self.dry_run:
            record = {
                "model": self.model.name,
                "weights_sha256": self.model.weights_sha256,
                "config_sha256": config_fingerprint(self.config),
            }
            return self.named_source.row_sink(self.parts.label_map, replace(self.row_options, model_record=record))
        return self.file_rows

    @cached_property
    def file_rows(self) -> FolderSink:
        """Label rows in files below the output."""
        return FolderSink(self.store, self.ontology, self.parts.label_map, self.row_options)

    @property
    def row_options(self) -> RowOptions:
        """How label rows are written."""
        return RowOptions(int(self.config.labels.max_row_mb * 1e6), self.config.labels.skips_begun)

    @property
    def writes_files(self) -> bool:
        """Whether label rows go to files below the output."""
        return self.dry_run or (self.config.sink is None and not self.named_source.keeps_rows)

    def label_path(self, task: Keyed) -> Path | None:
        """Returns the file of a task's label row; None where rows are not files."""
        return self.store.path(task, LABELS_ENDING) if self.writes_files else None


def assemble(config: Config, folder: Path, dry_run: bool = False, shared: Shared | None = None) -> Assembly:
    """Returns the parts of a run of a config.

    Args:
        config: what to make.
        folder: the config's, to which plug-in paths are relative.
        dry_run: labels go to files below the output, and nothing on the platform changes.
        shared: parts that other stages of the same run may use too.
    """
    shared = Shared() if shared is None else shared
    store = RunFolder(output_of(config, dry_run))
    source = make_source(config, folder, shared)
    find_ontology = partial(_find_ontology, source, config)
    return Assembly(
        config=config,
        folder=folder,
        dry_run=dry_run,
        store=store,
        found_store=store,
        named_source=source,
        detection=DetectorParts(config, folder, LiveDetector(config, folder, shared), find_ontology),
        classification=ClassifierParts(config, folder, find_ontology, shared),
        function=FunctionParts(config, folder, find_ontology),
    )


def assemble_without_detector(config: Config, folder: Path, dry_run: bool = False) -> Assembly:
    """Returns the parts of a config without loading its detector: what is known of it is stored with its detections."""
    live = assemble(config, folder, dry_run)
    stored = StoredDetector(config, folder, live.found_store, live.named_source)
    return replace(live, detection=replace(live.detection, provider=stored))


def assemble_stored(config: Config, folder: Path, dry_run: bool = False) -> Assembly:
    """Returns the parts of a run that labels again what earlier runs detected.

    A dry run takes the raw detections of other runs, and those of dry runs only where there are no others.
    """
    live = assemble(config, folder, dry_run)
    whole = RunFolder(config.source.output)
    found_store = whole if dry_run and whole.has_ledger else live.store
    stored = StoredDetector(config, folder, found_store, live.named_source)
    return replace(live, found_store=found_store, stored=stored, detection=replace(live.detection, provider=stored))


def make_source(config: Config, folder: Path, shared: Shared) -> Source:
    """Returns the source that a config names.

    A class with `from_config(config, shared)` is built by that, any other from the section's own options.

    Raises:
        ConfigError: it does not take its options, or lacks `tasks`, `proceed` or `fail`.
    """
    section = config.source
    plugin = load_plugin("source", section.use, folder, section.own_keys)
    from_config = getattr(plugin.factory, "from_config", None)
    made = plugin.build(options=section.options) if from_config is None else from_config(config, shared)
    if isinstance(made, Source):
        return made
    if not isinstance(made, TaskSource):
        raise ConfigError(
            f"source.use: {plugin.use!r} lacks `tasks()`, `proceed(task, pathway)` or `fail(task, reason)`"
        )
    return BareSource(made)


def _find_ontology(source: Source, config: Config) -> Ontology | None:
    """Returns the source's own ontology, else that of the file that the config names; None if there is neither."""
    given, file = source.ontology(), config.source.ontology_file
    return Ontology.load(file) if given is None and file is not None else given


def output_of(config: Config, dry_run: bool) -> Path:
    """Returns where a run of a config writes everything."""
    return config.source.output / DRY_RUN if dry_run else config.source.output
