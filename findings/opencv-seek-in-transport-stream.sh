#!/usr/bin/env bash
# What:    setting CAP_PROP_POS_FRAMES on an MPEG transport stream gives other frames than reading on to that number,
#          and read() returns True.
# Expect:  the frame of that number, or False.
# Version: opencv-python-headless 5.0.0.93, av 18.1.0 (PyPI), which writes the video
# Source:  run by this script. Loops that label every Nth frame use this call.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet opencv-python-headless==5.0.0.93 av==18.1.0 numpy==2.2.6 
venv/bin/python - 2>/dev/null <<'PY'
import importlib.metadata
import sys

import av
import cv2
import numpy as np


def wrong(name):
    """Returns at which of the frames 0, 7, 14, ... the picture is another than reading in order gives."""
    with av.open(name, "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"x264-params": "keyint=12:bframes=2:scenecut=0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 4 * number, np.uint8), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    capture, in_order = cv2.VideoCapture(name), []
    while (read := capture.read())[0]:
        in_order.append(read[1].mean())
    capture, bad = cv2.VideoCapture(name), []
    for number in range(0, 60, 7):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        flag, picture = capture.read()
        if flag and abs(picture.mean() - in_order[number]) > 2:
            bad.append(number)
    return bad


mp4, ts = wrong("clip.mp4"), wrong("clip.ts")
print("opencv-python-headless", importlib.metadata.version("opencv-python-headless"))
print("expected: no wrong frame in either container")
print(f"seen: wrong in MP4: {mp4 or 'none'}; wrong in TS: {ts or 'none'}")
sys.exit(0 if not mp4 and ts else 1)
PY
