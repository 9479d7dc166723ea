"""Exports Encord label rows: a JSON file for each video, as the SDK writes it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from prelabel.export.export import Export, refuse_file
from prelabel.files.folder_sink import LABELS_ENDING, write_row
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.write import write_detections
from prelabel.runtime.files import candidate_names


def export_encord(export: Export) -> list[Path]:
    """Writes `VIDEO.labels.json` for each video."""
    refuse_file(export.target)
    ontology, paths = encord_ontology(export.ontology), dict[Path, None]()
    for video in export.videos:
        now = datetime.now(UTC)
        blank = new_label_row(video.title, video.title, video.info, ontology, now=now)
        row = write_detections(blank, video.detections, video.info, video.label_map, now=now).row
        names = (export.target / f"{name}{LABELS_ENDING}" for name in candidate_names(video.title, video.title))
        path = next(path for path in names if path not in paths)
        write_row(path, row)
        paths[path] = None
    return [*paths]
