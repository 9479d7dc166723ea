"""Chooses which reader reads a task's media, and says why."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.config.sections import VIDEO_READERS, ReaderSection
from prelabel.data.frames import Media
from prelabel.errors import MachineError, ReadError
from prelabel.media import decord, nvdec, torchcodec
from prelabel.media.cuda import count_engines
from prelabel.media.index import VideoIndex, index_video
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import VideoReader
from prelabel.runtime.gpus import has_driver

CPU_READERS = ("images", "pyav")
GPU_READERS = ("decord", "nvdec", "torchcodec")


@dataclass(frozen=True, slots=True)
class ReaderChoice:
    """The reader of a task's media.

    Attributes:
        use: name of the reader, as in `reader.use`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        reason: why this reader was chosen; a phrase for the report.
        decode_workers: segments of a video that are decoded at the same time.
    """

    use: str
    device: str
    reason: str
    decode_workers: int = 1


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The decoders that this machine has.

    Attributes:
        num_gpus: CUDA devices that torch sees.
        no_decord: why decord cannot decode on a GPU; None if it can.
        no_torchcodec: why torchcodec cannot decode on a GPU; None if it can.
        no_nvdec: why PyNvVideoCodec cannot decode on a GPU; None if it can.
    """

    num_gpus: int
    no_decord: str | None
    no_torchcodec: str | None
    no_nvdec: str | None


def probe_machine() -> MachineFacts:
    """Returns the decoders of this machine. Loads GPU decoders only if there is a GPU."""
    num_gpus = count_gpus()
    if not num_gpus:
        return MachineFacts(0, *["there is no GPU"] * 3)
    return MachineFacts(num_gpus, decord.probe(0), torchcodec.probe("cuda"), nvdec.probe())


@functools.cache  # torch loads NVML again on every call
def count_gpus() -> int:
    """Returns how many CUDA devices torch sees."""
    if not has_driver():
        return 0
    import torch

    return int(torch.cuda.device_count())


def check_device(device: str, num_gpus: int | None = None) -> None:
    """Checks that a device exists.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        num_gpus: CUDA devices of this machine; None: ask torch.

    Raises:
        MachineError: this machine has no such GPU.
    """
    if not device.startswith("cuda"):
        return
    num_gpus = count_gpus() if num_gpus is None else num_gpus
    if int(device.partition(":")[2] or 0) >= num_gpus:
        raise MachineError(f"reader.device: got {device!r}, this machine has {num_gpus} GPUs: set device: auto")


def choose_reader(
    media: Media, section: ReaderSection, machine: MachineFacts | None = None
) -> tuple[ReaderChoice, NDArray[np.int64] | None]:
    """Returns the reader, and the keyframes if the config asks for `only_keyframes`.

    Args:
        media: files on this machine.
        section: the config's section `reader`.
        machine: its decoders; None: probe this machine.

    Raises:
        ReadError: the video cannot be indexed.
        MachineError: the config asks for a GPU that does not exist.
    """
    if media.kind == "images":
        if section.use in VIDEO_READERS:
            return ReaderChoice("images", "auto", f"{section.use} reads videos; Pillow reads images"), None
        choice = select_reader(None, section.device, machine) if section.use == "auto" else _named(section)
        return choice, None
    index = _index_for(media.paths[0], section)
    choice = _named(section) if section.use != "auto" else select_reader(index, section.device, machine)
    if index is not None and index.other_streams:
        others = ", ".join(map(str, index.other_streams))
        reason = f"{choice.reason}; it reads stream {index.stream_index}, not video stream {others}"
        choice = replace(choice, reason=reason)
    choice = _with_decode_workers(choice, media, section)
    return choice, index.keyframes if index is not None and section.only_keyframes else None


def _index_for(path: Path, section: ReaderSection) -> VideoIndex | None:
    """Returns the index of a video; None for a reader of the user's, which may read files that FFmpeg cannot."""
    if section.use == "auto" or section.only_keyframes:
        return index_video(path)
    if section.use in VIDEO_READERS:
        with suppress(ReadError):  # the reader raises it again, after its own checks
            return index_video(path)
    return None


