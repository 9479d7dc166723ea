#!/usr/bin/env bash
# What:    with their defaults, three of five trackers of one library (ByteTrack, BoT-SORT, C-BIoU) never give an id to a
#          box of confidence 0.65 that stays in its place for 60 frames: a new track needs more, and no message says so.
# Expect:  a thing that is seen on every frame at 0.65 becomes a track.
# Version: trackers 2.6.1, supervision 0.31.2 (PyPI)
# Source:  run by this script.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet trackers==2.6.1 supervision==0.31.2
venv/bin/python - <<'PY'
import importlib.metadata
import sys

import numpy as np
import supervision as sv
import trackers

names = ["SORTTracker", "ByteTrackTracker", "OCSORTTracker", "BoTSORTTracker", "CBIoUTracker"]
seen = {}
for name in names:
    if not hasattr(trackers, name):
        continue
    tracker = getattr(trackers, name)()
    ids = set()
    for _ in range(60):
        box = sv.Detections(xyxy=np.array([[100, 100, 150, 200]], np.float32),
                            confidence=np.array([0.65], np.float32), class_id=np.array([0]))
        ids |= set(np.atleast_1d(tracker.update(box).tracker_id).tolist())
    seen[name] = sorted(number for number in ids if number is not None and number >= 0)
print("trackers", importlib.metadata.version("trackers"))
print("expected: one id for each tracker")
print("seen:", {name: ids or "none" for name, ids in seen.items()})
sys.exit(0 if sum(not ids for ids in seen.values()) == 3 else 1)
PY
