#!/usr/bin/env bash
# What:    `frame.side_data` raises "ValueError: 31 is not a valid Type" for a frame of a JPEG video with EXIF, so that
#          nothing of the frame's side data can be read, not even its rotation.
# Expect:  the side data; a kind that PyAV has no name for is left out, or has its number as its type.
# Version: av 18.1.0 (PyPI), which holds FFmpeg 8.1 and also writes the video
# Source:  run by this script. Cameras write EXIF into the frames of their JPEG videos; views of MV-HEVC raise with 29.
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 numpy==2.2.6
venv/bin/python - 2>/dev/null <<'PY'
import struct
import sys

import av
import numpy as np

ORIENTATION, TURNED_90 = 0x0112, 6
ENTRY = struct.pack("<HHIHH", ORIENTATION, 3, 1, TURNED_90, 0)
EXIF = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + ENTRY + bytes(4)
SEGMENT = b"\xff\xe1" + struct.pack(">H", len(EXIF) + 2) + EXIF


def side_data(name, segment):
    """Writes a frame of JPEG with this segment after its first two bytes; returns the kinds of its side data."""
    with av.open(name, "w") as file:
        stream = file.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 99, np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            data = bytes(packet)
            copy = av.Packet(data[:2] + segment + data[2:])
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, stream
            file.mux(copy)
    with av.open(name) as file:
        try:
            return sorted(kind.type.name for kind in next(file.decode(video=0)).side_data)
        except ValueError as error:
            return f"ValueError: {error}"


plain, with_exif = side_data("plain.avi", b""), side_data("exif.avi", SEGMENT)
print("av", av.__version__)
print("expected: DISPLAYMATRIX among the side data of a frame with EXIF that says how it is turned")
print(f"seen: without EXIF: {plain}; with EXIF: {with_exif}")
sys.exit(0 if isinstance(plain, list) and isinstance(with_exif, str) else 1)
PY
