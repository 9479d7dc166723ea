"""Addresses, and objects on a real S3 server: listed, downloaded, uploaded, refused."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from prelabel.errors import AccountError, FetchError, OutageError, SaveError
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.buckets import _PIECE_BYTES, Address, BucketFile, find_object, list_objects, upload
from tests.bucket_server import BucketServer, error, fail, refuse_unsigned

AT_ONCE = Backoff(attempts=3, sleep=lambda seconds: None)


def address(text: str) -> Address:
    found = Address.read(text)
    assert found is not None
    return found


def found(text: str) -> BucketFile:
    there = find_object(address(text))
    assert there is not None
    return there


@pytest.mark.parametrize("text", ["clips/*.mp4", "/data/clips", "C:clips", "a:b/c", "", "clip?a=b.mp4"])
def test_a_path_is_no_address(text: str) -> None:
    assert Address.read(text) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://videos", ("s3", "videos", "", "")),
        ("S3://Videos", ("s3", "Videos", "", "")),
        ("s3:/videos/a/", ("s3", "videos", "a", "")),  # as a Path gives it
        ("s3://videos/a b%20#1/clip?.mp4", ("s3", "videos", "a b%20#1/clip?.mp4", "")),
        ("gs://videos/a?endpoint_override=h:1&scheme=http", ("gs", "videos", "a", "endpoint_override=h:1&scheme=http")),
        ("abfs://videos@mine.dfs.core.windows.net/a", ("abfs", "videos@mine.dfs.core.windows.net", "a", "")),
        ("https://host/a.mp4?token=1", ("https", "host", "a.mp4?token=1", "")),
    ],
)
def test_an_address_is_read_literally(text: str, parts: tuple[str, ...]) -> None:
    read = address(text)
    assert (read.scheme, read.root, read.key, read.options) == parts
    assert address(read.url) == read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s3a://videos/a", "s3a://videos is an address of an unknown kind, expected a path or one of s3://, gs://"),
        ("s3:///a.mp4", "names no bucket, expected s3://bucket/…"),
        ("abfs://videos/a", "names no bucket, expected abfs://container@account.dfs.core.windows.net/…"),
        ("s3://videos/a?acces_key=b", "acces_key is not an option of an address, expected endpoint_override, region"),
        ("s3://me:secret-word@videos/a", "holds a password: give credentials in the environment"),
        ("https://me:secret-word@host/a.mp4", "holds a password: give credentials in the environment"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secrets(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        Address.read(text)
    assert "secret-word" not in str(caught.value)


def test_the_text_of_a_link_hides_its_signature() -> None:
    assert str(address("https://host/a.mp4?token=secret-word")) == "https://host/a.mp4"


def test_objects_are_listed_in_the_order_of_their_keys(s3: BucketServer) -> None:
    for key in ("v/b.mp4", "v/a/c d%20#.mp4", "v/a.mp4", "w.mp4"):
        s3.put(key, key.encode())
    below = list(list_objects(address("s3://videos/v"), recursive=True))
    assert [each.address.key for each in below] == ["v/a.mp4", "v/a/c d%20#.mp4", "v/b.mp4"]
    assert [each.num_bytes for each in below] == [7, 15, 7]
    assert [each.address.key for each in list_objects(address("s3://videos/v"), recursive=False)] == [
        "v/a.mp4",
        "v/b.mp4",
    ]
    assert list(list_objects(address("s3://videos/none"), recursive=True)) == []
    assert find_object(address("s3://videos/v")) is None


def test_an_object_travels_as_plain_values_without_credentials(s3: BucketServer) -> None:
    s3.put("a.mp4")
    file = found("s3://videos/a.mp4")
    sent = pickle.dumps(file)
    assert pickle.loads(sent) == file
    assert b"tester" not in sent


@pytest.mark.slow
def test_a_download_goes_on_after_failures(s3: BucketServer, tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * _PIECE_BYTES // 256) + b"end"
    s3.put("a.mp4", content)
    file = found("s3://videos/a.mp4")
    starts: list[str] = []

    def break_the_second_piece(environ: dict) -> tuple[str, bytes] | None:
        if environ["REQUEST_METHOD"] != "GET":
            return None
        starts.append(environ["HTTP_RANGE"].partition("-")[0])
        is_second = starts[-1] == f"bytes={_PIECE_BYTES}"  # pyarrow itself tries three times
        return ("500 Internal Server Error", error("InternalError")) if is_second and len(starts) < 6 else None

    s3.faults.append(break_the_second_piece)
    file.download(tmp_path / "a.mp4", "a.mp4", AT_ONCE)
    assert (tmp_path / "a.mp4").read_bytes() == content
    assert starts == ["bytes=0", *[f"bytes={_PIECE_BYTES}"] * 5, f"bytes={2 * _PIECE_BYTES}"]


@pytest.mark.slow
def test_a_download_is_given_up_with_the_reason(s3: BucketServer, tmp_path: Path) -> None:
    s3.put("a.mp4")
    file = found("s3://videos/a.mp4")
    s3.faults.append(fail(100, "GET", "a.mp4", "500 Internal Server Error", "InternalError"))
    with pytest.raises(FetchError, match=r"clip: s3://videos/a.mp4: given up at 0 of 7 bytes on .*INTERNAL_FAILURE"):
        file.download(tmp_path / "a.mp4", "clip", AT_ONCE)


def test_an_object_that_has_changed_is_not_taken_for_the_listed_one(s3: BucketServer, tmp_path: Path) -> None:
    s3.put("a.mp4", b"long content")
    file = found("s3://videos/a.mp4")
    for content in (b"another content", b"short"):
        s3.put("a.mp4", content)
        with pytest.raises(FetchError, match="has changed since it was listed: run again"):
            file.download(tmp_path / "a.mp4", "a.mp4", AT_ONCE)
    s3.client.delete_object(Bucket="videos", Key="a.mp4")
    with pytest.raises(FetchError, match="there is no such bucket or object"):
        file.download(tmp_path / "a.mp4", "a.mp4", AT_ONCE)


def test_fractions_of_a_second_that_only_a_list_tells_are_no_change(s3: BucketServer, tmp_path: Path) -> None:
    s3.put("v/a.mp4")

    def list_fractions(environ: dict) -> tuple[str, bytes] | None:
        if "list-type=2" not in environ["QUERY_STRING"]:
            return None
        listed = b"".join(s3._moto(environ, lambda *_: None))
        assert b".000Z" in listed
        return "200 OK", listed.replace(b".000Z", b".123Z")

    s3.faults.append(list_fractions)
    (file,) = list_objects(address("s3://videos/v"), recursive=True)
    assert file == found("s3://videos/v/a.mp4")
    file.download(tmp_path / "a.mp4", "a.mp4", AT_ONCE)


@pytest.mark.parametrize("num_bytes", [0, 10, 12_000_000])
def test_an_upload_arrives_whole(num_bytes: int, s3: BucketServer, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_bytes(b"x" * num_bytes)
    upload(tmp_path / "labels.json", address("s3://videos/out/labels.json"), SaveError)
    assert s3.get("out/labels.json") == b"x" * num_bytes
    assert s3.client.head_object(Bucket="videos", Key="out/labels.json")["ContentType"] == "application/json"
    assert s3.list_keys() == ["out/labels.json"]


@pytest.mark.parametrize("part", ["partNumber=2", "uploadId"])
def test_an_upload_that_fails_leaves_the_object_as_it_was(part: str, s3: BucketServer, tmp_path: Path) -> None:
    s3.put("labels.json", b"before")
    (tmp_path / "labels.json").write_bytes(b"x" * 12_000_000)
    s3.faults.append(fail(1000, "PUT" if "part" in part else "POST", part, "403 Forbidden", "AccessDenied"))
    with pytest.raises(SaveError, match=r"s3://videos/labels\.json: the credentials give no right to this"):
        upload(tmp_path / "labels.json", address("s3://videos/labels.json"), SaveError)
    assert s3.get("labels.json") == b"before"


def test_a_bucket_that_does_not_exist_is_said(s3: BucketServer, tmp_path: Path) -> None:
    with pytest.raises(AccountError, match="s3://nobody/a: there is no such bucket"):
        list(list_objects(address("s3://nobody/a"), recursive=True))
    (tmp_path / "a").write_text("a")
    with pytest.raises(SaveError, match="s3://nobody/a: there is no such bucket"):
        upload(tmp_path / "a", address("s3://nobody/a"), SaveError)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("403 Forbidden", "AccessDenied", "the credentials give no right to this: set AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "InvalidAccessKeyId", "the storage does not accept the credentials: set AWS_ACCESS_KEY_ID"),
        ("403 Forbidden", "SignatureDoesNotMatch", "the storage does not accept the credentials"),
        ("400 Bad Request", "ExpiredToken", "the storage does not accept the credentials"),
        ("301 Moved Permanently", "PermanentRedirect", "the bucket is in another region: add ?region="),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(status: str, code: str, reason: str, s3: BucketServer) -> None:
    s3.faults.append(fail(100, "GET", "", status, code))
    with pytest.raises(AccountError, match=re.escape(reason)) as caught:
        list(list_objects(address("s3://videos/a"), recursive=True))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_an_outage(s3: BucketServer) -> None:
    s3.faults.append(fail(100, "GET", "", "500 Internal Server Error", "InternalError"))
    with pytest.raises(OutageError, match=r"s3://videos/a: .*INTERNAL_FAILURE"):
        list(list_objects(address("s3://videos/a"), recursive=True))


def test_without_credentials_the_error_names_the_variables(s3: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    s3.faults.append(refuse_unsigned)
    with pytest.raises(AccountError, match="give no right to this: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        list(list_objects(address("s3://videos/a"), recursive=True))


def test_the_endpoint_may_be_an_option(s3: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    s3.put("a.mp4")
    assert found(f"s3://videos/a.mp4?endpoint_override={s3.endpoint}&scheme=http").num_bytes == 7


def test_a_pyarrow_without_the_file_system_is_said(s3: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.fs

    monkeypatch.delattr(pyarrow.fs, "AzureFileSystem")
    with pytest.raises(AccountError, match="this build of pyarrow has no such file system"):
        find_object(address("abfs://videos@mine.dfs.core.windows.net/a"))
