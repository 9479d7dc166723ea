"""Reads from H.264 and HEVC packets which frames decode alone, which hold one field, and whether frames were lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# H.264: nal_unit_type, table 7-1; slice_type I and SI, table 7-6.
SLICE, PARTITION_A, IDR_SLICE, PARAMETERS, PICTURE_PARAMETERS = 1, 2, 5, 7, 8
SLICES = (SLICE, PARTITION_A, IDR_SLICE)
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
            _, slice_type = _Bits(unit[:SLICE_HEAD_BYTES]).numbers(2)
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
START_CODE = b"\0\0\1"
# Enough for all that is read of a unit: parameter sets with scaling matrices, and the start of a slice's header.
UNIT_HEAD_BYTES, SLICE_HEAD_BYTES = 1024, 32


def _units(packet: bytes, extradata: bytes | None, length_at: int) -> Iterator[bytes]:
    """Yields the first bytes of each NAL unit. With start codes, more than the unit may follow."""
    if extradata is None or len(extradata) <= length_at or extradata[0] != 1:
        at = packet.find(START_CODE)
        while at >= 0 and at + len(START_CODE) < len(packet):
            at += len(START_CODE)
            yield packet[at : at + UNIT_HEAD_BYTES]
            at = packet.find(START_CODE, at)
        return
    num_length_bytes = (extradata[length_at] & 3) + 1
    at = 0
    while at + num_length_bytes < len(packet):
        length = int.from_bytes(packet[at : at + num_length_bytes])
        at += num_length_bytes
        if length:
            yield packet[at : at + min(length, UNIT_HEAD_BYTES)]
        at += length


class _Bits:
    """Reads a NAL unit from its second byte on, bit by bit. After its end all bits are 0."""

    def __init__(self, unit: bytes) -> None:
        payload = unit[1:].replace(b"\0\0\3", b"\0\0")  # bytes that keep it free of start codes (7.4.1)
        self._bits = f"{int.from_bytes(payload):0{8 * len(payload)}b}"
        self._at = 0

    def take(self, num: int) -> int:
        """Returns the next bits as a number."""
        self._at += num
        return int(self._bits[self._at - num : self._at] or "0", 2)

    def number(self) -> int:
        """Returns an unsigned Exp-Golomb number (9.1); -1 for one that is cut off."""
        one = self._bits.find("1", self._at)
        length = 2 * (one - self._at) + 1
        if one < 0 or self._at + length > len(self._bits):
            self._at = len(self._bits)
            return -1
        return self.take(length) - 1

    def numbers(self, num: int) -> list[int]:
        """Returns several unsigned Exp-Golomb numbers."""
        return [self.number() for _ in range(num)]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """What is needed of a sequence parameter set of H.264 (7.3.2.1.1).

    Attributes:
        frame_num_bits: length of `frame_num`.
        has_planes: each colour is coded as a picture of its own.
        may_have_fields: a picture may be one field of a frame.
    """

    frame_num_bits: int
    has_planes: bool
    may_have_fields: bool


@dataclass(frozen=True, slots=True)
class _Slice:
    """The start of a slice's header of H.264 (7.3.3).

    Attributes:
        frame_num: counts the frames to which later ones may refer.
        num_frame_nums: `frame_num` is counted modulo this.
        field: 0 for a top field, 1 for a bottom field, None for a frame.
    """

    frame_num: int
    num_frame_nums: int
    field: int | None


class _ParameterSets:
    """The parameter sets of an H.264 stream: those in its head, then those between its slices."""

    def __init__(self, extradata: bytes | None) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._sequence_of_picture: dict[int, int] = {}
        for unit in _units_of_head(extradata or b""):
            self.read(unit)

    def read(self, unit: bytes) -> None:
        """Takes over a parameter set; ignores any other unit."""
        kind = unit[0] & 31
        if kind == PARAMETERS and len(unit) > 4:
            number, sequence = _read_sequence(unit)
            self._sequences[number] = sequence
        elif kind == PICTURE_PARAMETERS:
            picture, number = _Bits(unit[:SLICE_HEAD_BYTES]).numbers(2)
            self._sequence_of_picture[picture] = number

    def read_slice(self, unit: bytes) -> _Slice | None:
        """Returns the start of a slice's header; None if its parameter sets have not come."""
        bits = _Bits(unit[:SLICE_HEAD_BYTES])
        *_, picture = bits.numbers(3)
        sequence = self._sequences.get(self._sequence_of_picture.get(picture, -1))
        if sequence is None:
            return None
        bits.take(2 * sequence.has_planes)
        frame_num = bits.take(sequence.frame_num_bits)
        is_field = sequence.may_have_fields and bits.take(1)
        return _Slice(frame_num, 2**sequence.frame_num_bits, bits.take(1) if is_field else None)


