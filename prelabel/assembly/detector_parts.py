"""The components of a detection agent. Each is created when it is first used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.assembly.detectors import LiveDetector, detector_plugin, detector_section
from prelabel.assembly.stored_detector import KnownDetector, StoredDetector
from prelabel.config.fingerprints import detection_key_hashes, fingerprint, values_affecting
from prelabel.config.sections import Config
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, OutputSpec
from prelabel.data.label_map import MASK_SHAPES, LabelMap, build_label_map
from prelabel.data.ontology import BOX_SHAPES, Ontology
from prelabel.data.words import objects_by_word
from prelabel.errors import ConfigError
from prelabel.inference.refine import Refinement
from prelabel.labels.tracking import Linking
from prelabel.models.replicas import count_streams, on_streams
from prelabel.models.tiling import TiledDetector
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Detector, ModelRecord, Refiner, ShotTracker, Tracker
from prelabel.plugins.traits import has_method, traits_of

DEFAULT_BATCH_SIZE = 8


@dataclass(frozen=True)
class DetectorParts:
    """The detector, ontology, label map and tracker of a config.

    Attributes:
        config: a config with a detector.
        folder: the config's folder, which plug-in paths are relative to.
        provider: provides the detector and facts about it, or only facts about the detector of earlier runs.
        find_ontology: returns the source's ontology; None if it must be made from the model's classes.
    """

    config: Config
    folder: Path
    provider: LiveDetector | StoredDetector | KnownDetector
    find_ontology: Callable[[], Ontology | None]

    @cached_property
    def detector(self) -> Detector:
        """The detector that a run calls, with replicas on a CPU, and with tiles if the config sets them."""
        section = detector_section(self.config)
        detector = on_streams(self.asked_detector, self.num_replicas)
        return detector if section.tiles is None else TiledDetector(detector, section.tiles)

    @property
    def model(self) -> ModelRecord:
        """The detector's model."""
        return self.provider.model

    @cached_property
    def asked_detector(self) -> Detector:
        """The detector, set to output the masks, keypoints or rotated boxes that the labels need."""
        detector = self.provider.detector
        if self._asked and has_method(detector, "with_geometry"):
            return detector.with_geometry(self._asked)
        return detector

    @property
    def _asked(self) -> frozenset[int]:
        """Class ids for which geometry is requested; empty if the detector outputs it without a request."""
        waits = has_method(self.provider.detector, "with_geometry")
        return self.label_map.wants_geometry if waits else frozenset()

    @property
    def given_geometry(self) -> OutputSpec:
        """What the detector outputs in addition to boxes."""
        waits = has_method(self.provider.detector, "with_geometry")
        return BOXES_ONLY if waits and not self._asked else traits_of(self.provider.detector).output

    @cached_property
    def raw_fingerprint(self) -> str:
        """The hash of everything that affects the raw detections, apart from the media."""
        found = self.provider.fingerprint
        return fingerprint({"found": found, "geometry": sorted(self._asked)}) if self._asked else found

    @cached_property
    def detection_key_hashes(self) -> dict[str, str]:
        """Hashes of the config values that affect the raw detections, by key."""
        return detection_key_hashes(self.config, detector_plugin(self.config, self.folder))

    @property
    def device(self) -> str | None:
        """The device on which the detector expects frames, such as `cuda:0`; None if it states none."""
        return traits_of(self.provider.detector).device

    @property
    def batch_size(self) -> int:
        """Frames per batch: the config's number, or else the detector's."""
        size = detector_section(self.config).batch_size
        return (traits_of(self.provider.detector).batch_size or DEFAULT_BATCH_SIZE) if size == "auto" else size

    @cached_property
    def num_replicas(self) -> int:
        """The number of replicas, which compute parts of a batch at the same time."""
        return count_streams(self.provider.detector, detector_section(self.config).replicas)

    @property
    def fit_batch(self) -> Callable[[int, int], int] | None:
        """A function that returns the batch size for a height and width; None if the batch size is fixed."""
        detector, size = self.provider.detector, detector_section(self.config).batch_size
        return detector.fit_batch if size == "auto" and has_method(detector, "fit_batch") else None

    @cached_property
    def ontology(self) -> Ontology:
        """The ontology of the source, or one made from the detector's classes."""
        given = self.find_ontology()
        if given is not None:
            return given
        named = self._named_objects
        detector = self.provider.detector
        targets = [named.get(name, name) for name in detector.class_names]
        names = list(dict.fromkeys(target for target in targets if target is not None))
        offer, renamed = traits_of(detector).output, self.config.labels.keypoints
        points = [renamed.get(name, name) for name in offer.keypoint_names]
        if self.config.refine is not None:
            return Ontology.from_classes(names, shape=MASK_SHAPES[0])
        shape = offer.shapes[0] if offer.kind is not None and (points or offer.kind != "keypoints") else BOX_SHAPES[0]
        return Ontology.from_classes(names, shape=shape, point_names=points)

    @cached_property
    def _named_objects(self) -> dict[str, str | None]:
        """The ontology objects of the classes for which the config names one.

        Raises:
            ConfigError: stored detections lack a word in `labels.prompts`, since it was added later.
        """
        labels, class_names = self.config.labels, self.provider.detector.class_names
        by_word = objects_by_word(labels.prompts)
        if detector_section(self.config).options.get("words") is not None:
            by_word = {word: name for word, name in by_word.items() if word in class_names}
        added = next((word for word in by_word if word not in class_names), None)
        if added is not None:
            raise ConfigError(f"labels.prompts: nothing has looked for {added!r} yet: `prelabel run CONFIG` first")
        return {**by_word, **labels.classes}

    @cached_property
    def label_map(self) -> LabelMap:
        """The mapping from classes to ontology objects."""
        labels = self.config.labels
        return build_label_map(
            self.provider.detector.class_names,
            self.ontology,
            self._named_objects,
            unmapped=labels.unmapped,
            offer=traits_of(self.provider.detector).output,
            keypoints=labels.keypoints,
            refine=None if self.config.refine is None else self.config.refine.objects or "all",
        )

    @cached_property
    def _refine_plugin(self) -> Plugin | None:
        section = self.config.refine
        return None if section is None else load_plugin("refine", section.use, self.folder, section.own_keys)

    @cached_property
    def refinement(self) -> Refinement | None:
        """How the boxes of labels become masks; None if the config has no section `refine`."""
        section, plugin = self.config.refine, self._refine_plugin
        if section is None or plugin is None:
            return None
        built = plugin.build(options=section.options)
        if not isinstance(built, Refiner):
            raise ConfigError(f"refine.use: {plugin.use!r} lacks `refine(batch, boxes)`")
        return Refinement(built, self.config.reader, self.folder, self.config.frames, section.batch_size)

    @property
    def refine_model(self) -> ModelRecord | None:
        """The model that makes the masks; None if none does."""
        if self.refinement is None or self._refine_plugin is None:
            return None
        return traits_of(self.refinement.refiner).model or self._refine_plugin.model

    @cached_property
    def tracker_plugin(self) -> Plugin:
        """The plug-in of the tracker that the config names."""
        section = self.config.tracker
        return load_plugin("tracker", section.use, self.folder, section.own_keys)

    @cached_property
    def linking(self) -> Linking | None:
        """How boxes become tracks; None if each box becomes its own object instance."""
        if self.config.labels.instances == "per_frame":
            return None
        return Linking(
            new_tracker=self._new_tracker,
            max_gap_seconds=self.config.tracker.max_gap_seconds,
            limits=self.config.tracker.limits,
            smooth_seconds=self.config.tracker.smooth_seconds,
            keyframes=self.config.labels.keyframes,
        )

    def _new_tracker(self, info: VideoInfo) -> Tracker | ShotTracker:
        built = self.tracker_plugin.build(info, options=self.config.tracker.options)
        if not isinstance(built, Tracker | ShotTracker):
            use = self.tracker_plugin.use
            raise ConfigError(f"tracker.use: {use!r} lacks `update(detections, frame_index)` and `link(detections)`")
        return built

    @cached_property
    def label_fingerprint(self) -> str:
        """The hash of everything that affects the labels, apart from the media."""
        return self.label_fingerprint_of(self.raw_fingerprint)

    def label_fingerprint_of(self, raw_fingerprint: str) -> str:
        """Returns the hash of everything that affects the labels made from given raw detections.

        Args:
            raw_fingerprint: fingerprint of the raw detections, which may come from another config.
        """
        decides: dict[str, Any] = {
            "raw": raw_fingerprint,
            "threshold": self.provider.threshold,
            "labels": values_affecting(self.config.labels, Affects.LABELS),
            "ontology": self.ontology.structure,
        }
        if self.linking is not None:
            decides["tracker"] = values_affecting(self.config.tracker, Affects.LABELS, plugin=self.tracker_plugin)
            decides["tracker_sha256"] = self.tracker_plugin.source_sha256
        if self.config.refine is not None and self.refine_model is not None:
            decides["refine"] = values_affecting(self.config.refine, Affects.LABELS, plugin=self._refine_plugin)
            decides["refine_sha256"] = self.refine_model.weights_sha256
        return fingerprint(decides)
