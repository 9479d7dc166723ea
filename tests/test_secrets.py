"""What a run leaves behind, and shows while it works, holds neither the private key nor a signed link's secret."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from prelabel.cli import app as cli
from prelabel.testing.encord_server import AGENT, LostAnswer, MalformedJson, Status, Truncated
from tests.encord_fixtures import Platform

pytestmark = [pytest.mark.usefixtures("encord_environment")]

DECODER = "prelabel.media.isolation.child"
PLUGIN = """
import os, sys, time
from pathlib import Path
from prelabel import Detections

class Leaky:
    class_names = ("Pedestrian", "Vehicle")

    def __init__(self, fail: bool = True):
        self.num_videos, self.fail = 0, fail
        if not fail:
            raise RuntimeError(os.environ["ENCORD_SSH_KEY"])

    def detect(self, batch):
        while not Path("processes were seen").exists():
            time.sleep(0.01)
        self.num_videos += batch.frame_indices[0] == 0
        if self.num_videos > 2:
            link = "https://bucket.example/a.mp4?sig=0123456789abcdef&nonce=7"
            raise RuntimeError(os.environ["ENCORD_SSH_KEY"] + " and " + link)
        return [Detections(xyxy=[[2, 2, 20, 20]], confidence=[0.7], class_id=[0]) for _ in batch.frame_indices]
"""


@pytest.fixture
def home(platform: Platform, tmp_path: Path) -> Path:
    (tmp_path / "leaky.py").write_text(PLUGIN)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "config.yaml").write_text(
        f"source: {{stage: {AGENT}, project_hash: {platform.project.uuid}, output: out}}\n"
        "detector: {use: 'leaky.py:Leaky'}\npathway: Annotate 1\n"
    )
    return tmp_path


def prelabel(home: Path, *words: str) -> tuple[str, set[str]]:
    """Runs a command; returns all that it said, and the command lines of all its processes."""
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "TMPDIR": str(home / "tmp")}
    command = [sys.executable, "-m", "prelabel", *words]
    titles: set[str] = set()
    with (home / "said").open("w+") as said:
        with subprocess.Popen(command, cwd=home, env=environment, stdout=said, stderr=subprocess.STDOUT) as run:
            while run.poll() is None:
                titles |= set(command_lines(run.pid))
                if any(DECODER in title for title in titles):
                    (home / "processes were seen").touch()
                time.sleep(0.02)
        said.seek(0)
        return said.read(), titles


def command_lines(pid: int) -> Iterator[str]:
    process = Path(f"/proc/{pid}")
    yield _read_if_there(process / "cmdline").replace("\0", " ")
    for task in process.glob("task/*/children"):
        for child in _read_if_there(task).split():
            yield from command_lines(int(child))


def _read_if_there(path: Path) -> str:
    """Processes and threads end while one looks at them."""
    with suppress(OSError):
        return path.read_text()
    return ""


def secrets(platform: Platform) -> set[bytes]:
    key = os.environ["ENCORD_SSH_KEY"]
    in_links = [parse_qs(urlsplit(link.url).query) for link in platform.server.world.links]
    return {
        *(line.encode() for line in key.splitlines() if len(line) > 20 and "PRIVATE KEY" not in line),
        *(value.encode() for query in in_links for value in (*query["sig"], *query["nonce"])),
        *(b"0123456789abcdef", b"sig="),
    }


def everything_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "leaky.py" and "__pycache__" not in path.parts:
            yield str(path), path.read_bytes()
            if path.suffix == ".parquet":
                yield f"{path} (unpacked)", repr((pq.read_schema(path).metadata, pq.read_table(path))).encode()


@pytest.mark.slow
def test_run_with_faults_leaves_and_shows_no_secret(platform: Platform, home: Path) -> None:
    platform.add_clips(2)
    faults = platform.server.faults
    faults.add("download", Truncated(700), times=2)
    faults.add("download", Status(403), skip=3)
    faults.add("save_label_rows", MalformedJson(), skip=1)
    faults.add("act_on_tasks", LostAnswer(carried_out=True))
    said, titles = prelabel(home, "run", "config.yaml", "--set", "retries.attempts=1")
    again, more = prelabel(home, "status", "config.yaml")
    assert "RuntimeError: <private key>" in again
    assert "https://bucket.example/…" in again
    assert any(DECODER in title for title in titles)
    texts = [("said", (said + again).encode()), ("titles", "\n".join(titles | more).encode()), *everything_in(home)]
    assert len(texts) > 8
    assert platform.server.world.links
    for secret in secrets(platform):
        for where, text in texts:
            assert secret not in text, f"{where} holds {secret!r}"


def test_an_error_of_a_plug_in_that_contains_the_key_is_redacted(
    platform: Platform, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["prelabel", "run", "config.yaml", "--set", "detector.fail=false"])
    with pytest.raises(SystemExit):
        cli.main()
    said = "".join(capfd.readouterr())
    assert "'leaky.py:Leaky' raised RuntimeError" in said
    assert not any(secret in said.encode() for secret in secrets(platform))


def test_traceback_of_a_bug_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError(f"GET https://bucket.example/a.mp4?sig=hush with {os.environ['ENCORD_SSH_KEY']}")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "RuntimeError: GET https://bucket.example/… with <private key>" in said
    assert "hush" not in said