def _units_of_head(extradata: bytes) -> Iterator[bytes]:
    """Yields the parameter sets in an avcC box (ISO/IEC 14496-15, 5.3.3.1), or behind start codes."""
    if extradata[:1] != b"\1":
        yield from _units(extradata, None, AVCC_LENGTH_AT)
        return
    at = 5
    for mask in (31, 255):  # the numbers of sequence and of picture parameter sets
        num = extradata[at] & mask if at < len(extradata) else 0
        at += 1
        for _ in range(num):
            length = int.from_bytes(extradata[at : at + 2])
            unit = extradata[at + 2 : at + 2 + length]
            at += 2 + length
            if unit:
                yield unit


# profile_idc of H.264 with `chroma_format_idc` in its parameters (7.3.2.1.1).
WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
MAX_FRAME_NUM_BITS = 16
"""The most bits of `frame_num` (7.4.2.1.1)."""


def _read_sequence(unit: bytes) -> tuple[int, _Sequence]:
    """Returns the number and the content of a sequence parameter set (7.3.2.1.1)."""
    bits = _Bits(unit)
    profile, _ = bits.take(8), bits.take(16)
    number, has_planes = bits.number(), False
    if profile in WITH_CHROMA_FORMAT:
        chroma = bits.number()
        has_planes = chroma == 3 and bool(bits.take(1))
        bits.numbers(2)  # bit depths
        bits.take(1)
        if bits.take(1):
            _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
    frame_num_bits = min(bits.number() + 4, MAX_FRAME_NUM_BITS)  # a damaged one may have a thousand digits
    order_kind = bits.number()
    if order_kind == 0:
        bits.number()
    elif order_kind == 1:
        bits.take(1)
        bits.numbers(2)
        bits.numbers(min(bits.number(), 255))
    bits.number()  # reference frames
    bits.take(1)
    bits.numbers(2)  # width and height
    return number, _Sequence(frame_num_bits, has_planes, not bits.take(1))


def _skip_scaling_lists(bits: _Bits, num: int) -> None:
    """Reads past scaling lists (7.3.2.1.1.1)."""
    for at in range(num):
        last = following = 8
        for _ in range((16 if at < 6 else 64) * bits.take(1)):
            if following:
                code = bits.number()  # signed: 0, 1, -1, 2, -2 … (9.1.1)
                following = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            last = following or last


class LoneFields:
    """Tells which H.264 packets hold one field only: a decoder makes one frame of two of them.

    Args:
        extradata: of the stream.
    """

    def __init__(self, extradata: bytes | None) -> None:
        self._extradata = extradata
        self._sets = _ParameterSets(extradata)

    def is_one(self, packet: bytes) -> bool:
        """Returns whether a packet holds one field. Call it for each packet, in stored order."""
        fields: set[int] = set()
        for unit in _units(packet, self._extradata, AVCC_LENGTH_AT):
            self._sets.read(unit)
            if unit[0] & 31 in SLICES:
                head = self._sets.read_slice(unit)
                if head is None or head.field is None:
                    return False
                fields.add(head.field)
        return len(fields) == 1


def lost_references(packets: Iterable[bytes], extradata: bytes | None) -> bool:
    """Returns whether an H.264 stream lacks frames that later ones refer to, by gaps in `frame_num` (7.4.3).

    A decoder then may show the frames after the gap in another order than that of their times.

    Args:
        packets: the frames in stored order.
        extradata: of the stream.
    """
    sets, last = _ParameterSets(extradata), -1
    for packet in packets:
        for unit in _units(packet, extradata, AVCC_LENGTH_AT):
            kind = unit[0] & 31
            sets.read(unit)
            if kind in SLICES and (head := sets.read_slice(unit)) is not None:
                following = (last + 1) % head.num_frame_nums
                if kind != IDR_SLICE and last >= 0 and head.frame_num not in (last, following):
                    return True
                last = head.frame_num if unit[0] >> 5 & 3 else last  # nal_ref_idc: later frames may refer to it
                break
    return False
