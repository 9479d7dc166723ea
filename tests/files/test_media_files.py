from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from prelabel.errors import ReadError
from prelabel.files.media_files import kind_of_bytes, kind_to_read, media_kind

STREAM = b"G" + b"\0" * 187


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MP4", "video"),
        ("a.asf", "video"),
        ("a.dav", "video"),
        ("a.mxf", "video"),
        ("a.wtv", "video"),
        ("a.jfif", "images"),
        ("a.pbm", "images"),
        ("a.gif", "images"),
        ("a.heic", None),
        ("a.txt", None),
    ],
)
def test_a_file_with_a_known_suffix_is_not_opened(tmp_path: Path, name: str, kind: str | None) -> None:
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
        (b"OggS\0\2" + bytes(22) + b"\x80theora", "video"),
        (b"OggS\0\2" + bytes(22) + b"\1vorbis", None),
        (b".RMF\0\0\0\x12", "video"),
        (b"\0\0\1\xb3\x0a\0", "video"),
        (STREAM * 3, "video"),
        (b"\0\0\0\0" + (STREAM + b"\0\0\0\0") * 3, "video"),
        (STREAM * 2, None),
        (b"G" * 3, None),
        (b"", None),
    ],
)
def test_the_first_bytes_decide_the_kind_of_a_file_with_an_unknown_suffix(
    tmp_path: Path, head: bytes, kind: str | None
) -> None:
    path = tmp_path / "export.0001"
    path.write_bytes(head)
    assert media_kind(path) == kind_of_bytes(head) == kind


def write_frames(path: Path, num_frames: int) -> Path:
    first, *others = (Image.new("RGB", (8, 8), (80 * shade, 0, 0)) for shade in range(num_frames))
    first.save(path, save_all=num_frames > 1, append_images=others)
    return path


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_an_image_that_moves_is_read_as_a_video(tmp_path: Path, suffix: str) -> None:
    assert kind_to_read(write_frames(tmp_path / f"moving.{suffix}", 3)) == "video"
    assert kind_to_read(write_frames(tmp_path / f"still.{suffix}", 1)) == "images"


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("webp", "is an animation, and no reader shows more than its first frame: convert it to MP4"),
        ("avif", "is an animation, and no reader shows more than its first frame: convert it to MP4"),
        ("tif", "holds 3 images, and no reader shows more than the first: split it"),
    ],
)
def test_an_image_whose_other_frames_no_reader_shows_is_refused(tmp_path: Path, suffix: str, said: str) -> None:
    assert kind_to_read(write_frames(tmp_path / f"still.{suffix}", 1)) == "images"
    with pytest.raises(ReadError, match=f"^moving.{suffix}: {said}$"):
        kind_to_read(write_frames(tmp_path / f"moving.{suffix}", 3))


def test_a_smaller_version_in_a_tiff_is_no_page(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    thumbnail = Image.new("RGB", (4, 4))
    thumbnail.encoderinfo = {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2()}
    thumbnail.encoderinfo["tiffinfo"][254] = 1
    Image.new("RGB", (8, 8)).save(path, save_all=True, append_images=[thumbnail])
    assert kind_to_read(path) == "images"


def test_content_decides_over_the_suffix_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "film.jpg").write_bytes(b"\0\0\0\x20ftypisom")
    (tmp_path / "damaged.gif").write_bytes(b"GIF89a")
    assert kind_to_read(tmp_path / "film.jpg") == "video"
    assert kind_to_read(tmp_path / "damaged.gif") == "images"
