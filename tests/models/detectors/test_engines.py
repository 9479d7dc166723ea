from __future__ import annotations

import gc
import importlib.util
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from prelabel import Detections
from prelabel.cli.app import app
from prelabel.data.boxes import iou_matrix
from prelabel.errors import ConfigError, MachineError
from prelabel.models.detectors.ultralytics import UltralyticsDetector
from prelabel.models.detectors.ultralytics_engines import choose_engine
from prelabel.models.engines import EngineKey, built_engine, engines_folder
from prelabel.models.openvino import compile_for_cpu, cpu_has_bfloat16
from prelabel.testing import check_detector
from tests.make_media import RECIPES, write_clip
from tests.models.detectors.checkpoints import as_batch, blocky_frames, heavy_imports

LOW = {"conf": 0.02, "raw_conf": 0.02, "imgsz": 160, "device": "cpu", "engine": "torch"}
KEY = EngineKey("0" * 64, "onnx", "Some GPU (80 GB)", "any", "float32", "nms", "runtime 1.0")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the module's engines are kept, so that each is built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache_home(kept, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))


def assert_same(found: list[Detections], expected: list[Detections]) -> None:
    """Boxes of like confidence may change places, and those that are cut off by `max_det` may differ."""
    assert sum(map(len, expected)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == pytest.approx(len(theirs), abs=2)
        same = (iou_matrix(theirs.xyxy, ours.xyxy) > 0.99) & (theirs.class_id[:, None] == ours.class_id)
        same &= np.abs(theirs.confidence[:, None] - ours.confidence) < 1e-4
        assert same.any(axis=1).mean() > 0.95


@pytest.fixture
def no_room_for_engines(tmp_path, monkeypatch):
    """A file stands where the folder of engines should be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "prelabel").mkdir()
    (tmp_path / "prelabel" / "engines").write_text("")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_boxes_equal_those_of_torch_for_any_batch_and_frame_size(checkpoint, engine):
    options = {"weights": str(checkpoint("yolo11n")), **LOW}
    in_torch = UltralyticsDetector(**options)

    detector = UltralyticsDetector(**options | {"engine": engine, "half": False})

    assert detector.warnings == ()
    assert detector.traits.model.engine.startswith(f"{engine} ")
    assert detector.class_names == in_torch.class_names
    for frames in (blocky_frames(3), blocky_frames(1, 240, 200)):
        assert_same(detector.detect(as_batch(frames)), in_torch.detect(as_batch(frames)))


@pytest.mark.slow
def test_rtdetr_stays_in_float32_unless_asked(checkpoint):
    detector = UltralyticsDetector(weights=str(checkpoint("yolov8n-rtdetr")), **LOW | {"engine": "openvino"})

    assert detector.traits.model.engine.endswith("float32")


def test_boxes_of_an_end_to_end_head_equal_those_of_torch(checkpoint):
    options = {"weights": str(checkpoint("yolo26n")), "nms": False, **LOW}
    frames = as_batch(blocky_frames(2, 96, 160))
    expected = UltralyticsDetector(**options).detect(frames)

    found = UltralyticsDetector(**options | {"engine": "openvino", "half": False}).detect(frames)

    assert_same(found, expected)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_detector_in_another_engine_keeps_its_contract(checkpoint, engine):
    weights = str(checkpoint("yolo11n"))

    check_detector(UltralyticsDetector(weights=weights, **LOW | {"engine": engine}), blocky_frames(3))


def test_by_default_a_cpu_computes_in_bfloat16_and_detects_much_the_same(checkpoint):
    if not cpu_has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    options = {"weights": str(checkpoint("yolo11n")), **LOW}
    frames = as_batch(blocky_frames(1))
    (expected,) = UltralyticsDetector(**options).detect(frames)

    detector = UltralyticsDetector(**options | {"engine": "auto"})

    (found,) = detector.detect(frames)
    assert detector.traits.model.engine.endswith("bfloat16")
    sure = expected.xyxy[expected.confidence > 0.1]
    assert np.median(iou_matrix(sure, found.xyxy).max(axis=1)) > 0.9


@pytest.mark.slow
def test_a_run_of_a_cached_openvino_engine_imports_no_torch(checkpoint, tmp_path):
    weights, clip = checkpoint("yolo11n"), write_clip(tmp_path / "clip.mp4", RECIPES["h264"]).path
    UltralyticsDetector(weights=str(weights), device="cpu")

    imported = heavy_imports("run", clip, "--weights", weights, "--device", "cpu", "--output", tmp_path / "out")

    assert (tmp_path / "out" / "clip.labels.json").exists()
    assert imported == []


@pytest.mark.usefixtures("no_room_for_engines")
def test_an_engine_that_cannot_be_built_is_replaced_by_torch_and_said_so(checkpoint):
    detector = UltralyticsDetector(weights=str(checkpoint("yolo11n")), **LOW | {"engine": "onnx"})

    (warning,) = detector.warnings
    assert "engine onnx: " in warning
    assert "runs in torch instead" in warning
    assert detector.traits.model.engine.startswith("torch ")
    assert len(detector.detect(as_batch(blocky_frames(1)))[0])


def test_an_engine_is_built_once_for_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "graph").write_text("graph")

    first, again = built_engine(KEY, build), built_engine(KEY, build)

    assert first == again
    assert (first / "graph").read_text() == "graph"
    assert len(built) == 1
    assert first.is_relative_to(engines_folder())


@pytest.mark.parametrize("change", [{"versions": "runtime 2.0"}, {"weights_sha256": "0" * 12 + "1" * 52}])
def test_a_stale_engine_is_replaced(tmp_path, monkeypatch, change):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stale = built_engine(KEY, lambda folder: (folder / "graph").write_text("old"))

    fresh = built_engine(replace(KEY, **change), lambda folder: (folder / "graph").write_text("new"))

    assert fresh == stale
    assert (fresh / "graph").read_text() == "new"
    assert [path.name for path in fresh.parent.iterdir()] == [fresh.name]


def test_an_engine_that_another_process_has_built_meanwhile_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build(folder: Path) -> None:
        built_engine(KEY, lambda other: (other / "graph").write_text("of the other process"))
        (folder / "graph").write_text("of this process")

    built = built_engine(KEY, build)

    assert (built / "graph").read_text() == "of the other process"
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_engines_of_other_devices_and_precisions_are_kept_beside(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keys = [KEY, replace(KEY, device="Other GPU"), replace(KEY, precision="float16")]

    places = {built_engine(key, lambda folder: None) for key in keys}

    assert len(places) == 3


def test_a_failed_build_leaves_what_was_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = built_engine(KEY, lambda folder: (folder / "graph").write_text("old"))

    def fail(folder: Path) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        built_engine(replace(KEY, versions="runtime 2.0"), fail)

    assert (kept / "graph").read_text() == "old"
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_auto_is_openvino_on_a_cpu_and_torch_on_a_gpu():
    cpu, cuda = "cpu", "cuda:0"

    assert choose_engine("auto", cpu, Path("a.pt")) == "openvino"
    assert choose_engine("auto", cuda, Path("a.pt")) == "torch"
    assert choose_engine("auto", cpu, Path("a.onnx")) == "torch"  # as the export has it


@pytest.mark.parametrize(
    ("engine", "device", "weights", "complaint"),
    [
        ("tensorrt", "cpu", "a.pt", "tensorrt does not run on cpu, these do: auto, torch, onnx, openvino"),
        ("openvino", "cuda", "a.pt", "openvino does not run on cuda"),
        ("onnx", "cpu", "a.engine", "a.engine is an export, which brings its own: leave engine out"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(engine, device, weights, complaint):
    with pytest.raises(ConfigError, match=complaint):
        choose_engine(engine, device, Path(weights))


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed")
def test_a_missing_package_is_named():
    with pytest.raises(MachineError, match="uv add tensorrt"):
        choose_engine("tensorrt", "cuda:0", Path("a.pt"))


def test_export_model_builds_what_a_run_then_finds(checkpoint):
    arguments = ["export-model", str(checkpoint("yolo11n")), "--engine", "onnx", "--imgsz", "160"]

    ended = CliRunner().invoke(app, arguments)

    assert ended.exit_code == 0, ended.output
    assert "runs in onnx" in ended.output
    assert list(engines_folder().rglob("model.onnx"))


@pytest.mark.usefixtures("no_room_for_engines")
def test_export_model_ends_with_1_where_torch_must_do(checkpoint):
    ended = CliRunner().invoke(app, ["export-model", str(checkpoint("yolo11n")), "--engine", "onnx"])

    assert ended.exit_code == 1
    assert "torch instead" in ended.output


@pytest.mark.slow
@pytest.mark.needs_test_data
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_real_boxes_equal_those_of_torch(test_data, engine):
    import av

    with av.open(test_data / "clips" / "street_1080p30.mp4") as container:
        frames = [f.to_ndarray(format="rgb24") for f, _ in zip(container.decode(video=0), range(21), strict=False)]
    batch = as_batch(np.stack(frames[::10]))
    options = {"weights": str(test_data / "weights" / "yolo11n_coco.pt"), "device": "cpu"}

    found = UltralyticsDetector(engine=engine, half=False, **options).detect(batch)

    assert_same(found, UltralyticsDetector(engine="torch", **options).detect(batch))


@pytest.mark.needs_cuda
def test_tensorrt_finds_what_torch_finds(checkpoint):
    pytest.importorskip("tensorrt")
    options = {"weights": str(checkpoint("yolo11n")), **LOW, "device": "cuda"}
    frames = as_batch(blocky_frames(3))
    expected = UltralyticsDetector(**options).detect(frames)

    detector = UltralyticsDetector(**options | {"engine": "tensorrt"})

    assert detector.warnings == ()
    for ours, theirs in zip(detector.detect(frames), expected, strict=True):
        sure = theirs.xyxy[theirs.confidence > 0.1]
        assert np.median(iou_matrix(sure, ours.xyxy).max(axis=1)) > 0.9


def test_a_signal_may_come_after_models_are_gone_in_the_order_of_their_making(checkpoint):
    """Each model had a Core of its own, whose CPU plugin changes the thread's signal stack."""
    detector = UltralyticsDetector(weights=str(checkpoint("yolo11n")), **LOW | {"engine": "openvino"})
    graph = next(engines_folder().rglob("model.onnx"))
    models = [compile_for_cpu(graph, half=False) for _ in range(2)]
    del detector
    while models:
        models.pop(0)
        gc.collect()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_long_keys_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = (replace(KEY, head=", ".join(f"class {n}" for n in range(first, 200))) for first in (0, 1))
    folders = {built_engine(key, lambda folder: (folder / "graph").write_text("")) for key in (one, other, one)}
    assert len(folders) == 2
    assert all((folder / "graph").exists() for folder in folders)
