"""Parts of a video as MP4 files in memory: decord reads a file from front to back, and ahead without limit."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice, pairwise

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from prelabel.errors import ReadError
from prelabel.readers.container import demux, open_video
from prelabel.readers.index import VideoIndex

MAX_COPIED_BYTES = 256_000_000
"""Of a part that is handed out by itself."""


def cut_pieces(index: VideoIndex, wanted: NDArray[np.int64]) -> Iterator[tuple[int, io.BytesIO]]:
    """Yields the pieces of a video that hold wanted frames, each an MP4 in memory, with its first frame's number."""
    if not len(wanted):
        return
    first = index.seek_point(wanted)
    edges = [*index.cut_points[index.cut_points >= first].tolist(), index.info.num_frames]
    with closing(_packets_from(index, first)) as packets:
        for start, end in pairwise(edges):
            if start > wanted[-1]:
                return
            # No frame crosses a cut point, so packets and frames have the same numbers there.
            piece = list(islice(packets, end - start))
            if np.searchsorted(wanted, start) < np.searchsorted(wanted, end):
                yield start, _copy_packets(index, start, piece)


def from_seek_point(index: VideoIndex, wanted: NDArray[np.int64]) -> tuple[int, io.BytesIO | str]:
    """Returns what to give decord so that it begins near the first wanted frame, and its first frame's number.

    That is the file itself, from its beginning, where the copy of a part would be large.
    """
    first = index.seek_point(wanted)
    if first:
        behind = index.cut_points[index.cut_points > wanted[-1]]
        end = int(behind[0]) if len(behind) else index.info.num_frames
        with closing(_packets_from(index, first)) as packets:
            piece = _take_small(islice(packets, end - first))
            if piece:
                return first, _copy_packets(index, first, piece)
    return 0, str(index.path)


def _take_small(packets: Iterable[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
    """Returns the packets; none if they are too large to be copied."""
    taken: list[Packet[VideoStream]] = []
    num_bytes = 0
    for packet in packets:
        num_bytes += packet.size
        if num_bytes > MAX_COPIED_BYTES:
            return []
        taken.append(packet)
    return taken


def _packets_from(index: VideoIndex, first: int) -> Generator[Packet[VideoStream], None, None]:
    """Yields the packets from a cut point on; reads over those before it where seeking leads elsewhere."""
    if first:
        with open_video(index.path) as (container, stream):
            container.seek(int(index.pts[first]), stream=stream)
            packets = (packet for packet in demux(container, stream) if packet.size)
            packet = next(packets, None)
            if packet is not None and packet.pts == index.pts[first]:
                yield packet
                yield from packets
                return
    with open_video(index.path) as (container, stream):
        yield from islice((packet for packet in demux(container, stream) if packet.size), first, None)


def _copy_packets(index: VideoIndex, start: int, packets: Sequence[Packet[VideoStream]]) -> io.BytesIO:
    """Returns an MP4 in memory that holds these packets, the first of which is frame `start`."""
    memory = io.BytesIO()
    try:
        with av.open(memory, "w", format="mp4") as output:
            target = output.add_stream_from_template(packets[0].stream)
            for packet in packets:
                packet.stream = target
                output.mux(packet)
    except av.error.FFmpegError as error:
        raise ReadError(
            f"{index.path.name}: frames from {start} on cannot be handed to decord: {error.strerror}: "
            "set reader.use: pyav"
        ) from error
    memory.seek(0)
    return memory
