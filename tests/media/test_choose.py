"""Which reader `auto` takes, and the reason that it gives."""

from __future__ import annotations

import pytest

from prelabel.errors import MachineError
from prelabel.media.choose import MachineFacts, probe_machine, select_reader
from prelabel.media.index import index_video
from tests.media.conftest import BuildClip

NO_GPU = MachineFacts(0, *["there is no GPU"] * 3)
NOT_INSTALLED = "PyNvVideoCodec is not installed"
ALL = MachineFacts(2, None, None, None)
BOTH = MachineFacts(2, None, None, NOT_INSTALLED)
PYPI = MachineFacts(1, "the installed decord has no GPU 0", None, NOT_INSTALLED)
NEITHER = MachineFacts(1, "the installed decord has no GPU 0", "FFmpeg's libraries are not installed", NOT_INSTALLED)


@pytest.mark.parametrize(
    ("name", "machine", "device", "use", "decodes_on", "reason"),
    [
        ("h264", NO_GPU, "auto", "pyav", "cpu", "this machine has no GPU"),
        ("h264", BOTH, "cpu", "pyav", "cpu", "the config asks for decoding on the CPU"),
        ("h264", BOTH, "auto", "decord", "cuda:0", "decord decodes h264 on the GPU"),
        ("h264", BOTH, "cuda:1", "decord", "cuda:1", "decord decodes h264 on the GPU"),
        ("h264", PYPI, "auto", "torchcodec", "cuda:0", "decord does not: the installed decord has no GPU 0"),
        ("h264", NEITHER, "auto", "pyav", "cpu", "torchcodec: FFmpeg's libraries are not installed"),
        ("h264 BT.709", BOTH, "cuda", "pyav", "cpu", "torchcodec: it names its colours"),
        ("h264 BT.709", ALL, "cuda", "nvdec", "cuda:0", "torchcodec does not: it names its colours"),
        ("h264 TS", ALL, "auto", "nvdec", "cuda:0", "torchcodec does not: its container is mpegts"),
        ("h264 10-bit", ALL, "auto", "pyav", "cpu", "nvdec: its pixels are yuv420p10le"),
        ("h264 TS", BOTH, "auto", "pyav", "cpu", "torchcodec: its container is mpegts"),
        ("h264 10-bit", BOTH, "auto", "pyav", "cpu", "the GPU does not decode h264 with pixels of yuv420p10le"),
        ("hevc 10-bit", BOTH, "auto", "torchcodec", "cuda:0", "its components have 10 bits"),
        ("av1", BOTH, "auto", "pyav", "cpu", "the GPU does not decode av1"),
    ],
)
def test_file_and_machine_decide(
    name: str, machine: MachineFacts, device: str, use: str, decodes_on: str, reason: str, clip: BuildClip
):
    choice = select_reader(index_video(clip(name).path), device, machine)
    assert (choice.use, choice.device) == (use, decodes_on)
    assert reason in choice.reason
    assert not choice.reason.endswith(".")


@pytest.mark.parametrize("machine", [NO_GPU, BOTH])
def test_pictures_are_read_by_pillow(machine: MachineFacts):
    assert select_reader(None, "auto", machine).use == "images"


def test_a_gpu_that_is_not_there_is_an_error(clip: BuildClip):
    with pytest.raises(MachineError, match="got 'cuda:2', this machine has 2 GPUs"):
        select_reader(index_video(clip("h264").path), "cuda:2", BOTH)


def test_this_machine_is_looked_at_by_default(clip: BuildClip):
    machine = probe_machine()
    index = index_video(clip("h264").path)
    assert select_reader(index, "auto") == select_reader(index, "auto", machine)
