#!/usr/bin/env bash
# What:    converting an annotated video task to COCO with Label Studio's converter gives a file without an image and
#          without an annotation, and no error.
# Expect:  images and boxes of the video's frames, or an error that the format does not fit.
# Version: label-studio-sdk 2.1.2 (PyPI)
# Source:  run by this script.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet label-studio-sdk==2.1.2 
venv/bin/python - 2>/dev/null <<'PY'
import importlib.metadata
import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter

config = """<View><Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/>
<Labels name="labels" toName="video"><Label value="Car"/></Labels></View>"""
sequence = [{"frame": frame, "time": frame / 25, "x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0,
             "enabled": frame < 9} for frame in (1, 9)]
region = {"id": "a", "from_name": "box", "to_name": "video", "type": "videorectangle",
          "value": {"framesCount": 10, "duration": 0.4, "sequence": sequence, "labels": ["Car"]}}
Path("in").mkdir()
Path("in/task.json").write_text(json.dumps(
    [{"id": 1, "data": {"video": "clip.mp4"}, "annotations": [{"id": 1, "result": [region]}]}]))
Converter(config, "in", download_resources=False).convert_to_coco("in", "out", output_image_dir="out/images")
coco = json.loads(Path("out/result.json").read_text())
seen = {key: len(coco[key]) for key in ("images", "annotations")}
print("label-studio-sdk", importlib.metadata.version("label-studio-sdk"))
print("expected: images and annotations of the video, or an error")
print("seen:", seen, "and no error")
sys.exit(0 if seen == {"images": 0, "annotations": 0} else 1)
PY
