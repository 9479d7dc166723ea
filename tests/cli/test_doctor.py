from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prelabel.cli import doctor_trials as trials
from prelabel.cli.doctor import (
    Finding,
    check_cache,
    check_encord,
    check_folders,
    check_models,
    examine,
    gpu_mend,
    has_blocking,
    is_container,
)
from prelabel.errors import ReadError
from prelabel.media import torchcodec
from prelabel.testing.encord_server.signing import KeyPair

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def findings() -> Iterator[dict[str, Finding]]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE", "ENCORD_DOMAIN", "ENCORD_PROJECT_HASH"):
            patch.delenv(name, raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield {finding.name: finding for finding in examine(patience_seconds=600)}  # a busy machine takes minutes


@pytest.mark.slow
def test_this_machine_can_run_the_demo(findings: dict[str, Finding]) -> None:
    assert not has_blocking(findings.values()), [f for f in findings.values() if f.status == "missing"]


@pytest.mark.slow
def test_torch_and_torchvision_are_tried_together(findings: dict[str, Finding]) -> None:
    assert findings["torch"].status == "ok"
    assert "torchvision" in findings["torch"].detail


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["pyav", "decord", "torchcodec"])
def test_every_reader_decodes_the_whole_clip_here(findings: dict[str, Finding], reader: str) -> None:
    if reader == "torchcodec" and (unavailable_reason := torchcodec.probe()):
        pytest.skip(unavailable_reason)
    found = findings[f"{reader}, CPU"]
    assert (found.status, found.detail) == ("ok", "decoded 24 of 24 frames, each the right one")


@pytest.mark.slow
def test_the_demo_detector_finds_boxes(findings: dict[str, Finding]) -> None:
    found = findings["demo detector, CPU"]
    assert found.status == "ok"
    assert int(found.detail.split()[0]) > 0


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_no_failure(findings: dict[str, Finding]) -> None:
    assert findings["GPU"].status in {"ok", "warn"}


@pytest.mark.slow
@pytest.mark.needs_cuda
@pytest.mark.parametrize("part", ["GPU", "NVDEC", "demo detector, GPU", "torchcodec, GPU"])
def test_the_parts_that_need_a_gpu_are_tried(findings: dict[str, Finding], part: str) -> None:
    assert findings[part].status == "ok", findings[part].detail


@pytest.mark.slow
def test_every_finding_that_is_not_ok_says_what_to_do(findings: dict[str, Finding]) -> None:
    assert [f for f in findings.values() if f.status != "ok" and not f.mend] == []


@pytest.mark.slow
def test_ultralytics_licence_is_said(findings: dict[str, Finding]) -> None:
    assert "AGPL-3.0" in findings["ultralytics"].detail


def test_examine_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = {finding.name: finding for finding in examine(patience_seconds=0.01)}
    assert found["machine"].detail.startswith("could not be checked: FileNotFoundError")
    assert has_blocking(found.values())


def test_a_trial_without_an_answer_is_missing_if_the_demo_needs_it() -> None:
    found = {finding.name: finding for finding in examine(patience_seconds=0.01)}
    assert (found["torch"].status, found["torch"].detail) == ("missing", "gave no answer within 0.01 s")
    assert (found["FFmpeg"].status, found["FFmpeg"].detail) == ("warn", "gave no answer within 0.01 s")