def select_reader(index: VideoIndex | None, device: str, machine: MachineFacts | None = None) -> ReaderChoice:
    """Returns the reader for `use: auto`.

    Args:
        index: of the video; None for images.
        device: decodes the frames: `auto`, `cpu`, `cuda` or `cuda:N`.
        machine: its decoders; None: probe this machine.

    Raises:
        MachineError: the config asks for a GPU that does not exist.
    """
    if index is not None and device == "cpu":
        return ReaderChoice("pyav", "cpu", "the config asks for decoding on the CPU")
    machine = machine or probe_machine()
    check_device(device, machine.num_gpus)
    if index is None:
        return ReaderChoice("images", "cpu", "Pillow reads images")
    if not machine.num_gpus:
        return ReaderChoice("pyav", "cpu", "this machine has no GPU, and PyAV reads every file in bounded memory")
    return _gpu_reader(index, "cuda:0" if device in {"auto", "cuda"} else device, machine)


def _gpu_reader(index: VideoIndex, gpu: str, machine: MachineFacts) -> ReaderChoice:
    """Returns the reader that decodes on a GPU; PyAV on the CPU if none takes the file."""
    no_decord = machine.no_decord or decord.refuse(index, on_gpu=True)
    if no_decord is None:
        return ReaderChoice("decord", gpu, f"decord decodes {index.codec} on the GPU")
    no_torchcodec = machine.no_torchcodec or torchcodec.refuse(index, on_gpu=True) or _not_in_hardware(index)
    if no_torchcodec is None:
        return ReaderChoice("torchcodec", gpu, f"torchcodec decodes on the GPU; decord does not: {no_decord}")
    no_nvdec = machine.no_nvdec or nvdec.refuse(index)
    if no_nvdec is None:
        return ReaderChoice("nvdec", gpu, f"PyNvVideoCodec decodes on the GPU; torchcodec does not: {no_torchcodec}")
    reasons = f"decord: {no_decord}; torchcodec: {no_torchcodec}; nvdec: {no_nvdec}"
    return ReaderChoice("pyav", "cpu", f"no GPU decoder takes it: {reasons}")


def gpu_of(choice: ReaderChoice) -> str | None:
    """Returns the GPU on which a built-in reader decodes, e.g. `cuda:0`; None for the CPU."""
    if choice.use not in GPU_READERS or choice.device == "cpu" or not count_gpus():
        return None
    if choice.device.startswith("cuda"):
        return choice.device
    return "cuda:0" if choice.use != "decord" or decord.probe(0) is None else None


def build_reader(choice: ReaderChoice, media: Media, section: ReaderSection, folder: Path) -> VideoReader:
    """Returns the chosen reader, not yet entered. Plug-in paths are relative to `folder`."""
    options = dict(section.options) if choice.use == section.use else {}
    if choice.device != "auto":
        options["device"] = choice.device
    plugin = load_plugin("reader", choice.use, folder, section.own_keys)

    def build() -> VideoReader:
        reader: VideoReader = plugin.build(media, options=options)
        return reader

    if choice.decode_workers == 1:
        return build()

    from prelabel.media.parallel import ParallelReader

    max_bytes = section.max_memory_gb * 1e9 / 2
    return ParallelReader(media, build, choice.decode_workers, max_bytes, gpu_of(choice))


def _named(section: ReaderSection) -> ReaderChoice:
    return ReaderChoice(section.use, section.device, "the config names it")


def _with_decode_workers(choice: ReaderChoice, media: Media, section: ReaderSection) -> ReaderChoice:
    """Returns the choice with the number of segments from the config, or one per engine of the GPU."""
    if choice.use not in VIDEO_READERS:
        return choice
    num = section.decode_workers
    if num == "auto":
        gpu = gpu_of(choice)
        num = 1 if gpu is None else count_engines(gpu, index_video(media.paths[0]).codec)
    if num == 1:
        return choice
    reason = f"{choice.reason}; {num} segments at once, where keyframes allow it"
    return replace(choice, reason=reason, decode_workers=num)


# Formats that NVDEC of Hopper decodes (Video Codec SDK, support matrix). AV1 is left out, and H.264 other than
# 8 bits and 4:2:0.
NVDEC_FORMATS = {
    "h264": ("yuv420p", "yuvj420p"),
    "hevc": ("yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "yuv444p10le"),
    "vp8": ("yuv420p",),
    "vp9": ("yuv420p", "yuv420p10le"),
    "mpeg4": ("yuv420p",),
    "mpeg2video": ("yuv420p",),
}


def _not_in_hardware(index: VideoIndex) -> str | None:
    """Returns why the GPU's hardware does not decode a file; None if it does."""
    if index.pixel_format in NVDEC_FORMATS.get(index.codec, ()):
        return None
    return f"the GPU does not decode {index.codec} with pixels of {index.pixel_format}"
