"""From a config to the parts of a run, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prelabel.capabilities import FitsBatches, HasDevice, KeepsUnsureBoxes, model_of, preferred_batch_size
from prelabel.cards import find_card, plugin_for
from prelabel.classifier_parts import ClassifierParts
from prelabel.config import (
    WHETHER_KEYS,
    Config,
    DemoSection,
    DetectorSection,
    EncordSection,
    FolderSection,
    make_router,
)
from prelabel.errors import ConfigError, OntologyError
from prelabel.files import OutputNames
from prelabel.fingerprints import digest_of, reader_decides
from prelabel.frames import VideoInfo
from prelabel.ontology import NO_BOXES, LabelMap, Ontology, build_label_map
from prelabel.plugins import Plugin, load_plugin
from prelabel.protocols import Detector, LabelSink, ModelRecord, TaskSource, Tracker
from prelabel.routing import Router
from prelabel.shared import Shared
from prelabel.tiling import TiledDetector
from prelabel.tracking import Linking

if TYPE_CHECKING:
    from prelabel.encord_api.client import EncordProject
    from prelabel.sinks.encord import EncordSink
    from prelabel.sinks.folder import FolderSink
    from prelabel.sinks.model_note import ModelNote

DEFAULT_BATCH_SIZE = 8
ULTRALYTICS_ENDINGS = (".pt", ".onnx", ".engine", ".torchscript", "_openvino_model", "_openvino_model/")


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, each made when first asked for, and once.

    Attributes:
        config: what to make.
        folder: the config's folder, to which plug-in paths are relative.
        dry_run: labels go to files below the output, and nothing on the platform changes.
        shared: parts that other assemblies of the same run may have, too.
    """

    config: Config
    folder: Path
    dry_run: bool = False
    shared: Shared = field(default_factory=Shared)

    @property
    def output(self) -> Path:
        """Where everything that a run writes goes."""
        output = self.config.source.output
        return output / "dry-run" if self.dry_run else output

    @property
    def found_in(self) -> Path:
        """Where what the model found is kept."""
        return self.output

    @property
    def stage(self) -> str:
        """Title or uuid of the agent stage, as the config has it; empty of files."""
        source = self.config.source
        return source.stage if isinstance(source, EncordSection) else ""

    @cached_property
    def names(self) -> OutputNames:
        """Which task's files have which name."""
        return OutputNames(self.output)

    @cached_property
    def found_names(self) -> OutputNames:
        """Which task's files have which name there where what was found is kept."""
        return self.names if self.found_in == self.output else OutputNames(self.found_in)

    @property
    def detector_section(self) -> DetectorSection:
        """The config's.

        Raises:
            ConfigError: it has none, and what was asked for needs boxes.
        """
        if self.config.detector is None:
            raise ConfigError("detector: is missing: boxes come from a detector, and this config has none")
        return self.config.detector

    @cached_property
    def detector_plugin(self) -> Plugin:
        """What the config names as its detector, or as the model card does."""
        use = self.detector_section.use or detector_for(self.detector_section.options.get("weights"))
        return load_plugin("detector", use, self.folder)

    @cached_property
    def detector(self) -> Detector:
        """What frames go through: the detector, in tiles where the config asks for them."""
        tiles = self.detector_section.tiles
        return self.bare_detector if tiles is None else TiledDetector(self.bare_detector, tiles)

    @cached_property
    def bare_detector(self) -> Detector:
        """The detector as it was built, its weights loaded: it knows what there is to know of the model."""
        options = self.detector_section.options
        built = self.shared.once(
            ("detector", self.detector_plugin.use, options), lambda: self.detector_plugin.build(options=options)
        )
        if not isinstance(built, Detector):
            raise ConfigError(f"detector.use: {self.detector_plugin.use!r} lacks `class_names` or `detect(batch)`")
        if not built.class_names:
            raise ConfigError(f"detector.use: {self.detector_plugin.use!r} has no class_names")
        return built

    @cached_property
    def agent_plugin(self) -> Plugin:
        """What the config names as its agent.

        Raises:
            ConfigError: it names none.
        """
        if self.config.agent is None:
            raise ConfigError("agent: is missing: this config has no function of your own")
        return load_plugin("agent", self.config.agent.use, self.folder)

    @cached_property
    def classification(self) -> ClassifierParts:
        """The parts of an agent that classifies."""
        return ClassifierParts(self.config, self.folder, lambda: self.given_ontology, self.shared)

    @cached_property
    def model(self) -> ModelRecord:
        """Which model makes the labels."""
        if self.config.agent is not None:
            return self.agent_plugin.model
        if self.config.classifier is not None:
            return self.classification.model
        return model_of(self.bare_detector) or self.detector_plugin.model

    @property
    def threshold(self) -> float | None:
        """The confidence from which boxes become labels, of a detector that gives lower ones too; None of others."""
        return self.bare_detector.conf if isinstance(self.bare_detector, KeepsUnsureBoxes) else None

    @property
    def lowest_conf(self) -> float | None:
        """The confidence down to which such a detector gives boxes; None of others."""
        return self.bare_detector.lowest_conf if isinstance(self.bare_detector, KeepsUnsureBoxes) else None

    @property
    def device(self) -> str | None:
        """Where the detector wants its frames, such as `cuda:0`; None where it does not say."""
        return str(self.bare_detector.device) if isinstance(self.bare_detector, HasDevice) else None

    @property
    def batch_size(self) -> int:
        """Frames a batch: the config's, else what the detector prefers."""
        size = self.detector_section.batch_size
        return preferred_batch_size(self.bare_detector, DEFAULT_BATCH_SIZE) if size == "auto" else size

    @property
    def fit_batch(self) -> Callable[[int, int], int] | None:
        """What gives the frames a batch for a height and a width, where a detector can and the config lets it."""
        detector, size = self.bare_detector, self.detector_section.batch_size
        return detector.fit_batch if size == "auto" and isinstance(detector, FitsBatches) else None

    @cached_property
    def encord(self) -> EncordProject:
        """The project on the platform."""
        from prelabel.encord_api.connection import connect

        source = self.config.source
        assert isinstance(source, EncordSection)
        made_of = ("project", source.project_hash, source.domain)
        return self.shared.once(made_of, lambda: connect(source.project_hash, source.domain or None))

    @cached_property
    def source(self) -> TaskSource:
        """Where tasks come from."""
        section = self.config.source
        if isinstance(section, FolderSection):
            from prelabel.sources.folder import FolderSource

            return FolderSource(section.path, section.output)
        if isinstance(section, DemoSection):
            from prelabel.sources.demo import DemoSource

            return DemoSource(section.output, section.seed, section.num_frames)
        from prelabel.sources.encord import LABELLED_KINDS, EncordSource

        cache = section.output / ".prelabel" / "cache"
        return EncordSource(
            self.encord,
            section.stage,
            cache,
            int(section.cache_gb * 1e9),
            fetch_workers=section.fetch_workers,
            on_failure=self.config.on_failure,
            with_metadata=self.router.asks_metadata or self.config.agent is not None,
            kinds=None if self.config.agent is not None else LABELLED_KINDS,
            skips_begun=self.skips_begun,
            is_shuffled=section.order == "shuffled",
        )

    @cached_property
    def given_ontology(self) -> Ontology | None:
        """The project's or the config's; None where it is made from the model's classes."""
        section = self.config.source
        if isinstance(section, EncordSection):
            return self.encord.ontology()
        if isinstance(section, FolderSection) and section.ontology is not None:
            return Ontology.load(section.ontology)
        return None

    @cached_property
    def ontology(self) -> Ontology:
        """What may be labelled: the project's, the config's, or made from the model's classes."""
        if self.config.classifier is not None:
            return self.classification.ontology
        if self.given_ontology is not None:
            return self.given_ontology
        if self.config.agent is not None:
            raise OntologyError("source.ontology: is missing: the function gets label rows, and these need one")
        named = dict(self.config.labels.classes)
        targets = [named.get(name, name) for name in self.detector.class_names]
        return Ontology.from_classes(list(dict.fromkeys(target for target in targets if target is not None)))

    @cached_property
    def label_map(self) -> LabelMap:
        """Which class becomes which object."""
        labels = self.config.labels
        return build_label_map(self.detector.class_names, self.ontology, labels.classes, unmapped=labels.unmapped)

    @cached_property
    def tracker_plugin(self) -> Plugin:
        """What the config names as its tracker."""
        return load_plugin("tracker", self.config.tracker.use, self.folder)

    @property
    def linking(self) -> Linking | None:
        """How boxes become tracks; None where each is an instance of its own."""
        if self.config.labels.instances == "per_frame":
            return None
        return Linking(
            new_tracker=self._new_tracker,
            max_gap_seconds=self.config.tracker.max_gap_seconds,
            min_length=self.config.tracker.min_length,
            smooth_seconds=self.config.tracker.smooth_seconds,
            keyframes=self.config.labels.keyframes,
        )

    def _new_tracker(self, info: VideoInfo) -> Tracker:
        built = self.tracker_plugin.build(info, options=self.config.tracker.options)
        if not isinstance(built, Tracker):
            raise ConfigError(f"tracker.use: {self.tracker_plugin.use!r} lacks `update(detections, frame_index)`")
        return built

    @cached_property
    def sink(self) -> LabelSink:
        """Where labels go."""
        if self.config.sink is not None and not self.dry_run:
            plugin = load_plugin("sink", self.config.sink.use, self.folder)
            sink: LabelSink = plugin.build(options=self.config.sink.options)
            return sink
        return self.rows

    @cached_property
    def rows(self) -> EncordSink | FolderSink:
        """Where label rows are: on the platform, or in files."""
        label_map = self.label_map if self.config.detector is not None else NO_BOXES
        if not self.writes_files:
            from prelabel.sinks.encord import EncordSink

            note = self.model_note
            return EncordSink(self.encord, label_map, self.max_row_bytes, note, skips_begun=self.skips_begun)
        from prelabel.sinks.folder import FolderSink

        return FolderSink(
            self.output, self.ontology, label_map, self.max_row_bytes, self.names, skips_begun=self.skips_begun
        )

    @cached_property
    def router(self) -> Router:
        """Which pathway a task takes; of files, which have nowhere to go, only what rules would say is of interest."""
        moves = isinstance(self.config.source, EncordSection)
        return make_router(self.config.routing, self.config.pathway if moves else None, self.config.priority)

    @property
    def writes_files(self) -> bool:
        """Whether labels go to files below the output."""
        return self.dry_run or (self.config.sink is None and not isinstance(self.config.source, EncordSection))

    @property
    def skips_begun(self) -> bool:
        """Whether rows that somebody has begun to work on are left as they are."""
        return self.config.labels.if_begun == "skip"

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
        from prelabel.sinks.model_note import ModelNote

        record = {
            "model": self.model.name,
            "weights_sha256": self.model.weights_sha256,
            "config_sha256": self.config.digest(),
        }
        return ModelNote(self.encord, record)

    @cached_property
    def raw_fingerprint(self) -> str:
        """Of all that decides what the detector finds in given media."""
        decides: dict[str, Any] = {
            **reader_decides(self.config, self.folder),
            "detector": self._detector_decides,
            "weights_sha256": self.model.weights_sha256,
            "plugin_sha256": self.detector_plugin.source_sha256,
            "class_names": list(self.detector.class_names),
            "card": self._card_decides,
        }
        return digest_of(decides)

    @property
    def _detector_decides(self) -> dict[str, Any]:
        """The detector's options, without the threshold that is applied to what it gives."""
        options = self.detector_section.model_dump(mode="json", exclude={"batch_size"})
        if self.threshold is None:
            return options
        unbound = {name: value for name, value in options.items() if name not in ("conf", "keep_conf")}
        return {**unbound, "lowest_conf": self.lowest_conf}

    @property
    def _card_decides(self) -> dict[str, Any] | None:
        """What the model card decides beside the weights."""
        weights = self.detector_section.options.get("weights")
        card = find_card(weights) if isinstance(weights, str) else None
        return card.model_dump(mode="json", include={"use", "builder", "builder_args"}) if card is not None else None

    @cached_property
    def label_fingerprint(self) -> str:
        """Of all that decides what the labels of given media say."""
        decides: dict[str, Any] = {
            "raw": self.raw_fingerprint,
            "threshold": self.threshold,
            "labels": self.config.labels.model_dump(mode="json", exclude=WHETHER_KEYS),
            "ontology": self.ontology.structure,
        }
        if self.linking is not None:
            decides["tracker"] = self.config.tracker.model_dump(mode="json")
            decides["tracker_sha256"] = self.tracker_plugin.source_sha256
        return digest_of(decides)


def detector_for(weights: object) -> str:
    """Returns the detector that loads such weights: the card's, or the one whose files end like this.

    Raises:
        ConfigError: nothing tells.
    """
    endings = dict.fromkeys(ULTRALYTICS_ENDINGS, "ultralytics")
    return plugin_for("detector", weights, "ultralytics, torchvision", endings)
