"""Writes H.264 that mixes frames with pairs of fields (PAFF), which no encoder of FFmpeg does."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

import av
import numpy as np
from numpy.typing import NDArray

from tests.make_media import draw_number

WIDTH, HEIGHT, GOP, FIELDS_PER_SECOND = 96, 64, 12, 50


class _Bits:
    """Collects the bits of a NAL unit: fixed lengths and Exp-Golomb numbers (9.1 of H.264)."""

    def __init__(self) -> None:
        self._bits = ""

    def fixed(self, *pairs: tuple[int, int]) -> Self:
        """Adds (value, number of bits) pairs."""
        self._bits += "".join(f"{value:0{num}b}" for value, num in pairs if num)
        return self

    def numbers(self, *values: int) -> Self:
        """Adds unsigned Exp-Golomb numbers."""
        self._bits += "".join("0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}" for value in values)
        return self

    def aligned(self) -> bytes:
        """Returns whole bytes, filled up with zeros."""
        bits = self._bits + "0" * (-len(self._bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8)

    def ended(self) -> bytes:
        """Returns whole bytes behind the stop bit."""
        return self.fixed((1, 1)).aligned()


def _unit(importance: int, kind: int, payload: bytes) -> bytes:
    """Returns a NAL unit with a start code, its payload kept free of others (7.4.1)."""
    kept, num_zeros = bytearray(), 0
    for byte in payload:
        if num_zeros >= 2 and byte <= 3:
            kept.append(3)
            num_zeros = 0
        kept.append(byte)
        num_zeros = 0 if byte else num_zeros + 1
    return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(kept)


def _parameter_sets() -> bytes:
    """Main profile, fields allowed, at most one frame shown late, no deblocking."""
    sequence = _Bits().fixed((77, 8), (0, 8), (30, 8)).numbers(0, 0, 0, 4, 2).fixed((0, 1))
    sequence.numbers(WIDTH // 16 - 1, HEIGHT // 32 - 1).fixed((0, 2), (1, 1), (0, 1), (1, 1))
    sequence.fixed((0, 4), (1, 1), (1, 32), (FIELDS_PER_SECOND, 32), (1, 1), (0, 3), (3, 2))
    sequence.numbers(0, 0, 10, 10, 1, 2)
    picture = _Bits().numbers(0, 0).fixed((0, 2)).numbers(0, 0, 0).fixed((0, 3)).numbers(0, 0, 0).fixed((1, 1), (0, 2))
    return _unit(3, 7, sequence.ended()) + _unit(3, 8, picture.ended())


def _planes(number: int) -> list[NDArray[np.uint8]]:
    """Returns a picture as planes of Y, U and V (BT.601, limited range); no byte is 0."""
    frame = av.VideoFrame.from_ndarray(draw_number(number, WIDTH, HEIGHT), "rgb24").reformat(format="yuv420p")
    stacked = np.maximum(frame.to_ndarray(), 1)
    sizes = [(HEIGHT, WIDTH), (HEIGHT // 2, WIDTH // 2), (HEIGHT // 2, WIDTH // 2)]
    ends = np.cumsum([height * width for height, width in sizes])
    return [part.reshape(size) for part, size in zip(np.split(stacked.ravel(), ends[:-1]), sizes, strict=True)]


def _slice(number: int, frame_num: int, *, is_key: bool, is_reference: bool, field: int | None) -> bytes:
    """Returns a picture of uncompressed blocks (I_PCM): a frame, its top field (0) or its bottom field (1)."""
    head = _Bits().numbers(0, 7, 0).fixed((frame_num % 16, 4), (field is not None, 1))
    head.fixed(*([] if field is None else [(field, 1)])).numbers(*([0] if is_key else []))
    head.fixed((number % GOP * 2 + (field or 0), 8), (0, 2 * is_key or int(is_reference))).numbers(0, 1)
    y, u, v = (plane if field is None else plane[field::2] for plane in _planes(number))
    payload = b""
    for row in range(y.shape[0] // 16):
        for column in range(y.shape[1] // 16):
            payload += (head if not payload else _Bits()).numbers(25).aligned()
            for plane, size in ((y, 16), (u, 8), (v, 8)):
                payload += plane[row * size : (row + 1) * size, column * size : (column + 1) * size].tobytes()
    return _unit(2 * is_reference, 5 if is_key else 1, payload + b"\x80")


def write_fields(
    path: Path, num_frames: int, is_pair: Callable[[int], bool], packet: Literal["frame", "field"]
) -> Path:
    """Writes a video that shows 0, 1, 2 …, every second frame stored after the one that follows it.

    Args:
        path: of the file; the suffix names the container.
        num_frames: to write.
        is_pair: whether a frame is coded as two fields.
        packet: what a packet holds.
    """
    order = [number for start in range(0, num_frames, GOP) for number in _stored_order(start, num_frames)]
    pictures, frame_num, was_reference = [], 0, False
    for number in order:
        is_key, is_reference = number % GOP == 0, number % 2 == 0 or number + 1 in (num_frames, order[0])
        frame_num = 0 if is_key else frame_num + was_reference
        was_reference = is_reference
        units = [
            _slice(number, frame_num, is_key=is_key and field != 1, is_reference=is_reference, field=field)
            for field in ((0, 1) if is_pair(number) else (None,))
        ]
        units[0] = _parameter_sets() + units[0] if is_key else units[0]
        pictures.append((number, is_key, [b"".join(units)] if packet == "frame" else units))
    everything = b"".join(unit for _, _, units in pictures for unit in units)
    with av.open(io.BytesIO(everything), format="h264") as raw, av.open(path, "w") as output:
        stream = output.add_stream_from_template(raw.streams.video[0])
        stream.time_base = Fraction(1, FIELDS_PER_SECOND)
        for place, (number, is_key, units) in enumerate(pictures):
            for field, data in enumerate(units):
                copy = av.Packet(data)
                copy.stream, copy.time_base = stream, stream.time_base
                copy.pts, copy.dts, copy.is_keyframe = 2 * number + field, 2 * place + field - 2, is_key and not field
                output.mux(copy)
    return path


def _stored_order(start: int, num_frames: int) -> list[int]:
    """Returns a group's frames as stored: 0, 2, 1, 4, 3 …"""
    end = min(start + GOP, num_frames)
    order = [start]
    for number in range(start + 1, end, 2):
        order += [number + 1, number] if number + 1 < end else [number]
    return order
