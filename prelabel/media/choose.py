"""Which reader reads a task's media, and why that one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import VIDEO_READERS, ReaderSection
from prelabel.data.frames import Media
from prelabel.media.select import ReaderChoice
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import VideoReader

if TYPE_CHECKING:
    from prelabel.media.select import MachineFacts


CPU_READERS = ("images", "pyav")


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
    choice, keyframes = _choose(media, section, machine)
    sessions = _count_sessions(choice, media, section)
    if sessions > 1:
        reason = f"{choice.reason.removesuffix('.')}; {sessions} sessions, where keyframes allow it."
        choice = replace(choice, reason=reason, sessions=sessions)
    return choice, keyframes


def _choose(
    media: Media, section: ReaderSection, machine: MachineFacts | None
) -> tuple[ReaderChoice, NDArray[np.int64] | None]:
    from prelabel.media.index import index_video
    from prelabel.media.select import select_reader

    if media.kind == "images" and section.use in VIDEO_READERS:
        return ReaderChoice("images", "auto", f"{section.use} reads videos; Pillow reads pictures."), None
    wants_keyframes = media.kind == "video" and section.only_keyframes
    if section.use != "auto":
        alone = index_video(media.paths[0]).keyframes if wants_keyframes else None
        return ReaderChoice(section.use, section.device, "the config names it"), alone
    index = index_video(media.paths[0]) if media.kind == "video" else None
    alone = index.keyframes if index is not None and wants_keyframes else None
    return select_reader(index, section.device, machine), alone


def _count_sessions(choice: ReaderChoice, media: Media, section: ReaderSection) -> int:
    from prelabel.media.index import index_video
    from prelabel.media.nvdec import count_engines
    from prelabel.media.select import gpu_of

    if media.kind != "video" or choice.use not in VIDEO_READERS:
        return 1
    if section.decode_workers != "auto":
        return section.decode_workers
    gpu = gpu_of(choice.use, choice.device)
    return 1 if gpu is None else count_engines(gpu, index_video(media.paths[0]).codec)


def build_reader(choice: ReaderChoice, media: Media, section: ReaderSection, folder: Path) -> VideoReader:
    """Returns the chosen reader of the media, to be entered; `folder` is what plug-in paths are relative to."""
    options = dict(section.options) if choice.use == section.use else {}
    if choice.device != "auto":
        options["device"] = choice.device
    plugin = load_plugin("reader", choice.use, folder, section.own_keys)

    def build() -> VideoReader:
        reader: VideoReader = plugin.build(media, options=options)
        return reader

    if choice.sessions == 1:
        return build()

    from prelabel.media.parallel import ParallelReader
    from prelabel.media.select import gpu_of

    max_bytes = section.max_memory_gb * 1e9 / 2
    return ParallelReader(media, build, choice.sessions, max_bytes, gpu_of(choice.use, choice.device))
