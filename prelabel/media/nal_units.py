"""Reads from H.264 and HEVC packets which frames decode alone, and whether frames were lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# H.264: nal_unit_type, table 7-1; slice_type I and SI, table 7-6.
SLICE, PARTITION_A, IDR_SLICE, PARAMETERS = 1, 2, 5, 7
INTRA = (2, 4, 7, 9)
# HEVC: nal_unit_type, table 7-1.
FIRST_IRAP, LAST_IRAP, LAST_SLICE = 16, 23, 31


def needs_others(codec: str, packet: bytes, extradata: bytes | None) -> bool:
    """Returns whether a frame that its file marks as a keyframe refers to other frames.

    Some writers mark every frame. Only H.264 and HEVC are looked at; False for other codecs.

    Args:
        codec: FFmpeg's name.
        packet: one frame.
        extradata: of the stream; says whether NAL units have length prefixes or start codes.
    """
    if codec == "h264":
        return has_inter_slice(packet, extradata)
    return codec == "hevc" and not _is_random_access_point(packet, extradata)


def has_inter_slice(packet: bytes, extradata: bytes | None) -> bool:
    """Returns whether the first slice of an H.264 frame refers to other frames.

    An encoder with column-wise refresh (x264's `intra-refresh`) marks the first frame of each refresh as a keyframe. Of
    these, only the first of the file decodes alone.

    Args:
        packet: one frame.
        extradata: of the stream; says whether NAL units have length prefixes or start codes.
    """
    for unit in _units(packet, extradata, AVCC_LENGTH_AT):
        kind = unit[0] & 31
        if kind in (SLICE, PARTITION_A):
            (_, slice_type), _ = _numbers(unit, 2)
            return slice_type not in INTRA
        if kind == IDR_SLICE:
            return False
    return False


def _is_random_access_point(packet: bytes, extradata: bytes | None) -> bool:
    """Returns whether an HEVC frame is an IRAP picture, or has no slice."""
    kinds = (unit[0] >> 1 & 63 for unit in _units(packet, extradata, HVCC_LENGTH_AT))
    first = next((kind for kind in kinds if kind <= LAST_SLICE), FIRST_IRAP)
    return FIRST_IRAP <= first <= LAST_IRAP


# Byte of avcC and hvcC that holds the length of length prefixes (ISO/IEC 14496-15, 5.3.3.1 and 8.3.3.1).
AVCC_LENGTH_AT, HVCC_LENGTH_AT = 4, 21


def _units(packet: bytes, extradata: bytes | None, length_at: int) -> Iterator[bytes]:
    if extradata is None or len(extradata) <= length_at or extradata[0] != 1:
        yield from (unit for unit in packet.split(b"\0\0\1")[1:] if unit)
        return
    num_length_bytes = (extradata[length_at] & 3) + 1
    at = 0
    while at + num_length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + num_length_bytes])
        at += num_length_bytes
        if length:
            yield packet[at : at + length]
        at += length


# profile_idc of H.264 with `chroma_format_idc` in its parameters (7.3.2.1.1).
WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


def lost_references(packets: Iterable[bytes], extradata: bytes | None) -> bool:
    """Returns whether an H.264 stream lacks frames that later ones refer to, by gaps in `frame_num` (7.4.3).

    A decoder then may show the frames after the gap in another order than that of their times.

    Args:
        packets: the frames in stored order.
        extradata: of the stream.
    """
    num_bits, last = _frame_num_bits(extradata), -1
    for packet in packets:
        for unit in _units(packet, extradata, AVCC_LENGTH_AT):
            kind = unit[0] & 31
            if kind == PARAMETERS:
                num_bits = _read_frame_num_bits(unit)
            elif kind in (SLICE, PARTITION_A, IDR_SLICE) and num_bits:
                _, rest = _numbers(unit, 3)
                number = int(rest[:num_bits] or "0", 2)
                if kind != IDR_SLICE and last >= 0 and number not in (last, (last + 1) % 2**num_bits):
                    return True
                last = number if unit[0] >> 5 & 3 else last  # nal_ref_idc: later frames may refer to it
                break
    return False


def _frame_num_bits(extradata: bytes | None) -> int:
    """Returns how many bits `frame_num` has by the first parameter set in an avcC box; 0 if there is none."""
    if extradata is None or len(extradata) < 9 or extradata[0] != 1:
        return 0
    return _read_frame_num_bits(extradata[8 : 8 + int.from_bytes(extradata[6:8])])


def _read_frame_num_bits(parameters: bytes) -> int:
    """Returns `log2_max_frame_num` of a sequence parameter set (7.3.2.1.1); 0 for a rare kind that is not read."""
    if len(parameters) < 5:
        return 0
    rest = _bits(parameters[4:])
    (_, *chroma), rest = _take(rest, 4 if parameters[1] in WITH_CHROMA_FORMAT else 1)
    if chroma:
        has_planes, has_scaling_matrix = chroma[0] == 3, rest[1:2] == "1"
        if has_planes or has_scaling_matrix:
            return 0
        rest = rest[2:]
    (log2_max,), _ = _take(rest, 1)
    return log2_max + 4


def _numbers(unit: bytes, num: int) -> tuple[list[int], str]:
    """Returns the first Exp-Golomb numbers of a slice, and the bits after them."""
    return _take(_bits(unit[1:33]), num)


def _bits(data: bytes) -> str:
    """Returns the bits of a NAL unit, without the bytes that keep it free of start codes (7.4.1)."""
    return "".join(f"{byte:08b}" for byte in data.replace(b"\0\0\3", b"\0\0"))


def _take(bits: str, num: int) -> tuple[list[int], str]:
    """Returns Exp-Golomb numbers (9.1) and the bits after them; -1 for a number that is cut off."""
    values = []
    for _ in range(num):
        num_zeros = bits.find("1")
        length = 2 * num_zeros + 1
        values.append(-1 if num_zeros < 0 or length > len(bits) else int(bits[num_zeros:length], 2) - 1)
        bits = bits[length:] if num_zeros >= 0 else ""
    return values, bits
