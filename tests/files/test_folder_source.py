from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from prelabel.errors import ConfigError
from prelabel.files.folder_source import FolderSource


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clips = tmp_path / "clips"
    clips.mkdir()
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 100)]
    frames[0].save(clips / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(clips / "still.png")
    (clips / "camera1.0001").write_bytes(b"\0\0\0\x20ftypisom")
    return clips


def source(folder: Path, path: Path | None = None) -> FolderSource:
    return FolderSource(path or folder, folder.parent / "out")


def test_content_decides_if_the_suffix_does_not(folder: Path) -> None:
    tasks = list(source(folder).tasks())
    assert [task.title for task in tasks] == ["camera1.0001", "moving.gif", "still.png"]
    kinds = []
    for task in tasks:
        with task.open() as media:
            kinds.append(media.kind)
    assert kinds == ["video", "video", "images"]


def test_media_that_no_reader_decodes_are_counted_and_named(folder: Path) -> None:
    for name in ("a.heic", "b.heic", "c.HEIC", "d.cr2"):
        (folder / name).touch()
    waiting = source(folder)
    assert waiting.describe() == f"3 files at {folder}; 4 other files left out (3 .heic, 1 .cr2)"
    assert waiting.warnings == [
        "4 files left out that no reader decodes: a.heic, b.heic, c.HEIC and 1 more: convert them"
    ]


def test_files_that_are_no_media_are_counted_and_not_named(folder: Path) -> None:
    for name in ("a.txt", "b.txt", "notes", "c.json", "d.csv"):
        (folder / name).touch()
    waiting = source(folder)
    assert waiting.describe() == f"3 files at {folder}; 5 other files left out (2 .txt, 1 .json, 1 .csv, …)"
    assert waiting.warnings == []


def test_files_of_an_unknown_kind_are_named_and_text_is_not(folder: Path) -> None:
    (folder / "a.swf").write_bytes(b"FWS\x06\0\0")
    (folder / "b.rst").write_bytes(b"notes")
    (folder / "c.ogg").write_bytes(b"OggS\0\2" + bytes(22) + b"\1vorbis")
    waiting = source(folder)
    waiting.prepare()
    assert waiting.warnings == [
        "left out, since nothing tells what they are: a.swf: to try one, name it in source.path"
    ]


def test_a_folder_without_media_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.heic").touch()
    with pytest.raises(ConfigError, match=r"no video or image at .*clips; 1 other file left out \(1 \.heic\)"):
        source(tmp_path / "clips").prepare()


def test_a_file_that_is_named_itself_is_taken_whatever_it_is(folder: Path) -> None:
    (folder / "notes.txt").touch()
    assert [task.title for task in source(folder, folder / "notes.txt").tasks()] == ["notes.txt"]


def test_titles_of_several_paths_are_relative_to_their_common_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "still.png").write_bytes((folder / "still.png").read_bytes())
    paths = [folder / "still.png", folder / "*.gif", tmp_path / "other", folder / "still.png"]
    several = FolderSource(paths, tmp_path / "out")
    assert [task.title for task in several.tasks()] == ["clips/moving.gif", "clips/still.png", "other/still.png"]
    assert several.describe().startswith("3 files at ")


def test_several_files_of_one_folder_have_the_titles_of_that_folder(folder: Path) -> None:
    several = FolderSource([folder / "still.png", folder / "moving.gif"], folder.parent / "out")
    assert [task.title for task in several.tasks()] == ["moving.gif", "still.png"]
