"""Pictures as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prelabel.data.frames import Media
from prelabel.errors import MachineError, ReadError
from prelabel.media.images import ImageReader
from prelabel.testing import check_reader
from tests.make_media import draw_number, read_number
from tests.media.conftest import read_until_error


def write_pictures(folder: Path, sizes: list[tuple[int, int]], suffix: str = ".png") -> Media:
    paths = tuple(folder / f"{number:03}{suffix}" for number in range(len(sizes)))
    for number, (path, (width, height)) in enumerate(zip(paths, sizes, strict=True)):
        Image.fromarray(draw_number(number, width, height)).save(path)
    return Media("images", paths)


def test_pictures_are_frames_in_the_order_of_their_files(tmp_path: Path):
    media = write_pictures(tmp_path, [(96, 64)] * 7)
    check_reader(ImageReader, media, truth=np.stack([draw_number(number) for number in range(7)]))


def test_a_batch_ends_where_the_size_changes(tmp_path: Path):
    media = write_pictures(tmp_path, [(96, 64), (96, 64), (64, 96), (97, 65), (97, 65), (97, 65)])
    check_reader(ImageReader, media)
    with ImageReader(media) as reader:
        assert reader.info.frame_sizes[2:4] == ((64, 96), (97, 65))
        batches = list(reader.batches(np.arange(6), 2))
    assert [batch.frame_indices.tolist() for batch in batches] == [[0, 1], [2], [3, 4], [5]]
    assert [read_number(frame.numpy()) for batch in batches for frame in batch.data] == list(range(6))


def test_pictures_of_one_size_need_no_sizes(tmp_path: Path):
    with ImageReader(write_pictures(tmp_path, [(96, 64)] * 2)) as reader:
        assert (reader.info.width, reader.info.height, reader.info.frame_sizes) == (96, 64, ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path):
    displayed = draw_number(1234)
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    undo |= {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
    undo |= {8: Image.Transpose.ROTATE_270}
    stored = Image.fromarray(displayed)
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    with ImageReader(Media("images", (tmp_path / "a.png",))) as reader:
        assert (reader.info.width, reader.info.height) == (96, 64)
        (batch,) = reader.batches(np.array([0]), 1)
    assert np.array_equal(batch.data[0].numpy(), displayed)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_any_mode_becomes_rgb(mode: str, tmp_path: Path):
    picture = Image.fromarray(draw_number(1234))
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 256)
        assert picture.mode == "I;16"
    else:
        picture = picture.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture.save(path)
    with ImageReader(Media("images", (path,))) as reader:
        (batch,) = reader.batches(np.array([0]), 1)
    assert batch.data.shape == (1, 64, 96, 3)
    assert read_number(batch.data[0].numpy()) == 1234


@pytest.mark.parametrize("damage", ["cut off", "text", "missing"])
def test_a_picture_that_cannot_be_read_is_named_after_all_others(damage: str, tmp_path: Path):
    media = write_pictures(tmp_path, [(96, 64)] * 5, ".jpg")
    path = media.paths[2]
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "text":
        path.write_text("no picture")
    else:
        path.unlink()
    frames, error = read_until_error(ImageReader(media), batch_size=3)
    assert frames == [(0, 0), (1, 1), (3, 3), (4, 4)]
    assert error.startswith("1 of 5 images could not be read: 002.jpg: ")


def test_files_none_of_which_is_a_picture_are_refused(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ReadError, match=r"^a.jpg: not an image that Pillow can open$"):
        ImageReader(Media("images", (tmp_path / "a.jpg",))).__enter__()


def test_another_device_is_refused(tmp_path: Path):
    with pytest.raises(MachineError, match="reader images decodes on the CPU, got device 'cuda:1'"):
        ImageReader(write_pictures(tmp_path, [(96, 64)]), device="cuda:1")
