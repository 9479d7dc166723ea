#!/usr/bin/env bash
# What:    ObjectInstance.set_for_frames takes any confidence: 1.2, -0.1 and NaN are kept as they are.
# Expect:  an error, or a value clipped to 0..1, as for a probability.
# Version: encord 0.1.211 (PyPI), Python 3.11
# Source:  run by this script; the docstring of set_for_frames names no range.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet encord==0.1.211
venv/bin/python - <<'PY'
import importlib.metadata
import math
import sys

from encord.objects import OntologyStructure
from encord.objects.common import Shape
from encord.objects.coordinates import BoundingBoxCoordinates

structure = OntologyStructure()
thing = structure.add_object("Thing", Shape.BOUNDING_BOX)
box = BoundingBoxCoordinates(top_left_x=0.1, top_left_y=0.1, width=0.2, height=0.2)
seen = []
for confidence in (1.2, -0.1, math.nan):
    instance = thing.create_instance()
    try:
        instance.set_for_frames(box, frames=0, confidence=confidence)
        seen.append(instance.get_annotation(0).confidence)
    except Exception as error:
        seen.append(type(error).__name__)
print("encord", importlib.metadata.version("encord"))
print("expected: an error, or values within 0..1")
print("seen:", seen)
sys.exit(0 if seen[:2] == [1.2, -0.1] and seen[2] != seen[2] else 1)
PY
