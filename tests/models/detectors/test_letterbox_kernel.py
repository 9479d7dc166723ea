"""From surfaces or RGB frames to a network's input: the Triton kernel against torch, and torch against OpenCV."""

from __future__ import annotations

import importlib
import itertools
import sys
from types import ModuleType

import pytest
import torch

from prelabel.data.boxes import Letterbox
from prelabel.data.surfaces import Orientation, Surfaces
from prelabel.models.detectors import preprocess
from prelabel.models.detectors.preprocess import is_kernel_right, letterbox_frames, pad_frames, stretch_frames
from tests.builders import noise_surfaces

ORIENTATIONS = [Orientation(*flags) for flags in itertools.product([False, True], repeat=3)]
KERNEL = "prelabel.models.detectors.letterbox_kernel"


@pytest.fixture(scope="module")
def kernel() -> ModuleType:
    """The kernel's module as Triton interprets it on a CPU; what it is, is decided at its import."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        sys.modules.pop(KERNEL, None)
        module = importlib.import_module(KERNEL)
    del sys.modules[KERNEL]  # other tests import the kernel for a GPU
    return module


def boxes(height: int, width: int) -> list[Letterbox]:
    """Scaled down with padding, scaled up, halved, stretched, and in a corner."""
    return [
        Letterbox.fit(height, width, 32),
        Letterbox.fit_fixed(height, width, 80, 70),
        Letterbox(height // 2, width // 2, height // 2, width // 2, top=0, left=0),
        Letterbox(33, 31, 33, 31, top=0, left=0),
        Letterbox.fit_top_left(height, width, 32, 48),
    ]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_input_from_surfaces_is_the_input_from_their_rgb(orientation: Orientation):
    surfaces = noise_surfaces(2, 46, 62, orientation=orientation)
    rgb = surfaces.rgb()
    for box in boxes(*surfaces.shape[1:3]):
        assert torch.equal(letterbox_frames(surfaces, box), letterbox_frames(rgb, box))
        assert torch.equal(pad_frames(surfaces, box), pad_frames(rgb, box))
    assert torch.equal(stretch_frames(surfaces, 32, 48), stretch_frames(rgb, 32, 48))


def assert_kernel_is_right(kernel: ModuleType, frames: torch.Tensor | Surfaces, box: Letterbox, dtype: torch.dtype):
    expected = letterbox_frames(frames, box, dtype)
    found = kernel.letterbox_in_kernel(frames, box, dtype, channels_last=dtype == torch.uint8)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.uint8])
@pytest.mark.parametrize("number", range(5))
def test_the_kernel_letterboxes_surfaces_as_torch_does(number: int, dtype: torch.dtype, kernel: ModuleType):
    surfaces = noise_surfaces(2, 46, 62)
    assert_kernel_is_right(kernel, surfaces, boxes(46, 62)[number], dtype)


@pytest.mark.parametrize("number", range(5))
def test_the_kernel_letterboxes_frames_of_odd_size_as_torch_does(number: int, kernel: ModuleType):
    frames = torch.randint(0, 256, (2, 47, 61, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert_kernel_is_right(kernel, frames, boxes(47, 61)[number], torch.float16)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize("color_space", ["smpte170m", "bt709", "bt2020nc"])
def test_the_kernel_converts_colours_as_torch_does(
    color_space: str, is_full_range: bool, bits: int, kernel: ModuleType
):
    surfaces = noise_surfaces(1, 46, 62, color_space, is_full_range=is_full_range, bits=bits)
    assert_kernel_is_right(kernel, surfaces, Letterbox.fit(46, 62, 32), torch.float16)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_kernel_turns_frames_as_torch_does(orientation: Orientation, kernel: ModuleType):
    surfaces = noise_surfaces(1, 46, 62, orientation=orientation)
    assert_kernel_is_right(kernel, surfaces, Letterbox.fit(*surfaces.shape[1:3], 32), torch.float16)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("source", "target", "matrix", "divisor"),
    [("*u8", "*fp16", True, 255), ("*u16", "*fp32", True, 255), ("*u8", "*u8", False, 1)],
)
def test_the_kernel_compiles_for_gpus(source: str, target: str, matrix: bool, divisor: int, capability: int):
    compiler = pytest.importorskip("triton.compiler")
    from triton.backends.compiler import GPUTarget

    function = importlib.import_module(KERNEL)._letterbox
    constants = {
        "MATRIX": tuple(noise_surfaces(1, 4, 4).matrix) if matrix else (),
        "SHIFT": 6 if source == "*u16" else 0,
        "PAD_VALUE": 114,
        "DIVISOR": divisor,
        "BLOCK": 512,
    }
    types = {"source": source, "target": target, "rows": "*i32", "columns": "*i32"} | dict.fromkeys(
        constants, "constexpr"
    )
    signature = {name: types.get(name, "i32") for name in function.arg_names}
    compiled = compiler.compile(
        compiler.ASTSource(function, signature, constants), target=GPUTarget("cuda", capability, 32)
    )
    assert compiled.asm["cubin"]


def test_a_kernel_is_used_only_if_it_gives_torchs_pixels(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    cpu, is_right = torch.device("cpu"), is_kernel_right.__wrapped__
    monkeypatch.setitem(sys.modules, KERNEL, kernel)
    assert is_right(cpu)
    monkeypatch.setattr(kernel, "PAD_VALUE", 113)
    assert not is_right(cpu)
    assert "is not used on cpu: its pixels differ from torch's" in caplog.text
    monkeypatch.setitem(sys.modules, KERNEL, None)
    assert not is_right(cpu)
    assert "import of prelabel.models.detectors.letterbox_kernel halted" in caplog.text


@pytest.mark.needs_cuda
@pytest.mark.parametrize("orientation", ORIENTATIONS[:5])
def test_a_gpu_gives_the_input_of_the_cpu(orientation: Orientation):
    assert is_kernel_right(torch.device("cuda", 0))
    for surfaces in (noise_surfaces(2, 1080, 1920, orientation=orientation), noise_surfaces(2, 46, 62, bits=10)):
        on_gpu = Surfaces(surfaces.planes.cuda(), "bt709", is_full_range=False, orientation=surfaces.orientation)
        assert torch.equal(on_gpu.rgb().cpu(), surfaces.rgb())
        for box in boxes(*surfaces.shape[1:3]):
            expected = preprocess.letterbox_frames(surfaces, box, torch.float16)
            assert torch.equal(letterbox_frames(on_gpu, box, torch.float16).cpu(), expected)
            assert torch.equal(letterbox_frames(on_gpu.rgb(), box, torch.float16).cpu(), expected)
            assert torch.equal(pad_frames(on_gpu, box).cpu(), pad_frames(surfaces, box))
