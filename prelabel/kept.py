"""What earlier runs have left in an output folder, shaped by the config of today: no video and no GPU needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prelabel.assemble import Assembly
from prelabel.errors import ConfigError
from prelabel.labelled import LabelledVideo
from prelabel.ledger import LEDGER, Ledger
from prelabel.protocols import Task
from prelabel.raw_store import RawRecord, read_raw
from prelabel.run import raw_path, shape_raw

NEXT_STEP = "`prelabel run CONFIG` first"


def kept_videos(assembly: Assembly) -> Iterator[LabelledVideo]:
    """Yields every video of which a run has kept what was found, one at a time, in the order of their titles.

    Raises:
        ConfigError: there is none, or one is of a detector with other classes.
    """
    path = assembly.output / LEDGER
    raw_paths: dict[str, Path] = {}
    if path.exists():
        with Ledger(path) as ledger:
            raw_paths = {entry.title: raw_path(assembly, entry.key, entry.title) for entry in ledger.entries()}
    kept = [title for title in sorted(raw_paths) if raw_paths[title].exists()]
    if not kept:
        raise ConfigError(f"{assembly.output}: holds no detections yet: {NEXT_STEP}")
    for title in kept:
        yield label_raw(assembly, title, read_raw(raw_paths[title]))


def kept_record(assembly: Assembly, task: Task) -> RawRecord | None:
    """Returns what was found in a task's media; None if no run has kept it."""
    path = raw_path(assembly, task.key, task.title)
    return read_raw(path) if path.exists() else None


def label_raw(assembly: Assembly, title: str, record: RawRecord) -> LabelledVideo:
    """Returns the video with the detections that become labels under the config of today.

    Args:
        assembly: of the config.
        title: the task's.
        record: of a run under this or an earlier form of the config.

    Raises:
        ConfigError: it is of a detector with other classes.
    """
    names = tuple(assembly.detector.class_names)
    if record.class_names != names:
        raise ConfigError(
            f"{title}: was labelled by a detector of {len(record.class_names)} classes ({record.class_names[0]}, …), "
            f"the config's has {len(names)} ({names[0]}, …): {NEXT_STEP}"
        )
    return LabelledVideo(title, record.info, shape_raw(assembly, record).detections, assembly.label_map)
