"""Devices by name. `device: mps` can only be tried on a Mac, so torch is made to say that this is one."""

from __future__ import annotations

import pytest
import torch

from prelabel.errors import ConfigError, MachineError
from prelabel.models.detectors.onnx import OnnxDetector
from prelabel.models.detectors.ultralytics_engines import choose_engine
from prelabel.models.devices import name_device, pick_device

no_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has the device")


@no_mps
def test_mps_is_refused_where_torch_does_not_see_it() -> None:
    with pytest.raises(MachineError, match=r"device: got 'mps'.*sees none: set device: cpu, or auto"):
        name_device("mps")


@pytest.fixture
def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("on_a_mac")
def test_mps_has_to_be_asked_for() -> None:
    assert name_device("mps") == "mps"
    assert pick_device("mps:0").type == "mps"
    assert pick_device("auto").type == "cpu"


@pytest.mark.usefixtures("on_a_mac")
def test_a_graph_does_not_run_on_mps() -> None:
    with pytest.raises(ConfigError, match=r"detector\.device: mps is for networks in torch"):
        OnnxDetector(weights="demo", device="mps")


def test_ultralytics_runs_on_mps_in_torch(tmp_path) -> None:
    assert choose_engine("auto", "mps", tmp_path / "best.pt") == "torch"
    with pytest.raises(ConfigError, match="onnx does not run on mps, these do: auto, torch"):
        choose_engine("onnx", "mps", tmp_path / "best.pt")


@pytest.mark.parametrize("name", ["gpu", "xpu", "cuda:one"])
def test_an_unknown_device_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: got '{name}', expected auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)
