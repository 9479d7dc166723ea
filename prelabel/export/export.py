"""What earlier runs have found, in the format of another tool: from the raw store, with the thresholds of today."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import stored_videos
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError
from prelabel.export.coco import write_coco
from prelabel.export.mot import write_mot
from prelabel.export.yolo import write_yolo
from prelabel.files.folder_sink import LABELS_ENDING, write_row
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.write import write_detections
from prelabel.runtime.files import candidate_names, safe_name

if TYPE_CHECKING:
    from encord.ontology import Ontology as EncordOntology


ExportFormat = Literal["coco", "yolo", "mot", "encord"]


def export_run(assembly: Assembly, format: ExportFormat, target: Path) -> list[Path]:
    """Writes every video of which a run has kept what was found; a video at a time in memory.

    Args:
        assembly: of the config; its thresholds and classes hold, whatever they were in the run.
        format: coco: one JSON file; yolo: label files with `data.yaml`; mot: a folder a video; encord: label rows.
        target: a folder; for coco also a file that ends in `.json`.

    Returns:
        The files and folders to look at.

    Raises:
        ConfigError: no run has kept anything, the target is of the wrong kind, or the detector has other classes now.
    """
    is_file = format == "coco" and target.suffix.lower() == ".json"
    if target.exists() and target.is_dir() == is_file:
        raise ConfigError(f"{target}: is a {'folder' if is_file else 'file'}: name another target")
    videos = stored_videos(assembly)
    match format:
        case "coco":
            path = target if is_file else target / "coco.json"
            write_coco(path, videos)
            return [path]
        case "yolo":
            write_yolo(target, videos)
            return [target / "data.yaml", target / "labels"]
        case "mot":
            titles: list[str] = []
            write_mot(target, _noting_titles(videos, titles))
            return [target / safe_name(title) / "det" / "det.txt" for title in titles]
        case "encord":
            ontology = encord_ontology(assembly.ontology)
            return list(_write_rows(target, videos, ontology))


def _noting_titles(videos: Iterable[LabelledVideo], titles: list[str]) -> Iterator[LabelledVideo]:
    for video in videos:
        titles.append(video.title)
        yield video


def _write_rows(target: Path, videos: Iterable[LabelledVideo], ontology: EncordOntology) -> Iterator[Path]:
    taken: set[str] = set()
    for video in videos:
        name = next(name for name in candidate_names(video.title, video.title) if name not in taken)
        taken.add(name)
        yield _write_row(target / f"{name}{LABELS_ENDING}", video, ontology)


def _write_row(path: Path, video: LabelledVideo, ontology: EncordOntology) -> Path:
    now = datetime.now(UTC)
    blank = new_label_row(video.title, video.title, video.info, ontology, now=now)
    row = write_detections(blank, video.detections, video.info, video.label_map, now=now).row
    write_row(path, row)
    return path
