"""The parts of an agent that detects. Each is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.assembly.detectors import DetectorProvider, detector_plugin, detector_section
from prelabel.config.fingerprints import detection_key_hashes, fingerprint, values_affecting
from prelabel.config.sections import Config
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import BOXES_ONLY, OutputSpec
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import BOX_SHAPES, Ontology
from prelabel.errors import ConfigError
from prelabel.labels.tracking import Linking
from prelabel.models.replicas import count_streams, on_streams
from prelabel.models.tiling import TiledDetector
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import Detector, ModelRecord, Tracker
from prelabel.plugins.traits import has_method, traits_of

DEFAULT_BATCH_SIZE = 8


@dataclass(frozen=True)
class DetectorParts:
    """Detector, ontology, label map and tracker of a config.

    Attributes:
        config: which has a detector.
        folder: the config's, to which plug-in paths are relative.
        provider: of the detector.
        find_ontology: returns the source's ontology; None: it is made from the model's classes.
    """

    config: Config
    folder: Path
    provider: DetectorProvider
    find_ontology: Callable[[], Ontology | None]

    @cached_property
    def detector(self) -> Detector:
        """The detector that a run calls: in replicas on a CPU, and in tiles if the config says so."""
        section = detector_section(self.config)
        detector = on_streams(self.asked_detector, self.num_replicas)
        return detector if section.tiles is None else TiledDetector(detector, section.tiles)

    @property
    def model(self) -> ModelRecord:
        """Which model it runs."""
        return self.provider.model

    @cached_property
    def asked_detector(self) -> Detector:
        """The detector, asked for the masks or keypoints that the labels need."""
        detector = self.provider.detector
        if self._asked and has_method(detector, "with_geometry"):
            return detector.with_geometry(self._asked)
        return detector

    @property
    def _asked(self) -> frozenset[int]:
        """Class ids for which the detector is asked for more than boxes; none if it gives that unasked."""
        waits = has_method(self.provider.detector, "with_geometry")
        return self.label_map.wants_geometry if waits else frozenset()

    @property
    def given_geometry(self) -> OutputSpec:
        """What the detector gives beyond boxes."""
        waits = has_method(self.provider.detector, "with_geometry")
        return BOXES_ONLY if waits and not self._asked else traits_of(self.provider.detector).output

    @cached_property
    def raw_fingerprint(self) -> str:
        """Hash of all that decides the raw detections of given media."""
        found = self.provider.fingerprint
        return fingerprint({"found": found, "geometry": sorted(self._asked)}) if self._asked else found

    @cached_property
    def detection_key_hashes(self) -> dict[str, str]:
        """Hashes of the config's values that decide the raw detections, by key."""
        return detection_key_hashes(self.config, detector_plugin(self.config, self.folder))

    @property
    def device(self) -> str | None:
        """Where the detector wants its frames, such as `cuda:0`; None if it does not say."""
        return traits_of(self.provider.detector).device

    @property
    def batch_size(self) -> int:
        """Frames per batch: the config's number, else the one that the detector prefers."""
        size = detector_section(self.config).batch_size
        return (traits_of(self.provider.detector).batch_size or DEFAULT_BATCH_SIZE) if size == "auto" else size

    @cached_property
    def num_replicas(self) -> int:
        """Parts of a batch that are computed beside each other."""
        return count_streams(self.provider.detector, detector_section(self.config).replicas)

    @property
    def fit_batch(self) -> Callable[[int, int], int] | None:
        """Returns frames per batch for a height and a width; None if the config or the detector fixes the number."""
        detector, size = self.provider.detector, detector_section(self.config).batch_size
        return detector.fit_batch if size == "auto" and has_method(detector, "fit_batch") else None

    @cached_property
    def ontology(self) -> Ontology:
        """What may be labelled: the source's ontology, or one made from the detector's classes."""
        given = self.find_ontology()
        if given is not None:
            return given
        named = dict(self.config.labels.classes)
        detector = self.provider.detector
        targets = [named.get(name, name) for name in detector.class_names]
        names = list(dict.fromkeys(target for target in targets if target is not None))
        offer, renamed = traits_of(detector).output, self.config.labels.keypoints
        points = [renamed.get(name, name) for name in offer.keypoint_names]
        shape = offer.shapes[0] if offer.kind is not None and (points or offer.kind != "keypoints") else BOX_SHAPES[0]
        return Ontology.from_classes(names, shape=shape, point_names=points)

    @cached_property
    def label_map(self) -> LabelMap:
        """Which class becomes which ontology object."""
        labels = self.config.labels
        return build_label_map(
            self.provider.detector.class_names,
            self.ontology,
            labels.classes,
            unmapped=labels.unmapped,
            offer=traits_of(self.provider.detector).output,
            keypoints=labels.keypoints,
        )

    @cached_property
    def tracker_plugin(self) -> Plugin:
        """The tracker that the config names."""
        section = self.config.tracker
        return load_plugin("tracker", section.use, self.folder, section.own_keys)

    @cached_property
    def linking(self) -> Linking | None:
        """How boxes become tracks; None if each box is an object instance of its own."""
        if self.config.labels.instances == "per_frame":
            return None
        return Linking(
            new_tracker=self._new_tracker,
            max_gap_seconds=self.config.tracker.max_gap_seconds,
            limits=self.config.tracker.limits,
            smooth_seconds=self.config.tracker.smooth_seconds,
            keyframes=self.config.labels.keyframes,
        )

    def _new_tracker(self, info: VideoInfo) -> Tracker:
        built = self.tracker_plugin.build(info, options=self.config.tracker.options)
        if not isinstance(built, Tracker):
            raise ConfigError(f"tracker.use: {self.tracker_plugin.use!r} lacks `update(detections, frame_index)`")
        return built

    @cached_property
    def label_fingerprint(self) -> str:
        """Hash of all that decides the labels of given media."""
        return self.label_fingerprint_of(self.raw_fingerprint)

    def label_fingerprint_of(self, raw_fingerprint: str) -> str:
        """Returns a hash of all that decides the labels made from raw detections.

        Args:
            raw_fingerprint: hash of what decided these, perhaps in another config.
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
        return fingerprint(decides)
