"""The other clouds' objects, on their emulators: Azurite (npm) and fake-gcs-server (Go), if they are installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import requests
from pyarrow import fs

from prelabel.errors import AccountError, SaveError
from prelabel.runtime import buckets
from prelabel.runtime.buckets import Address, _opened, _storage, find_object, list_objects, upload

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that is the same in each Azurite."""
KEY = "out/day 1/clip d%20#.mp4"

At = Callable[[str], Address]


@contextmanager
def started(words: list[str], sign: str) -> Iterator[None]:
    """Runs a server from the line of its output that holds `sign` on."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        try:
            assert any(sign in line for line in server.stdout)
            yield
        finally:
            server.kill()


@pytest.fixture
def azure(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    monkeypatch.setenv("AZURE_STORAGE_KEY", AZURITE_KEY)
    words = ["azurite-blob", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"]
    with started([*words, "--disableTelemetry", "--silent"], "successfully listens"):
        yield lambda key: Address("abfs", "box@devstoreaccount1.dfs.core.windows.net", key, options(port))
        _storage.cache_clear()


@pytest.fixture
def gcs(port: int) -> Iterator[At]:
    words = ["fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    with started([*words, "-public-host", f"127.0.0.1:{port}"], "server started"):
        yield lambda key: Address("gs", "anonymous@box", key, options(port))


def options(port: int) -> str:
    return f"endpoint_override=127.0.0.1:{port}&scheme=http"


def make_box(at: At, port: int) -> None:
    if at("").scheme == "gs":
        url = f"http://127.0.0.1:{port}/storage/v1/b?project=p"
        requests.post(url, json={"name": "box"}, timeout=60).raise_for_status()
    else:
        _opened(at(""))[0].create_dir("box")


@pytest.mark.slow
@pytest.mark.parametrize("cloud", ["azure", "gcs"])
def test_objects_are_written_listed_and_read(
    cloud: str, port: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    at: At = request.getfixturevalue(cloud)
    path = tmp_path / "labels.json"
    path.write_bytes(b"x" * 20_000_000)
    with pytest.raises(AccountError, match="there is no such bucket"):
        list(list_objects(at("out"), recursive=True))
    with pytest.raises(SaveError, match="there is no such bucket"):
        upload(path, at(KEY), SaveError)
    make_box(at, port)
    upload(path, at(KEY), SaveError)
    upload(path, at("out/b.json"), SaveError)
    upload(path, at("out/b.json"), SaveError)
    assert [each.address.key for each in list_objects(at(""), recursive=True)] == ["out/b.json", KEY]
    assert [each.address.key for each in list_objects(at("out"), recursive=False)] == ["out/b.json"]
    assert list(list_objects(at("none"), recursive=True)) == []
    assert find_object(at("none")) is None
    found = find_object(at(KEY))
    assert found is not None
    found.download(tmp_path / "copy", "clip")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_azure_keeps_an_object_whose_new_version_does_not_arrive(
    azure: At, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_box(azure, port)
    path = tmp_path / "labels.json"
    path.write_bytes(b"before")
    upload(path, azure("labels.json"), SaveError)

    def fail(storage: fs.FileSystem, key: str, content: pa.Buffer, kind: str) -> None:
        storage.open_output_stream(key)
        raise OSError("the connection broke")

    path.write_bytes(b"after")
    monkeypatch.setattr(buckets, "_write", fail)
    with pytest.raises(SaveError, match="the connection broke"):
        upload(path, azure("labels.json"), SaveError)
    found = find_object(azure("labels.json"))
    assert found is not None
    assert found.num_bytes == len(b"before")


@pytest.mark.slow
@pytest.mark.parametrize(("key", "reason"), [(None, "there are no credentials"), ("AAAA", "give no right to this")])
def test_azure_without_the_right_key_is_said(
    key: str | None, reason: str, azure: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    _storage.cache_clear()
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    if key is not None:
        monkeypatch.setenv("AZURE_STORAGE_KEY", key)
    with pytest.raises(AccountError, match=f"{reason}: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"):
        list(list_objects(azure(""), recursive=True))
