"""Labels anew from what earlier runs have found: no detector is loaded, no media are fetched, no task is moved."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.assemble import Assembly
from prelabel.config import Config, EncordSection, make_router
from prelabel.detections import Detections
from prelabel.errors import ConfigError, DetectError
from prelabel.frames import FrameBatch
from prelabel.kept import NEXT_STEP, kept_entries, raw_path
from prelabel.ledger import LEDGER, Entry
from prelabel.plugins import Plugin
from prelabel.protocols import Detector, LeftAlone, ModelRecord, TaskSource
from prelabel.raw_store import RawOrigin, read_origin
from prelabel.routing import Router
from prelabel.sources.kept import KeptSource, KeptTask


@dataclass(frozen=True)
class KeptDetector:
    """What stands for the detector where its boxes are here already.

    Attributes:
        class_names: of the detector that found them.
        model: which it was.
    """

    class_names: tuple[str, ...]
    model: ModelRecord | None

    def detect(self, batch: FrameBatch) -> list[Detections]:
        """Raises a DetectError: nothing is looked at again."""
        raise DetectError(f"boxes are not found anew here: {NEXT_STEP}")


@dataclass(frozen=True)
class DetectorlessAssembly(Assembly):
    """The parts of a config, but for its detector: what is to be known of it is kept beside what it found.

    The boxes are of one detector, that of the latest run. Fingerprints are those that a run with the same config would
    make, so that each knows what the other has done.
    """

    @cached_property
    def origin(self) -> RawOrigin:
        """Under which circumstances the boxes of the latest run were found.

        Raises:
            ConfigError: none are kept.
        """
        return self._origins[max(self._origins, key=lambda entry: entry.updated_at)]

    @cached_property
    def _origins(self) -> dict[Entry, RawOrigin]:
        return {entry: read_origin(raw_path(self, entry.key, entry.title)) for entry in kept_entries(self)}

    @cached_property
    def bare_detector(self) -> Detector:
        """What stands for the detector."""
        return KeptDetector(self.origin.class_names, self.origin.model)

    @cached_property
    def threshold(self) -> float | None:
        """The confidence from which boxes become labels; None where all that were found do.

        Raises:
            ConfigError: it is under the one down to which boxes are kept.
        """
        lowest = self.origin.lowest_conf
        if lowest is None:
            return None
        conf = _configured_conf(self.detector_plugin, self.detector_section.options)
        if conf < lowest:
            raise ConfigError(f"detector.conf: got {conf:g}, boxes are kept from {lowest:g} on: {NEXT_STEP}")
        return conf

    @cached_property
    def raw_fingerprint(self) -> str:
        """Of all that decided what the detector found."""
        return self.origin.detector_fingerprint


@dataclass(frozen=True)
class KeptAssembly(DetectorlessAssembly):
    """The parts of a run over what earlier runs have found; what another detector found is left alone."""

    @property
    def found_in(self) -> Path:
        """The output of earlier runs, in a dry run as well; that of dry runs, where there were no others."""
        output = self.config.source.output
        return output if (output / LEDGER).exists() else self.output

    @cached_property
    def router(self) -> Router:
        """None of the rules: no task is moved."""
        return make_router((), None, None)

    @cached_property
    def source(self) -> TaskSource:
        """The tasks of which boxes are kept."""
        tasks: list[KeptTask] = []
        others: list[LeftAlone] = []
        for entry, origin in self._origins.items():
            if origin.detector_fingerprint == self.raw_fingerprint:
                tasks.append(KeptTask(entry.key, entry.title, origin.media_identity, entry.num_instances))
            else:
                others.append(LeftAlone(entry.title, f"its boxes are of another detector or reader: {NEXT_STEP}"))
        if not isinstance(self.config.source, EncordSection):
            return KeptSource(tasks, others)
        from prelabel.sources.encord_rows import EncordRowSource

        return EncordRowSource(self.encord, self.config.source.stage, tasks, others)


def without_previews(config: Config) -> Config:
    """Returns the config with nothing drawn after the run: that would need the videos."""
    if isinstance(config.source, EncordSection):
        return config
    return config.model_copy(update={"source": config.source.model_copy(update={"preview": "none"})})


def _configured_conf(plugin: Plugin, options: Mapping[str, Any]) -> float:
    """Returns the detector's threshold as it would have it, without building it."""
    checked = plugin.check_options(options)
    if "conf" in checked:
        return float(checked["conf"])
    model = getattr(plugin.factory, "Options", None)
    if model is not None and "conf" in model.model_fields:
        return float(model.model_fields["conf"].default)
    parameter = inspect.signature(plugin.factory).parameters.get("conf")
    if parameter is None or parameter.default is parameter.empty:
        raise ConfigError("detector.conf: is missing: name the confidence from which boxes become labels")
    return float(parameter.default)
