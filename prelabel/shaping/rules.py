"""What the config asks of a detection that is to become a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.errors import OntologyError, did_you_mean
from prelabel.label_map import LabelMap
from prelabel.shaping.flicker import Flicker
from prelabel.shaping.size import SizeLimits
from prelabel.shaping.zones import Zones

ANY_SIZE, ANYWHERE = SizeLimits(), Zones()


@dataclass(frozen=True, slots=True)
class ShapingRules:
    """All rules; by default each lets everything through.

    Attributes:
        conf: least confidence, one for all or by name of the ontology object.
        size: how large a box must be and may be.
        zones: where in the frame it must lie and must not lie.
        nms_iou: of two boxes on a frame that overlap more than this, whatever their objects, the more confident stays.
        flicker: on how many frames around its own a thing must be seen.
        max_per_frame: how many boxes a frame may have.
    """

    conf: float | Mapping[str, float] = 0.0
    size: SizeLimits = ANY_SIZE
    zones: Zones = ANYWHERE
    nms_iou: float | None = None
    flicker: Flicker | None = None
    max_per_frame: int | None = None


def class_thresholds(conf: float | Mapping[str, float], label_map: LabelMap) -> NDArray[np.float32]:
    """Returns the least confidence by `class_id`, float32.

    Args:
        conf: one for all, or by name of the ontology object; 0 where none is given.
        label_map: from the detector's classes to ontology objects.

    Raises:
        OntologyError: if `conf` names an object that no class becomes.

    >>> from prelabel.label_map import build_label_map
    >>> from prelabel.ontology import Ontology
    >>> label_map = build_label_map(["car", "bus"], Ontology.from_classes(["Vehicle"]), {"car": "Vehicle"})
    >>> class_thresholds({"Vehicle": 0.5}, label_map).tolist()
    [0.5, 0.0]
    """
    if not isinstance(conf, Mapping):
        return np.full(len(label_map.class_names), conf, np.float32)
    names = [category.name for category in label_map.categories]
    for name in conf:
        if name not in names:
            raise OntologyError(f"labels.conf: no class becomes an object {name!r}: {did_you_mean(name, names)}")
    return np.array([0.0 if found is None else conf.get(found.name, 0.0) for found in label_map.objects], np.float32)
