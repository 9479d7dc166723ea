"""Converts decoded frames to displayed RGB images, bit-equal to `ffmpeg -pix_fmt rgb24`."""

from __future__ import annotations

import av.filter
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from prelabel.data.surfaces import Orientation

# Matrix coefficients of H.273 that FFmpeg 8.1 does not convert, and what FFmpeg up to 7 took in their place: for the
# reserved value its default, for BT.2020 with constant luminance the other BT.2020.
CONVERTED_AS = {3: 2, 10: 9}
UNSPECIFIED = 2


class FrameConverter:
    """Rotates, scales and converts frames with FFmpeg's own filters. For one thread.

    Calling swscale directly (PyAV's `reformat`) gives other pixels: 47 dB apart at 10 bits, and it converts each field
    of an interlaced frame separately. A frame of another size is scaled to the video's size, as FFmpeg does when the
    size changes in mid-stream.
    """

    def __init__(self, width: int, height: int, orientation: Orientation, threads: int) -> None:
        self._size = (width, height)
        self._orientation = orientation
        self._threads = threads
        self._graph: av.filter.Graph | None = None
        self._key: tuple[object, ...] = ()

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Returns the image, (H, W, 3) uint8 RGB; the view is valid until the next call.

        Raises:
            av.error.FFmpegError: FFmpeg cannot convert the frame's colours.
        """
        # These two do not change the RGB values, but FFmpeg 8.1 refuses values that the standard reserves.
        frame.color_primaries = frame.color_trc = UNSPECIFIED
        frame.colorspace = CONVERTED_AS.get(int(frame.colorspace), int(frame.colorspace))
        key = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if self._graph is None or key != self._key:
            self._graph, self._key = self._build(frame), key
        frame.pts = None
        self._graph.vpush(frame)
        plane = self._graph.vpull().planes[0]
        width, height = self._size
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)
        return rows[:, : width * 3].reshape(height, width, 3)

    def _build(self, frame: VideoFrame) -> av.filter.Graph:
        width, height = self._size
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
            f":colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )
        graph = av.filter.Graph()
        graph.threads = self._threads
        chain = [("buffer", source), *self._orientation.filters()]
        chain += [("scale", f"w={width}:h={height}:flags=bicubic"), ("format", "pix_fmts=rgb24"), ("buffersink", "")]
        graph.link_nodes(*(graph.add(name, args or None) for name, args in chain))
        graph.configure()
        return graph
