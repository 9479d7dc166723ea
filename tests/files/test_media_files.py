from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prelabel.files.media_files import is_animated, kind_of_bytes, media_kind

STREAM = b"G" + b"\0" * 187


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MP4", "video"),
        ("a.asf", "video"),
        ("a.dav", "video"),
        ("a.mxf", "video"),
        ("a.jfif", "images"),
        ("a.gif", "images"),
        ("a.heic", None),
        ("a.txt", None),
    ],
)
def test_a_known_suffix_says_what_a_file_is_without_a_look(tmp_path: Path, name: str, kind: str | None) -> None:
    assert media_kind(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypisom", "video"),
        (b"\0\0\0\x20ftypavif", "images"),
        (b"\0\0\0\x20ftypheic", None),
        (b"\0\0\0\x20ftypM4A ", None),
        (b"\0\0\0\x08wide\0\0", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "images"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (STREAM * 3, "video"),
        (b"\0\0\0\0" + (STREAM + b"\0\0\0\0") * 3, "video"),
        (STREAM * 2, None),
        (b"G" * 3, None),
        (b"", None),
    ],
)
def test_first_bytes_say_what_a_file_of_unknown_suffix_is(tmp_path: Path, head: bytes, kind: str | None) -> None:
    path = tmp_path / "export.0001"
    path.write_bytes(head)
    assert media_kind(path) == kind_of_bytes(head) == kind


def test_animated_images_are_told_from_stills(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 100, 200)]
    for suffix in ("gif", "png"):
        frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / f"still.{suffix}")
        assert is_animated(tmp_path / f"moving.{suffix}")
        assert not is_animated(tmp_path / f"still.{suffix}")
    (tmp_path / "damaged.gif").write_bytes(b"GIF89a")
    assert not is_animated(tmp_path / "damaged.gif")
