"""Small exports: videos of 100 x 50 pixels with known labels."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelledVideo, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.export.export import Export
from tests.labelling import detections

INFO = VideoInfo(width=100, height=50, num_frames=20, average_fps=12.5, duration_seconds=1.6)
ONTOLOGY = Ontology.from_classes(["Vehicle: any", "person"])
DATUMARO = "datumaro==1.13.12"
"""Needs older versions of pillow and pyarrow than this project has."""
LABEL_MAP = build_label_map(["person", "car"], ONTOLOGY, {"car": "Vehicle: any"})


def video(title, *rows, track_id=-1, inferred_frames=range(20)) -> LabelledVideo:
    """Rows are (frame_index, xyxy, confidence, class_id); class 0 becomes `person`, class 1 `Vehicle: any`."""
    found = detections(*rows, inferred_frames=inferred_frames, track_id=track_id)
    return LabelledVideo(title, INFO, found, LABEL_MAP)


def export_of(target: Path, *videos: LabelledVideo) -> Export:
    return Export(target, iter(videos), ONTOLOGY)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run_apart(requirement: str, script: str, *arguments: Path) -> Any:
    """Returns the JSON that a script prints in an environment of its own, where a peer may have other versions."""
    command = ["uv", "run", "--no-project", "--isolated", "--with", requirement, "python", "-c", script, *arguments]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout.splitlines()[-1])
