"""Whether an H.264 picture decodes alone: read from its first slice (ITU-T H.264, 7.3.1, 7.3.3 and Annex B)."""

from __future__ import annotations

from collections.abc import Iterator

SLICE, PARTITION_A, IDR_SLICE = 1, 2, 5  # nal_unit_type, table 7-1
INTRA = (2, 4, 7, 9)  # slice_type I and SI, table 7-6


def has_inter_slice(packet: bytes, extradata: bytes | None) -> bool:
    """Returns whether a picture's first slice refers to others.

    An encoder that refreshes pictures column by column (x264's `intra-refresh`) marks those as keyframes with which it
    begins anew, and none but the first decodes alone.

    Args:
        packet: one picture.
        extradata: the stream's; tells whether NAL units come with their lengths or between start codes.
    """
    for unit in _units(packet, extradata):
        kind = unit[0] & 31
        if kind in (SLICE, PARTITION_A):
            return _slice_type(unit[1:17]) not in INTRA
        if kind == IDR_SLICE:
            return False
    return False


def _units(packet: bytes, extradata: bytes | None) -> Iterator[bytes]:
    if extradata is None or len(extradata) < 5 or extradata[0] != 1:
        yield from (unit for unit in packet.split(b"\0\0\1")[1:] if unit)
        return
    num_length_bytes = (extradata[4] & 3) + 1  # ISO/IEC 14496-15, 5.3.3.1
    at = 0
    while at + num_length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + num_length_bytes])
        at += num_length_bytes
        if length:
            yield packet[at : at + length]
        at += length


def _slice_type(header: bytes) -> int:
    """Returns the second of two Exp-Golomb numbers (9.1), after `first_mb_in_slice`."""
    bits = "".join(f"{byte:08b}" for byte in header)
    value = at = 0
    for _ in range(2):
        num_zeros = bits.find("1", at) - at
        if num_zeros < 0:
            return -1
        at += num_zeros
        value = int(bits[at : at + num_zeros + 1], 2) - 1
        at += num_zeros + 1
    return value
