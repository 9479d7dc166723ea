"""Which reader reads a task's media, and why that one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.config import ReaderSection
from prelabel.frames import Media
from prelabel.plugins import load_plugin
from prelabel.protocols import VideoReader

if TYPE_CHECKING:
    from prelabel.readers.select import MachineFacts

VIDEO_READERS = ("decord", "pyav", "torchcodec")
CPU_READERS = ("images", "pyav")


@dataclass(frozen=True, slots=True)
class ReaderChoice:
    """Which reader reads a video, where, and why that one."""

    use: str
    device: str
    reason: str


def choose_reader(
    media: Media, section: ReaderSection, machine: MachineFacts | None = None
) -> tuple[ReaderChoice, NDArray[np.int64] | None]:
    """Returns the reader, and which frames decode on their own where the config asks for these.

    Args:
        media: files on this machine.
        section: the config's.
        machine: what to decode with; by default this machine is looked at.

    Raises:
        ReadError: the media cannot be indexed.
        MachineError: the config asks for a GPU that is not there.
    """
    from prelabel.readers.index import index_video
    from prelabel.readers.select import select_reader

    if media.kind == "images" and section.use in VIDEO_READERS:
        return ReaderChoice("images", "auto", f"{section.use} reads videos; Pillow reads pictures."), None
    wants_keyframes = media.kind == "video" and section.only_keyframes
    if section.use != "auto":
        alone = index_video(media.paths[0]).keyframes if wants_keyframes else None
        return ReaderChoice(section.use, section.device, "the config names it"), alone
    index = index_video(media.paths[0]) if media.kind == "video" else None
    choice = select_reader(index, section.device, machine)
    alone = index.keyframes if index is not None and wants_keyframes else None
    return ReaderChoice(choice.use, choice.device, choice.reason), alone


def build_reader(choice: ReaderChoice, media: Media, section: ReaderSection, folder: Path) -> VideoReader:
    """Returns the chosen reader of the media, to be entered; `folder` is what plug-in paths are relative to."""
    options = dict(section.options) if choice.use == section.use else {}
    if choice.device != "auto":
        options["device"] = choice.device
    reader: VideoReader = load_plugin("reader", choice.use, folder).build(media, options=options)
    return reader
