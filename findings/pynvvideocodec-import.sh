#!/usr/bin/env bash
# What:    NVIDIA's decoder package PyNvVideoCodec cannot be imported where there is no driver, and the error is no
#          ImportError: it is a RuntimeError about the library of the *encoder*. So `try: import … except ImportError`
#          does not catch it, even in a program that only decodes. Its wheel also installs two more top-level packages
#          with common names, `benchmarks` and `samples`.
# Expect:  an ImportError, and one top-level package.
# Version: pynvvideocodec 2.2.4 (PyPI), Python 3.11, Linux x86-64, without an NVIDIA driver
# Source:  run by this script
# Exits 0 while this is so, 1 once it has changed. With a driver, only the packages are looked at.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet --no-deps pynvvideocodec==2.2.4
venv/bin/python - <<'PY'
import ctypes
import sys
from importlib.metadata import files, version

folders = {file.parts[0] for file in files("pynvvideocodec")}
packages = sorted(folder for folder in folders if folder.isidentifier())
try:
    ctypes.CDLL("libnvidia-encode.so.1")
    has_driver = True
except OSError:
    has_driver = False
try:
    import PyNvVideoCodec

    seen = "imported"
except Exception as error:
    seen = f"{type(error).__name__}: {str(error).splitlines()[0]}"
print("pynvvideocodec", version("pynvvideocodec"), "| driver:", has_driver)
print("expected: one top-level package; without a driver, an ImportError")
print("seen:", packages, "|", seen)
unchanged = packages == ["PyNvVideoCodec", "benchmarks", "samples"]
sys.exit(0 if unchanged and (has_driver or seen.startswith("RuntimeError: Failed to load NVENC")) else 1)
PY
