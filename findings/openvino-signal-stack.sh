#!/usr/bin/env bash
# What:    Asking OpenVINO's CPU device for a property replaces the thread's alternative signal stack, on which Python
#          runs its signal handlers, by a smaller one of OpenVINO's own. Dropping the Core puts the former one back.
#          (With several Cores, the stack that is put back may be gone. The next signal then ends the process.)
# Expect:  a library for inference leaves the handling of signals alone.
# Version: openvino 2026.4.1 (PyPI), Python 3.11, Linux x86-64
# Source:  run by this script; seen in a debugger: sigaltstack is called by libopenvino_intel_cpu_plugin.so
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet openvino==2026.4.1
venv/bin/python - <<'PY'
import ctypes
import faulthandler
import gc
import sys
from importlib.metadata import version

import openvino


class Stack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack():
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.address, stack.size


faulthandler.enable()  # gives the main thread an alternative signal stack
before = signal_stack()
core = openvino.Core()
core.get_property("CPU", "FULL_DEVICE_NAME")
during = signal_stack()
del core
gc.collect()
after = signal_stack()
print("openvino", version("openvino"))
print("expected: the same stack before, during and after")
print("seen: sizes", before[1], during[1], after[1], "| replaced:", during != before, "| put back:", after == before)
sys.exit(0 if during != before and after == before else 1)
PY
