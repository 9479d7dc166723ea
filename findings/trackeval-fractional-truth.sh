#!/usr/bin/env bash
# What:    a ground truth in MOTChallenge form whose seventh column is a fraction (a confidence, 0.9) scores HOTA 0
#          against itself: TrackEval cuts the value to an integer, and 0 means "ignore this box".
# Expect:  HOTA 1 for tracks compared with themselves, or an error.
# Version: trackeval 1.3.0 (PyPI), numpy 2.2.6
# Source:  run by this script; trackeval/datasets/mot_challenge_2d_box.py reads the column as "zero_marked".
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet trackeval==1.3.0
cat > score.py <<'PY'
import contextlib
import importlib.metadata
import io
import sys
from pathlib import Path

import trackeval


def hota(seventh: str) -> float:
    """Returns HOTA of two straight tracks against themselves, with this text in the truth's seventh column."""
    root = Path(f"mot-{seventh}")
    sequence, tracker = root / "gt/SET-train/one", root / "trackers/SET-train/same/data"
    (sequence / "gt").mkdir(parents=True)
    tracker.mkdir(parents=True)
    (root / "gt/seqmaps").mkdir()
    (root / "gt/seqmaps/SET-train.txt").write_text("name\none\n")
    (sequence / "seqinfo.ini").write_text("[Sequence]\nname=one\nseqLength=10\nimWidth=640\nimHeight=480\n")
    rows = [(frame, track, 20 * frame, 100 * track) for frame in range(1, 11) for track in (1, 2)]
    truth = [f"{frame},{track},{x},{y},50,80,{seventh},1,1" for frame, track, x, y in rows]
    found = [f"{frame},{track},{x},{y},50,80,0.9,-1,-1,-1" for frame, track, x, y in rows]
    (sequence / "gt/gt.txt").write_text("\n".join(truth))
    (tracker / "one.txt").write_text("\n".join(found))
    dataset = trackeval.datasets.MotChallenge2DBox({
        "GT_FOLDER": str(root / "gt"), "TRACKERS_FOLDER": str(root / "trackers"), "BENCHMARK": "SET",
        "SPLIT_TO_EVAL": "train", "TRACKERS_TO_EVAL": ["same"], "PRINT_CONFIG": False,
    })
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = trackeval.Evaluator({"USE_PARALLEL": False, "PRINT_RESULTS": False, "PRINT_CONFIG": False,
                                         "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False, "PLOT_CURVES": False})
        results, _ = evaluator.evaluate([dataset], [trackeval.metrics.HOTA({"PRINT_CONFIG": False})])
    return float(results["MotChallenge2DBox"]["same"]["COMBINED_SEQ"]["pedestrian"]["HOTA"]["HOTA"].mean())


whole, fraction = hota("1"), hota("0.9")
print("trackeval", importlib.metadata.version("trackeval"))
print("expected: HOTA 1 with either, or an error")
print(f"seen: HOTA {whole:.2f} with 1 in the seventh column, {fraction:.2f} with 0.9")
sys.exit(0 if whole > 0.99 and fraction == 0 else 1)
PY
venv/bin/python score.py
