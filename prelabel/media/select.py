"""Which reader is right for a file on this machine, and why."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from prelabel.errors import MachineError
from prelabel.media import decord, torchcodec
from prelabel.media.index import VideoIndex


@dataclass(frozen=True, slots=True)
class ReaderChoice:
    """Which reader reads a video, where, and why that one; in how many places at once.

    Attributes:
        use: its name, as a config has it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        reason: in words, for the report.
        sessions: places of a video that are decoded at the same time.
    """

    use: str
    device: str
    reason: str
    sessions: int = 1


GPU_READERS = ("decord", "torchcodec")


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What this machine can decode with.

    Attributes:
        num_gpus: CUDA devices that torch sees.
        no_decord: why decord cannot decode on a GPU; None if it can.
        no_torchcodec: why torchcodec cannot decode on a GPU; None if it can.
    """

    num_gpus: int
    no_decord: str | None
    no_torchcodec: str | None


def probe_machine() -> MachineFacts:
    """Returns what this machine can decode with. Loads decord and torchcodec only where there is a GPU."""
    num_gpus = count_gpus()
    if not num_gpus:
        return MachineFacts(0, "there is no GPU", "there is no GPU")
    return MachineFacts(num_gpus, decord.probe(0), torchcodec.probe("cuda"))


@functools.cache  # torch loads NVML anew each time
def count_gpus() -> int:
    """Returns how many CUDA devices torch sees."""
    import torch

    return int(torch.cuda.device_count())


def check_device(device: str, num_gpus: int | None = None) -> None:
    """Returns if the device is there.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        num_gpus: CUDA devices there are; None: torch is asked.

    Raises:
        MachineError: a GPU is asked for that is not there.
    """
    if not device.startswith("cuda"):
        return
    num_gpus = count_gpus() if num_gpus is None else num_gpus
    if int(device.partition(":")[2] or 0) >= num_gpus:
        raise MachineError(f"reader.device: got {device!r}, this machine has {num_gpus} GPUs: set device: auto")


def gpu_of(use: str, device: str) -> str | None:
    """Returns the GPU on which a built-in reader decodes, such as `cuda:0`; None: it decodes on the CPU."""
    if use not in GPU_READERS or device == "cpu" or not count_gpus():
        return None
    if device.startswith("cuda"):
        return device
    return "cuda:0" if use == "torchcodec" or decord.probe(0) is None else None


def select_reader(index: VideoIndex | None, device: str, machine: MachineFacts | None = None) -> ReaderChoice:
    """Returns the reader for `use: auto`.

    Args:
        index: of the video; None for pictures.
        device: where the config wants frames decoded: `auto`, `cpu`, `cuda` or `cuda:N`.
        machine: what to decode with; by default this machine is looked at.

    Raises:
        MachineError: a GPU is asked for that is not there.
    """
    if index is not None and device == "cpu":
        return ReaderChoice("pyav", "cpu", "The config asks for decoding on the CPU.")
    machine = machine or probe_machine()
    check_device(device, machine.num_gpus)
    if index is None:
        return ReaderChoice("images", "cpu", "Pillow reads pictures.")
    if not machine.num_gpus:
        return ReaderChoice("pyav", "cpu", "This machine has no GPU, and PyAV reads every file in bounded memory.")
    gpu = "cuda:0" if device in {"auto", "cuda"} else device
    no_decord = machine.no_decord or decord.refuse(index, on_gpu=True)
    if no_decord is None:
        return ReaderChoice("decord", gpu, f"decord decodes {index.codec} on the GPU.")
    no_torchcodec = machine.no_torchcodec or torchcodec.refuse(index, on_gpu=True) or _no_nvdec(index)
    if no_torchcodec is None:
        return ReaderChoice("torchcodec", gpu, f"torchcodec decodes on the GPU; decord does not: {no_decord}.")
    return ReaderChoice("pyav", "cpu", f"No GPU decoder takes it: decord: {no_decord}; torchcodec: {no_torchcodec}.")


# What NVDEC of Hopper takes (Video Codec SDK, support matrix): no AV1, H.264 only with 8 bits and 4:2:0.
NVDEC_FORMATS = {
    "h264": ("yuv420p", "yuvj420p"),
    "hevc": ("yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "yuv444p10le"),
    "vp8": ("yuv420p",),
    "vp9": ("yuv420p", "yuv420p10le"),
    "mpeg4": ("yuv420p",),
    "mpeg2video": ("yuv420p",),
}


def _no_nvdec(index: VideoIndex) -> str | None:
    if index.pixel_format in NVDEC_FORMATS.get(index.codec, ()):
        return None
    return f"the GPU does not decode {index.codec} with pixels of {index.pixel_format}"
