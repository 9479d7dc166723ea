#!/usr/bin/env bash
# What:    OpenVINO computes a float32 graph in bfloat16 on a CPU that has it, unless the caller sets
#          INFERENCE_PRECISION_HINT. The outputs are still called float32.
# Expect:  a float32 graph is computed in float32, as ONNX Runtime does; bfloat16 is asked for.
# Version: openvino 2026.4.1 (PyPI), Python 3.11, a CPU with AVX512-BF16; on other CPUs there is nothing to see
# Source:  run by this script
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet openvino==2026.4.1 onnx==1.23.0 numpy==2.4.4
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = rng.standard_normal((32, 32, 3, 3)).astype(np.float32)
image = rng.standard_normal((1, 32, 64, 64)).astype(np.float32)
node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
graph = helper.make_graph(
    [node], "conv",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, image.shape)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, image.shape)],
    [numpy_helper.from_array(weights, "w")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "conv.onnx")

core = openvino.Core()
print("openvino", version("openvino"), "on", core.get_property("CPU", "FULL_DEVICE_NAME"))
if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
    print("this CPU does not compute in bfloat16: nothing to see")
    sys.exit(0)
model = core.read_model("conv.onnx")
exact = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image])[0]
default = core.compile_model(model, "CPU")([image])[0]
error = float(np.abs(default - exact).max() / np.abs(exact).max())
print("expected: a largest error below 0.00001 of the largest value")
print(f"seen: {error:.5f}, output type {default.dtype}")
sys.exit(0 if error > 0.0005 and default.dtype == np.float32 else 1)
PY
