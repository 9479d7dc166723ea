#!/usr/bin/env bash
# What:    an annotation whose id is 0 can never count as found: AP of a truth against itself is below 1. The code marks
#          "matched" by the truth's id, and 0 means "not matched". faster-coco-eval counts the same, but warns.
# Expect:  AP 1 for a truth against itself, whatever the ids.
# Version: pycocotools 2.0.11, faster-coco-eval 1.8.0 (PyPI), numpy 2.2.6
# Source:  run by this script; pycocotools/cocoeval.py, dtMatches.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.2.6
venv/bin/python - <<'PY'
import contextlib
import importlib.metadata
import io
import json
import sys

from faster_coco_eval import COCO as FastCoco
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def ap(coco_class, eval_class, first_id):
    boxes = [[10 + 60 * number, 10, 40, 40] for number in range(4)]
    truth = {
        "images": [{"id": 1, "width": 640, "height": 480, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": first_id + number, "image_id": 1, "category_id": 1, "bbox": box, "area": 1600, "iscrowd": 0}
            for number, box in enumerate(boxes)
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes]
    with contextlib.redirect_stdout(io.StringIO()):
        json.dump(truth, open("truth.json", "w"))
        coco = coco_class("truth.json")
        evaluation = eval_class(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return round(float(evaluation.stats[0]), 3)


seen = {
    name: [ap(coco, evaluation, first) for first in (1, 0)]
    for name, coco, evaluation in (
        ("pycocotools", COCO, COCOeval),
        ("faster-coco-eval", FastCoco, COCOeval_faster),
    )
}
for name, values in seen.items():
    print(name, importlib.metadata.version(name))
    print("expected: AP 1.0 with ids from 1, and with ids from 0")
    print(f"seen: AP {values[0]} with ids from 1, {values[1]} with ids from 0")
sys.exit(0 if all(first == 1.0 and zero < 1.0 for first, zero in seen.values()) else 1)
PY
