"""Creates the components of a run from a config: source, model, sink. Each is created once, when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.assembly.classifier_parts import ClassifierParts, FunctionParts
from prelabel.assembly.detector_parts import DetectorParts
from prelabel.assembly.detectors import LiveDetector
from prelabel.assembly.stored_detector import StoredDetector
from prelabel.config.base import make_router
from prelabel.config.fingerprints import config_fingerprint
from prelabel.config.sections import Config
from prelabel.data.frames import Media
from prelabel.data.ontology import Ontology
from prelabel.encord.source import EncordSource
from prelabel.errors import ConfigError
from prelabel.files.folder_sink import LABELS_ENDING, FolderSink
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import LabelSink, ModelRecord, Task, TaskSource
from prelabel.routing.rules import Router
from prelabel.runtime.files import DRY_RUN
from prelabel.runtime.shared import Shared
from prelabel.store.run_folder import Keyed, RunFolder
from prelabel.store.source import BareSource, RowOptions, RowSink, Source

if TYPE_CHECKING:
    from prelabel.encord.project import EncordProject


@dataclass(frozen=True)
class Assembly:
    """The components of a run.

    Attributes:
        config: the config of the run.
        folder: the config's folder, which plug-in paths are relative to.
        dry_run: whether labels go to files below the output, and nothing on the platform changes.
        store: the output folder of this run.
        found_store: the folder with the raw detections; differs from `store` if a dry run relabels a run's detections.
        named_source: the source that the config names.
        detection: the components of a detection agent.
        classification: the components of a classification agent.
        function: the components of an agent that calls a function.
        stored: the detector of earlier runs, if their raw detections are labelled again; otherwise None.
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

    # Source and pathways of tasks

    @cached_property
    def source(self) -> Source:
        """The source of the tasks."""
        return self.named_source if self.stored is None else self.stored.stored_tasks()

    @cached_property
    def router(self) -> Router:
        """The router, which chooses a task's pathway. If tasks do not move, the rules' result is only reported."""
        config = self.config
        if self.stored is not None:
            return make_router((), None, None)
        pathway = config.pathway if self.named_source.moves_tasks else None
        return make_router(config.routing, pathway, config.priority)

    @property
    def notes(self) -> list[str]:
        """Keys of the config that have no effect, in words."""
        notes, config = [], self.config
        if config.pathway is not None and not self.named_source.moves_tasks:
            notes.append(
                f"pathway: {config.pathway!r} has no effect: files are at no stage, so tasks stay where they are"
            )
        if config.tracker.model_fields_set and config.labels.instances != "tracks":
            notes.append("tracker: has no effect: it links boxes only with labels.instances: tracks")
        return notes

    @property
    def stage(self) -> str:
        """The title or uuid of the agent stage, as in the config; empty without a workflow."""
        return self.config.source.stage_name

    @property
    def on_platform(self) -> bool:
        """Whether the tasks belong to an Encord project."""
        return isinstance(self.named_source, EncordSource)

    @property
    def encord(self) -> EncordProject:
        """The Encord project.

        Raises:
            ConfigError: the tasks come from another source.
        """
        if not isinstance(self.named_source, EncordSource):
            raise ConfigError(f"source.use: got {self.config.source.use!r}, expected encord")
        return self.named_source.project

    def open_media(self, task: Task) -> AbstractContextManager[Media]:
        """Returns a context with the media of a task on this machine, also if the task is a stored one.

        Raises:
            FetchError: the media cannot be fetched.
        """
        if self.stored is None:
            return task.open()
        found = self._tasks_with_media.get(task.key)
        return task.open() if found is None else found.open()  # a stored task says that it cannot be read

    @cached_property
    def _tasks_with_media(self) -> Mapping[str, Task]:
        return self.named_source.find_tasks({task.key for task in self.source.tasks()})

    # Agent

    @property
    def parts(self) -> DetectorParts | ClassifierParts | FunctionParts:
        """The components of the agent that the config selects."""
        match self.config.agent_kind:
            case "detection":
                return self.detection
            case "classification":
                return self.classification
            case "function":
                return self.function

    @property
    def model(self) -> ModelRecord:
        """The model that makes the labels."""
        return self.parts.model

    @property
    def ontology(self) -> Ontology:
        """The ontology of the source, or one made from the model's classes."""
        return self.parts.ontology

    @property
    def ignored_keys(self) -> list[str]:
        """The config keys that changed after the stored detections were made, and have no effect on them."""
        provider = self.detection.provider
        return provider.ignored_keys if isinstance(provider, StoredDetector) else []

    # Labels

    @property
    def output(self) -> Path:
        """The folder that a run writes to."""
        return self.store.output

    @cached_property
    def sink(self) -> LabelSink:
        """The sink of the labels: the user's sink, or else `rows`."""
        if self.config.sink is None or self.dry_run:
            return self.rows
        plugin = load_plugin("sink", self.config.sink.use, self.folder)
        sink = plugin.build(options=self.config.sink.options)
        if not isinstance(sink, LabelSink):
            raise ConfigError(f"sink.use: {plugin.use!r} lacks `write(task, info, detections)`")
        return sink

    @cached_property
    def rows(self) -> RowSink:
        """The sink of label rows: the source's own, or else files."""
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
        """The sink that writes label rows to files below the output."""
        return FolderSink(self.store, self.ontology, self.parts.label_map, self.row_options)

    def expected_row(self, task: Task) -> bytes:
        """Returns the label row for which a worker makes a task's labels; empty if it makes none."""
        has_own_sink = self.config.sink is not None and not self.dry_run
        return b"" if has_own_sink or self.config.agent_kind != "detection" else self.rows.expected_row(task)

    @property
    def row_options(self) -> RowOptions:
        """The options for writing label rows."""
        return RowOptions(int(self.config.labels.max_row_mb * 1e6), self.config.labels.skips_begun)

    @property
    def writes_files(self) -> bool:
        """Whether label rows go to files below the output."""
        return self.dry_run or (self.config.sink is None and not self.named_source.keeps_rows)

    def label_path(self, task: Keyed) -> Path | None:
        """Returns the file of a task's label row; None if rows are not files."""
        return self.store.path(task, LABELS_ENDING) if self.writes_files else None


