"""What the bits of H.264 and HEVC packets tell."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.media.nal_units import LoneFields, _read_sequence, has_inter_slice, lost_references, needs_others
from tests.make_fields import write_fields
from tests.make_media import RECIPES, Recipe, write_clip

LENGTHS_OF_4 = b"\1\x64\0\x1f\xff"  # the head of an avcC box
# first_mb_in_slice 0: `1`; slice_type 0 (P): `1`, 5 (P): `00110`, 7 (I): `0001000`, 2 (I): `011`
P, ALL_P, ALL_I, I = b"\xc0", b"\x98", b"\x88", b"\xb0"  # noqa: E741


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (b"\x65" + ALL_P, False),  # an IDR picture, whatever else it says
        (b"\x41" + P, True),
        (b"\x41" + ALL_P, True),
        (b"\x41" + ALL_I, False),
        (b"\x41" + I, False),
        (b"\x06\x06\x01", False),  # no slice at all
    ],
)
def test_the_first_slice_tells(unit: bytes, expected: bool):
    other = b"\x09\xf0"  # an access unit delimiter comes before it
    with_lengths = b"".join(len(part).to_bytes(4) + part for part in (other, unit))
    with_start_codes = b"".join(b"\0\0\0\1" + part for part in (other, unit))
    assert has_inter_slice(with_lengths, LENGTHS_OF_4) == expected
    assert has_inter_slice(with_start_codes, None) == expected


@given(packet=st.binary(max_size=60), extradata=st.none() | st.binary(max_size=6) | st.just(LENGTHS_OF_4))
def test_damage_raises_nothing(packet: bytes, extradata: bytes | None):
    assert has_inter_slice(packet, extradata) in {True, False}
    assert lost_references([packet], extradata) in {True, False}
    assert LoneFields(extradata).is_one(packet) in {True, False}


def test_a_damaged_parameter_set_gives_no_more_bits_than_the_standard():
    damaged = b"\x67\x42\0\x1f" + int(f"1{21 * '0'}1{21 * '0'}{5 * '1'}000".ljust(56, "0"), 2).to_bytes(7)
    _, sequence = _read_sequence(damaged)
    assert sequence.frame_num_bits == 16


def packets_of(path: Path) -> tuple[list[bytes], bytes | None]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size], stream.codec_context.extradata


@pytest.mark.parametrize(
    "name", ["h264", "h264 TS", "h264 interlaced", "h264 open GOP", "h264 10-bit", "h264 one frame"]
)
def test_a_whole_stream_lacks_no_reference(name: str, tmp_path: Path):
    packets, extradata = packets_of(write_clip(tmp_path / f"clip{RECIPES[name].suffix}", RECIPES[name]).path)
    assert not lost_references(packets, extradata)


@pytest.mark.parametrize("name", ["h264", "h264 TS"])
def test_a_stream_without_some_of_its_references_lacks_them(name: str, tmp_path: Path):
    packets, extradata = packets_of(write_clip(tmp_path / f"clip{RECIPES[name].suffix}", RECIPES[name]).path)
    assert lost_references([*packets[:4], *packets[9:]], extradata)


@pytest.mark.parametrize(("suffix", "packet"), [(".mkv", "frame"), (".mkv", "field"), (".ts", "field")])
def test_a_lone_field_is_told_from_a_pair_in_one_packet(suffix: str, packet: Literal["frame", "field"], tmp_path: Path):
    path = write_fields(tmp_path / f"clip{suffix}", 4, lambda number: number == 2, packet)
    packets, extradata = packets_of(path)
    lone_fields = LoneFields(extradata)
    expected = [False] * 4 if packet == "frame" else [False, True, True, False, False]
    assert [lone_fields.is_one(packet) for packet in packets] == expected


def test_scaling_matrices_before_the_number_of_fields_are_read_past(tmp_path: Path):
    options = {"preset": "veryfast", "threads": "1", "x264-params": "cqm=jvt:tff=1:bframes=0"}
    packets, extradata = packets_of(write_clip(tmp_path / "clip.mp4", Recipe(options=options)).path)
    assert not lost_references(packets, extradata)
    assert lost_references([*packets[:4], *packets[9:]], extradata)


@pytest.mark.parametrize("name", ["hevc", "hevc raw", "hevc open GOP"])
def test_hevc_frames_to_start_at_are_the_keyframes(name: str, tmp_path: Path):
    with av.open(write_clip(tmp_path / f"clip{RECIPES[name].suffix}", RECIPES[name]).path) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.size:
                assert needs_others("hevc", bytes(packet), stream.codec_context.extradata) != packet.is_keyframe
