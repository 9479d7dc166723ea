"""The source of files in buckets and behind links: what it lists, leaves out and downloads."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.errors import AccountError, ConfigError, OutageError
from prelabel.files.remote_source import RemoteSource
from tests.bucket_server import BucketServer
from tests.kept import write_grey_clip


def source(path: str | list[str], tmp_path: Path, output: str = "") -> RemoteSource:
    section = {"path": path, "output": output or str(tmp_path / "out")}
    config = check_config({"source": section, "detector": {"use": "tests.kept:BoxDetector"}}, "test")
    made = assemble(config, tmp_path).named_source
    assert isinstance(made, RemoteSource)
    return made


def titles(source: RemoteSource) -> list[str]:
    return [task.title for task in source.tasks()]


@pytest.fixture
def filled(s3: BucketServer) -> BucketServer:
    for key in ("v/b.mp4", "v/a.MP4", "v/day 1/c.mp4", "v/day 1/still.png", "v/notes.txt", "v/raw.heic", "v/.x.mp4"):
        s3.put(key)
    return s3


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("s3://videos", ["v/a.MP4", "v/b.mp4", "v/day 1/c.mp4", "v/day 1/still.png"]),
        ("s3://videos/v/", ["a.MP4", "b.mp4", "day 1/c.mp4", "day 1/still.png"]),
        ("s3://videos/v/*.mp4", ["b.mp4"]),
        ("s3://videos/v/**/*.mp4", ["b.mp4", "day 1/c.mp4"]),
        ("s3://videos/*/day ?/*", ["v/day 1/c.mp4", "v/day 1/still.png"]),
        ("s3://videos/v/day 1/c.mp4", ["c.mp4"]),
        ("s3://videos/v/notes.txt", ["notes.txt"]),  # named itself
        (["s3://videos/v/day 1", "s3://videos/v/b.mp4"], ["b.mp4", "day 1/c.mp4", "day 1/still.png"]),
    ],
)
def test_a_key_a_part_or_a_glob_names_objects(path, wanted, filled: BucketServer, tmp_path: Path) -> None:
    assert titles(source(path, tmp_path)) == wanted


def test_brackets_of_a_key_are_no_glob_if_something_is_below_it(s3: BucketServer, tmp_path: Path) -> None:
    for key in ("v/day [1]/a.mp4", "v/day 1/b.mp4"):
        s3.put(key)
    assert titles(source("s3://videos/v/day [1]", tmp_path)) == ["day [1]/a.mp4"]
    assert titles(source("s3://videos/v/day [1]/*.mp4", tmp_path)) == ["day 1/b.mp4"]
    assert titles(source("s3://videos/v/day [12]/*.mp4", tmp_path)) == ["day 1/b.mp4"]


def test_what_is_left_out_is_said(filled: BucketServer, tmp_path: Path) -> None:
    waiting = source("s3://videos/v", tmp_path)
    assert waiting.describe() == "4 files at s3://videos/v; 2 other files left out (1 .txt, 1 .heic)"
    assert waiting.warnings == ["1 file left out that no reader decodes: raw.heic: convert them"]


def test_a_key_that_pyarrow_cannot_open_is_left_out(s3: BucketServer, tmp_path: Path) -> None:
    s3.put("v//a.mp4")
    s3.put("v/b.mp4")
    waiting = source("s3://videos/v", tmp_path)
    assert waiting.describe() == "1 file at s3://videos/v; 1 other file left out (1 .mp4)"


def test_links_whose_tasks_would_have_the_same_name_are_refused(tmp_path: Path) -> None:
    links = [f"https://host/download?id=secret-{number}" for number in (1, 2)]
    with pytest.raises(
        ConfigError, match="several links have the path host/download, and differ only behind"
    ) as caught:
        source(links, tmp_path)
    assert "secret" not in str(caught.value)


def test_files_of_earlier_runs_are_no_media(filled: BucketServer, tmp_path: Path) -> None:
    for key in ("v/out/b.preview.mp4", "v/out/b.labels.json", "v/b.preview.jpg"):
        filled.put(key)
    assert titles(source("s3://videos/v/*.*", tmp_path, "s3://videos/v")) == ["a.MP4", "b.mp4"]
    below = titles(source("s3://videos/v", tmp_path, "s3://videos/v/out"))
    assert "out/b.preview.mp4" not in below
    assert "b.preview.jpg" in below


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("s3://videos/none/*.mp4", r"source.path: there is nothing at s3://videos/none/\*.mp4; correct the path"),
        ("s3://videos/v/*.txt", r"no video or image at s3://videos/v/\*.txt; 1 other file left out \(1 .txt\)"),
    ],
)
def test_nothing_to_label_is_said(path: str, reason: str, filled: BucketServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        source(path, tmp_path).prepare()


def test_a_run_lists_a_bucket_once_before_its_tasks(filled: BucketServer, tmp_path: Path) -> None:
    waiting = source("s3://videos/v", tmp_path)
    waiting.prepare()
    filled.requests.clear()
    assert waiting.count() == len(titles(waiting)) == 4
    assert filled.requests == []
    filled.put("v/later.mp4")
    assert "later.mp4" in titles(waiting)


def test_media_are_downloaded_while_the_task_is_open(s3: BucketServer, tmp_path: Path) -> None:
    write_grey_clip(tmp_path / "a.mp4", 64, 48, 3)
    s3.put("v/a.mp4", (tmp_path / "a.mp4").read_bytes())
    (task,) = source("s3://videos/v", tmp_path).tasks()
    with task.open() as media:
        (path,) = media.paths
        assert (media.kind, path.read_bytes()) == ("video", (tmp_path / "a.mp4").read_bytes())
    assert not path.exists()


def test_paths_of_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected only paths or only addresses, at least one"):
        source(["s3://videos/a", "clips/"], tmp_path)


# Links


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web server with the file `clips/day 1.mp4`."""
    write_grey_clip(tmp_path / "site" / "clips" / "day 1.mp4", 64, 48, 3)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "site")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_link_is_one_task(site: str, tmp_path: Path) -> None:
    (task,) = source(f"{site}/clips/day%201.mp4?token=secret-word", tmp_path).tasks()
    assert task.title == "day 1.mp4"
    assert "secret-word" not in repr(task)
    with task.open() as media:
        assert media.paths[0].read_bytes() == (tmp_path / "site" / "clips" / "day 1.mp4").read_bytes()


def test_a_link_that_does_not_work_is_said_without_its_signature(site: str, tmp_path: Path) -> None:
    with pytest.raises(AccountError, match=r"/none.mp4: the server answers HTTP 404, expected 200") as caught:
        source(f"{site}/none.mp4?token=secret-word", tmp_path).prepare()
    assert "secret-word" not in str(caught.value)
    with pytest.raises(OutageError, match="the server does not answer"):
        source("http://127.0.0.1:9/a.mp4", tmp_path).prepare()