def test_a_broken_card_and_a_wrong_folder_do_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bad.yaml").write_text("file: [")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "mine.pt").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [str(tmp_path / "broken"), "~/nowhere/", str(tmp_path / "good")]
    monkeypatch.setenv("PRELABEL_MODELS", os.pathsep.join(folders))
    broken, nowhere, good, *_ = check_models()
    assert broken.status == nowhere.status == "warn"
    assert "bad.yaml" in broken.detail
    assert good == Finding("models", "ok", f"{folders[2]}: weights mine.pt")


def test_only_what_is_missing_blocks() -> None:
    assert not has_blocking([Finding("a", "ok", ""), Finding("b", "warn", "")])
    assert has_blocking([Finding("a", "ok", ""), Finding("b", "missing", "")])


def test_a_frame_in_the_place_of_another_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = trials.draw_number
    monkeypatch.setattr(trials, "draw_number", lambda number: drawn(6 if number == 7 else number))
    trials.write_test_clip(tmp_path / "clip.mp4")
    with pytest.raises(ReadError, match="frame 6 came in the place of frame 7"):
        trials.decode("pyav", "cpu", tmp_path / "clip.mp4")


def test_a_clip_with_fewer_frames_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as shorter:
        shorter.setattr(trials, "NUM_FRAMES", 23)
        trials.write_test_clip(tmp_path / "clip.mp4")
    with pytest.raises(ReadError, match="decoded 23 of 24 frames"):
        trials.decode("pyav", "cpu", tmp_path / "clip.mp4")


def test_no_encord_settings_are_no_failure() -> None:
    (found,) = check_encord({})
    assert found.status == "warn"
    assert "ENCORD_SSH_KEY_FILE" in found.detail


def test_a_valid_key_file_is_reported_by_its_variable_only(tmp_path: Path) -> None:
    key = write_key(tmp_path / "secret-name", 0o600)
    found = check_encord({"ENCORD_SSH_KEY_FILE": str(key), "ENCORD_PROJECT_HASH": "secret-hash"})
    assert [finding.status for finding in found] == ["ok", "ok"]
    assert "secret" not in repr(found)


def test_a_key_file_open_to_others_is_named_with_the_command_that_closes_it(tmp_path: Path) -> None:
    key = write_key(tmp_path / "key", 0o644)
    found = check_encord({"ENCORD_SSH_KEY_FILE": str(key)})[-1]
    assert found.status == "warn"
    assert "644" in found.detail
    assert found.mend == 'chmod 600 "$ENCORD_SSH_KEY_FILE"'


@pytest.mark.parametrize(
    "environment",
    [
        {"ENCORD_SSH_KEY_FILE": "/nowhere/secret"},
        {"ENCORD_SSH_KEY_FILE": "~/secret-in-my-home"},
        {"ENCORD_SSH_KEY": "secret"},
        {"ENCORD_SSH_KEY": KeyPair.make().private_text.replace("\n", "secret\n", 3)},
        {"ENCORD_SSH_KEY_FILE": "secret" + KeyPair.make().private_text},
    ],
    ids=["no such file", "not in the home", "no key", "broken key", "the key itself where its file should be"],
)
def test_an_invalid_key_is_reported_without_its_value(environment: dict[str, str]) -> None:
    found = check_encord(environment)
    assert found[-1].status == "warn"
    told = repr(found)
    assert "secret" not in told
    assert "PRIVATE KEY" not in told
    assert str(Path.home() / "secret") not in told


def test_a_secret_that_the_system_mounts_may_be_read_by_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = write_key(tmp_path / "key", 0o440)
    monkeypatch.setattr(os, "geteuid", lambda: key.stat().st_uid + 1)
    assert check_encord({"ENCORD_SSH_KEY_FILE": str(key)})[-1].status == "ok"
    key.chmod(0o444)
    assert check_encord({"ENCORD_SSH_KEY_FILE": str(key)})[-1].status == "warn"


def test_a_folder_that_cannot_be_written_is_named_with_its_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # root may write everywhere
    folders = {"outputs": Path("/"), "downloaded weights": tmp_path / "cache" / "models"}
    (found,) = check_folders(folders)
    assert found.status == "warn"
    assert found.detail.startswith(f"downloaded weights: {tmp_path}/cache/models: user ")
    assert "XDG_CACHE_HOME" in found.mend


def test_a_container_without_a_gpu_says_how_to_add_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert "--gpus all" in gpu_mend(with_gpu=False, in_container=is_container())
    assert "--gpus all" not in gpu_mend(with_gpu=False, in_container=False)
    assert "nvidia-smi" in gpu_mend(with_gpu=True, in_container=True)


def write_key(path: Path, mode: int) -> Path:
    path.write_text(KeyPair.make().private_text)
    path.chmod(mode)
    return path


def test_the_cache_is_told_with_its_size(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert list(check_cache()) == []
    graph = tmp_path / "prelabel" / "engines" / "abc" / "openvino" / "model.bin"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(bytes(20_000_000))

    (found,) = check_cache()

    assert found.detail.startswith(f"{tmp_path / 'prelabel'}: engines 0.02 GB; what you delete there")
