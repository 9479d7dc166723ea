#!/usr/bin/env bash
# What:    `path: .` in a data.yaml does not mean the folder of the data.yaml: Ultralytics looks in the working directory
#          and then in its own datasets folder. Without `path` it does take the folder of the data.yaml.
# Expect:  a relative path is relative to the file that holds it, as without the key.
# Version: ultralytics 8.4.190 (PyPI)
# Source:  run by this script; ultralytics/data/utils.py, check_det_dataset.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet ultralytics==8.4.190 
mkdir -p set/images elsewhere
printf 'path: .\ntrain: images\nval: images\nnames: {0: thing}\n' > set/with.yaml
printf 'train: images\nval: images\nnames: {0: thing}\n' > set/without.yaml
cd elsewhere
YOLO_OFFLINE=true YOLO_CONFIG_DIR="$work" ../venv/bin/python - <<'PY'
import importlib.metadata
import sys

from ultralytics.data.utils import check_det_dataset

seen = {}
for name in ("with", "without"):
    try:
        seen[name] = "found" if check_det_dataset(f"../set/{name}.yaml", autodownload=False) else "?"
    except FileNotFoundError:
        seen[name] = "not found"
print("ultralytics", importlib.metadata.version("ultralytics"))
print("expected: the images beside the data.yaml are found, with `path: .` and without `path`")
print("seen, called from another folder:", seen)
sys.exit(0 if seen == {"with": "not found", "without": "found"} else 1)
PY
