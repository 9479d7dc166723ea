#!/usr/bin/env bash
# What:    in a Matroska file whose times begin below zero, FFmpeg's seek to a keyframe with a negative time leads to the
#          first keyframe after zero, without an error, although the default is to seek backward.
# Expect:  the keyframe of that time, or an earlier one.
# Version: av 18.1.0 (PyPI), which holds FFmpeg 8.1; it also writes the video
# Source:  run by this script. Readers that start at a keyframe lose the frames before zero this way.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 numpy==2.2.6
venv/bin/python - 2>/dev/null <<'PY'
import sys
from fractions import Fraction

import av
import numpy as np

with av.open("clip.mkv", "w", options={"avoid_negative_ts": "disabled"}) as file:
    stream = file.add_stream("libvpx", rate=30, options={"g": "12", "deadline": "realtime", "cpu-used": "8"})
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    for number in range(60):
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 4 * number, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number - 15, Fraction(1, 30)
        file.mux(stream.encode(frame))
    file.mux(stream.encode())


def keyframes(seek_to=None):
    """Returns the times of the keyframes from the place to which a seek leads."""
    with av.open("clip.mkv") as file:
        video = file.streams.video[0]
        if seek_to is not None:
            file.seek(seek_to, stream=video)
        return [packet.pts for packet in file.demux(video) if packet.size and packet.is_keyframe]


stored = keyframes()
led = {time: keyframes(time)[:1] for time in stored}
wrong = {time: place for time, place in led.items() if place != [time]}
print("av", av.__version__)
print(f"expected: a seek to each of the keyframes at {stored} leads there")
print(f"seen: {wrong or 'it does'}")
sys.exit(0 if wrong else 1)
PY
