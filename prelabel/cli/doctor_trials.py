"""The trials of the doctor: imports, GPUs, decoders on a test video, and the demo's detector.

Each trial returns a description of what works, or raises an error.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.data.frames import FrameBatch, Media
from prelabel.errors import MachineError, ReadError
from prelabel.files import demo
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import VideoReader

NUM_FRAMES, WIDTH, HEIGHT = 24, 256, 144
"""Size of the test video. NVDEC does not decode much smaller frames."""
BATCH_SIZE = 8
FFMPEG_CODEC_VERSIONS = range(63, 57, -1)  # libavcodec's versions in FFmpeg 9 down to 4, which torchcodec supports


def import_torch() -> str:
    """Checks that torch and torchvision fit together, with an operator that torchvision adds to torch."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist()
    if kept != [0]:
        raise MachineError(f"torchvision.ops.nms kept boxes {kept}, expected [0]")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"torch {torch.__version__} ({build}), torchvision {torchvision.__version__}: they work together"


def list_gpus() -> str:
    """Describes the GPUs that torch can use, and the driver's version.

    Raises:
        MachineError: torch can use no GPU.
    """
    import torch

    from prelabel.media.cuda import count_engines

    if not torch.cuda.is_available():
        raise MachineError(f"torch {torch.__version__} {_why_no_gpu()}")
    named = []
    for number in range(torch.cuda.device_count()):
        gpu, engines = torch.cuda.get_device_properties(number), count_engines(f"cuda:{number}", "h264")
        named.append(
            f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor}, "
            f"H.264 decoding engines: {engines}"
        )
    return "; ".join([*named, f"driver {_driver_version()}"])


def _why_no_gpu() -> str:
    import torch

    if not torch.version.cuda:
        return "is built without CUDA"
    try:
        torch.cuda.init()
    except RuntimeError as error:  # only this error shows that a driver is too old
        return f"sees none: {str(error).partition('. ')[0]}"
    return "sees none"


def _driver_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "of unknown version"
    return ", ".join(dict.fromkeys(said.split()))


def write_test_clip(clip: Path) -> str:
    """Writes the test video for the decoders. Each frame shows its own number."""
    import av

    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(draw_number(number), format="rgb24")))
        container.mux(stream.encode())
    return f"{NUM_FRAMES} frames of H.264, {WIDTH} x {HEIGHT}"


def draw_number(number: int) -> NDArray[np.uint8]:
    """Returns a frame, uint8 (H, W, 3), with eight columns, one per bit of the number; a set bit is white."""
    bits = np.unpackbits(np.array([number], np.uint8))
    return np.broadcast_to(np.repeat(bits * np.uint8(255), WIDTH // 8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def read_numbers(frames: NDArray[np.float32]) -> list[int]:
    """Returns the number that each frame shows, for grey frames (N, H, W), 0..255."""
    columns = frames.reshape(len(frames), HEIGHT, 8, WIDTH // 8).mean(axis=(1, 3))
    numbers: list[int] = np.packbits(columns > 127, axis=1)[:, 0].tolist()
    return numbers


def decode(reader: str, device: str, clip: Path) -> str:
    """Decodes the whole test video with a reader, and checks the number in each frame."""
    numbers: list[int] = []
    with _open(reader, device, clip) as video:
        for batch in video.batches(np.arange(video.info.num_frames, dtype=np.int64), BATCH_SIZE):
            numbers += read_numbers(batch.data.float().mean(dim=3).cpu().numpy())
    if len(numbers) != NUM_FRAMES:
        raise ReadError(f"decoded {len(numbers)} of {NUM_FRAMES} frames")
    for expected, number in enumerate(numbers):
        if number != expected:
            raise ReadError(f"frame {number} came in the place of frame {expected}")
    return f"decoded {NUM_FRAMES} of {NUM_FRAMES} frames, each the right one"


def detect_on_gpus() -> str:
    """Runs the demo's detector on one batch, on each GPU."""
    import torch

    numbers = range(torch.cuda.device_count())
    if not numbers:
        raise MachineError("torch sees no GPU")
    return "; ".join(f"cuda:{number}: {detect(f'cuda:{number}')}" for number in numbers)


def detect(device: str) -> str:
    """Runs the demo's detector on one batch of the demo's clip."""
    weights = "demo" if device == "cpu" else "demo_shapes"  # the same network, for torch
    config = check_config({"source": {"use": "demo"}, "detector": {"weights": weights, "device": device}}, "demo")
    detector = assemble(config, Path()).detection.detector
    with _open("pyav", "cpu", demo.FOLDER / demo.CLIP_NAME) as video:
        batch: FrameBatch = next(iter(video.batches(np.arange(BATCH_SIZE, dtype=np.int64), BATCH_SIZE)))
        num_boxes = sum(map(len, detector.detect(batch)))  # the first batch also warms up
        began = time.perf_counter()
        detector.detect(batch)
        seconds = time.perf_counter() - began
    return f"{num_boxes} boxes on {len(batch)} frames, {1000 * seconds / len(batch):.0f} ms a frame"


def load_ffmpeg() -> str:
    """Loads the system's FFmpeg in the way that torchcodec does."""
    for version in FFMPEG_CODEC_VERSIONS:
        try:
            ctypes.CDLL(f"libavcodec.so.{version}")
        except OSError:
            continue
        return f"libavcodec.so.{version}"
    raise MachineError("no libavcodec.so of FFmpeg 4 to 9")


def load_nvcuvid() -> str:
    """Loads the driver's library for NVDEC."""
    capabilities = os.environ.get("NVIDIA_DRIVER_CAPABILITIES", "not set")
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError as error:
        raise MachineError(f"no libnvcuvid.so.1; NVIDIA_DRIVER_CAPABILITIES: {capabilities}") from error
    return "libnvcuvid.so.1"


def _open(reader: str, device: str, clip: Path) -> VideoReader:
    plugin = load_plugin("reader", reader, Path())
    opened: VideoReader = plugin.build(Media("video", (clip,)), options={"device": device})
    return opened
