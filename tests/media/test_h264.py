"""Which H.264 pictures refer to others, by the bits of their first slice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.media.packets import has_inter_slice

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