def assemble(
    config: Config,
    folder: Path,
    dry_run: bool = False,
    shared: Shared | None = None,
    find_ontology: Callable[[], Ontology | None] | None = None,
) -> Assembly:
    """Returns the components of a run.

    Args:
        config: the config of the run.
        folder: the config's folder, which plug-in paths are relative to.
        dry_run: write labels to files below the output, and change nothing on the platform.
        shared: components that other stages of the same run may use too.
        find_ontology: returns the ontology, in place of the source's.
    """
    shared = Shared() if shared is None else shared
    store = RunFolder(output_of(config, dry_run), None if dry_run else config.source.bucket)
    source = make_source(config, folder, shared)
    find_ontology = find_ontology or cache(partial(_find_ontology, source, config))
    return Assembly(
        config=config,
        folder=folder,
        dry_run=dry_run,
        store=store,
        found_store=store,
        named_source=source,
        detection=DetectorParts(config, folder, LiveDetector(config, folder, find_ontology, shared), find_ontology),
        classification=ClassifierParts(config, folder, find_ontology, shared),
        function=FunctionParts(config, folder, find_ontology),
    )


def assemble_without_detector(config: Config, folder: Path, dry_run: bool = False) -> Assembly:
    """Returns the components of a run without loading the detector. Its metadata comes from the stored detections."""
    live = assemble(config, folder, dry_run)
    stored = StoredDetector(config, folder, live.found_store, live.named_source)
    return replace(live, detection=replace(live.detection, provider=stored))


def assemble_stored(config: Config, folder: Path, dry_run: bool = False) -> Assembly:
    """Returns the components of a run that labels stored detections again.

    A dry run uses the raw detections of real runs. Only if there are none, it uses those of dry runs.
    """
    live = assemble(config, folder, dry_run)
    whole = RunFolder(config.source.run_folder)
    found_store = whole if dry_run and whole.has_ledger else live.store
    stored = StoredDetector(config, folder, found_store, live.named_source)
    return replace(live, found_store=found_store, stored=stored, detection=replace(live.detection, provider=stored))


def make_source(config: Config, folder: Path, shared: Shared) -> Source:
    """Returns the source that a config names.

    A class with `from_config(config, shared)` is built by that method. Any other class gets the section's options.

    Raises:
        ConfigError: the source rejects its options, or lacks `tasks`, `proceed` or `fail`.
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
    """Returns the source's ontology, or else the one in the config's ontology file; None if there is neither."""
    given, file = source.ontology(), config.source.ontology_file
    return Ontology.load(file) if given is None and file is not None else given


def output_of(config: Config, dry_run: bool) -> Path:
    """Returns the folder on this machine that a run of a config writes to."""
    return config.source.run_folder / DRY_RUN if dry_run else config.source.run_folder
