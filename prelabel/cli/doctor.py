"""Examines this machine: what it has, and how to get what it lacks."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import prelabel
from prelabel.cli import doctor_trials as trials
from prelabel.encord.connection import KEY_FILE, KEY_TEXT, read_key
from prelabel.errors import AccountError, PrelabelError, WeightsError
from prelabel.models.weights import (
    MODELS_VARIABLE,
    cache_folder,
    model_folders,
    named_model_folders,
    read_card,
    user_cache,
)
from prelabel.runtime.process_settings import machine_cores, usable_cores

Status = Literal["ok", "warn", "missing"]

PATIENCE_SECONDS = 90.0
SECONDS_TO_DIE = 5.0
LEAST_FREE_GB = 1.0  # the demo writes some MB; a full disk fails in ways that are hard to read
ENCORD_VARIABLES = (KEY_TEXT, KEY_FILE, "ENCORD_DOMAIN", "ENCORD_PROJECT_HASH")

_REINSTALL = "set the environment up again: uv sync"
_USE_GPU = "torch cannot use a GPU that the driver shows: compare the CUDA version in nvidia-smi with that of torch"
_GIVE_GPU = ". To use the host's GPU in a container: docker run --gpus all; in Kubernetes limits: nvidia.com/gpu: 1"
_GET_DEMO = "models/demo.yaml and its weights come with prelabel: restore them, or set the environment up again"
_GET_FFMPEG = "only torchcodec needs FFmpeg's libraries, version 4 to 9: apt-get install ffmpeg"
_GET_NVDEC = "only files that torchcodec does not read need it: uv sync --extra nvdec"
_USE_PYAV = "reader.use: auto reads with PyAV on a CPU; for decord: uv pip install decord (Linux on x86_64)"
_GPU_DECORD = "decord from PyPI has no GPU support: build it with -DUSE_CUDA=ON, or leave reader.use at auto"
_VIDEO_CAPABILITY = "in a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video …"
_MAKE_WRITABLE = {
    "outputs": "go to a folder of yours, or --set source.output=FOLDER; a container needs one mounted at /work",
    "downloaded weights": "set XDG_CACHE_HOME to a folder of yours",
}
_WEIGHT_SUFFIXES = (".pt", ".pth", ".onnx", ".engine", ".torchscript", ".safetensors")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of the machine.

    Attributes:
        name: name of the part that was checked.
        status: `ok`; `warn`: some configs cannot run; `missing`: nothing runs, not even the demo.
        detail: what was found, or what is wrong.
        mend: how to fix it; empty if nothing needs to be done.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


def examine(patience_seconds: float = PATIENCE_SECONDS) -> list[Finding]:
    """Returns what this machine has and lacks. It never raises, since a failing check is a finding.

    Checks that may crash or hang run in another process, so a script that calls this function needs the usual
    `if __name__ == "__main__":`.

    Args:
        patience_seconds: time for each trial before it counts as hung.
    """
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "Python": _check_python,
        "machine": _check_machine,
        "trials": lambda: _try_all(patience_seconds),
        "ultralytics": _check_ultralytics,
        "models": check_models,
        "cache": check_cache,
        "Encord": lambda: check_encord(os.environ),
    }
    return [finding for name, check in checks.items() for finding in _guarded(name, check)]


def has_blocking(findings: Iterable[Finding]) -> bool:
    """Returns whether something is missing that even `prelabel run configs/demo.yaml` needs."""
    return any(finding.status == "missing" for finding in findings)


def _guarded(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # one failing check must not hide the others
        status: Status = "missing" if name == "trials" else "warn"
        return [Finding(name, status, f"could not be checked: {type(error).__name__}: {error}")]


def _check_python() -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    yield Finding("prelabel", "ok", f"{prelabel.__version__}, in {Path(prelabel.__file__).parent}")


def _check_machine() -> Iterator[Finding]:
    usable, cores = usable_cores(), machine_cores()
    limit = f"; this container may use {usable} of them" if usable < cores else ""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Finding("CPU", "ok", f"{cores} cores{limit}, {memory_gb:.0f} GB memory")
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free_gb >= LEAST_FREE_GB
    mend = "" if enough else f"make room: a run needs {LEAST_FREE_GB:g} GB here, and downloads need more"
    yield Finding("disk", "ok" if enough else "missing", f"{free_gb:.1f} GB free in {Path.cwd()}", mend)
    yield from check_folders({"outputs": Path.cwd(), "downloaded weights": cache_folder()})


def check_folders(folders: Mapping[str, Path]) -> Iterator[Finding]:
    """Yields a finding for each folder that a run cannot write to. A missing folder is fine if it can be created.

    Args:
        folders: folders by what a run writes to them.
    """
    for what, folder in folders.items():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            detail = f"{what}: {folder}: user {os.geteuid()} may not write in {existing}"
            yield Finding("writing", "warn", detail, _MAKE_WRITABLE[what])


def _check_ultralytics() -> Iterator[Finding]:
    try:
        found = version("ultralytics")
    except PackageNotFoundError:
        mend = "uv pip install ultralytics, or use torchvision models"
        yield Finding("ultralytics", "warn", "not installed: no YOLO and no RT-DETR", mend)
        return
    yield Finding("ultralytics", "ok", f"{found}; it and its published weights are AGPL-3.0")


def check_models() -> Iterator[Finding]:
    """Yields a finding for each folder that is searched for cards and weights."""
    for folder in dict.fromkeys([*model_folders(), cache_folder()]):
        try:
            if folder.is_dir():
                yield Finding("models", "ok", f"{folder}: {_list_models(folder)}")
            elif folder in named_model_folders():
                yield Finding(
                    "models", "warn", f"{folder}: is not a folder", f"change ${MODELS_VARIABLE}, which names it"
                )
        except WeightsError as error:
            yield Finding("models", "warn", str(error), "correct this card, or remove it")


def check_cache() -> Iterator[Finding]:
    """Yields each cache folder and its size. prelabel never deletes anything there."""
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in sorted(user_cache().glob("*/"))
    }
    listed = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in sizes.items())
    if listed:
        yield Finding("cache", "ok", f"{user_cache()}: {listed}; what you delete there is fetched or made again")


def _list_models(folder: Path) -> str:
    cards = sorted(folder.glob("*.yaml"))
    files = {read_card(card).file for card in cards}
    weights = sorted(path.name for path in folder.rglob("*") if path.suffix in _WEIGHT_SUFFIXES or path.name in files)
    listed = (
        f"weights {', '.join(weights)}" if weights else "no weights yet: those of a card are downloaded when needed"
    )
    return f"{len(cards)} cards ({', '.join(card.stem for card in cards)}); {listed}" if cards else listed


# Encord's settings


def check_encord(environment: Mapping[str, str]) -> list[Finding]:
    """Returns which of Encord's variables are set, and whether the key is valid. Findings never contain values.

    Args:
        environment: environment variables by name.
    """
    named = [name for name in ENCORD_VARIABLES if environment.get(name)]
    if not named:
        detail = f"not set: {', '.join(ENCORD_VARIABLES)}"
        return [Finding("Encord", "warn", detail, "only source.use: encord needs them")]
    unset = [name for name in ENCORD_VARIABLES if name not in named]
    detail = f"set: {', '.join(named)}" + (f"; not set: {', '.join(unset)}" if unset else "")
    return [Finding("Encord", "ok", detail), _check_key(environment)]


def _check_key(environment: Mapping[str, str]) -> Finding:
    try:
        read_key(environment)
    except AccountError as error:
        return Finding("Encord key", "warn", _without_values(str(error), environment))
    if environment.get(KEY_TEXT, "").strip():
        return Finding("Encord key", "ok", f"an Ed25519 private key, in {KEY_TEXT}")
    status = Path(environment[KEY_FILE].strip()).expanduser().stat()
    mode = stat.S_IMODE(status.st_mode)
    # Other users must not read the file. A mounted secret belongs to root, so there the group may read it.
    if mode & (0o077 if status.st_uid == os.geteuid() else 0o007):
        detail = f"the file that {KEY_FILE} names is open to other users (mode {mode:03o})"
        return Finding("Encord key", "warn", detail, f'chmod 600 "${KEY_FILE}"')
    return Finding("Encord key", "ok", f"an Ed25519 private key, from the file that {KEY_FILE} names, mode {mode:03o}")


def _without_values(text: str, environment: Mapping[str, str]) -> str:
    for name in (KEY_TEXT, KEY_FILE):
        value = environment.get(name, "").strip()
        for form in {value, str(Path(value).expanduser())} if value else ():
            text = text.replace(form, f"${name}")
    return text


# Trials in another process


@dataclass(frozen=True, slots=True)
class Trial:
    """A check that may raise an error, crash or hang.

    Attributes:
        name: name of the finding.
        attempt: runs the check and describes what works. It must be a module-level function, since it is pickled.
        arguments: arguments for `attempt`.
        otherwise: the status if the attempt fails.
        mend: how to fix a failure.
    """

    name: str
    attempt: Callable[..., str]
    arguments: tuple[object, ...] = ()
    otherwise: Status = "warn"
    mend: str = ""

    def finding(self, error: str | None, text: str = "") -> Finding:
        """Returns the finding for an attempt's text or error."""
        if error is None:
            return Finding(self.name, "ok", text)
        return Finding(self.name, self.otherwise, error, self.mend)


def _try_all(patience_seconds: float) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="prelabel-doctor-") as folder:
        return run_trials(_trials(Path(folder) / "clip.mp4"), patience_seconds)


def _trials(clip: Path) -> list[Trial]:
    """Returns the trials. Those that most others depend on come first."""
    # The system may show a GPU that torch cannot use. `/dev/dxg` is under WSL.
    with_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    listed = [
        Trial("torch", trials.import_torch, (), "missing", _REINSTALL),
        Trial("GPU", trials.list_gpus, (), "warn", gpu_mend(with_gpu, in_container=is_container())),
        Trial("test clip", trials.write_test_clip, (clip,), "missing", _REINSTALL),
        Trial("pyav, CPU", trials.decode, ("pyav", "cpu", clip), "missing", _REINSTALL),
        Trial("demo detector, CPU", trials.detect, ("cpu",), "missing", _GET_DEMO),
        Trial("FFmpeg", trials.load_ffmpeg, (), "warn", _GET_FFMPEG),
        Trial("torchcodec, CPU", trials.decode, ("torchcodec", "cpu", clip), "warn", _GET_FFMPEG),
        Trial("decord, CPU", trials.decode, ("decord", "cpu", clip), "warn", _USE_PYAV),
    ]
    if with_gpu:
        listed += [
            Trial("NVDEC", trials.load_nvcuvid, (), "warn", _VIDEO_CAPABILITY),
            Trial("demo detector, GPU", trials.detect_on_gpus, (), "warn", _USE_GPU),
            Trial("torchcodec, GPU", trials.decode, ("torchcodec", "cuda", clip), "warn", _VIDEO_CAPABILITY),
            Trial("nvdec, GPU", trials.decode, ("nvdec", "cuda", clip), "warn", _GET_NVDEC),
            Trial("decord, GPU", trials.decode, ("decord", "cuda", clip), "warn", _GPU_DECORD),
        ]
    return listed


def gpu_mend(with_gpu: bool, *, in_container: bool) -> str:
    """Returns what to do if torch does not see a GPU.

    Args:
        with_gpu: whether the system shows a GPU.
        in_container: whether this is a container, whose host may have a GPU.
    """
    if with_gpu:
        return _USE_GPU
    return f"a GPU is not required: everything runs on the CPU too{_GIVE_GPU if in_container else ''}"


def is_container() -> bool:
    """Returns whether this is a container of Docker, Podman or Kubernetes."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    named = {"KUBERNETES_SERVICE_HOST", "container"} & os.environ.keys()  # `container`: Podman's and systemd's
    return bool(named) or any(mark.exists() for mark in marks)


def run_trials(listed: Sequence[Trial], patience_seconds: float) -> list[Finding]:
    """Returns the finding of each trial, in order.

    The trials share a process, so that imports happen once. If a trial crashes or hangs, the next trials get a new
    process.

    Args:
        listed: trials in the order in which they run.
        patience_seconds: time for one trial, including imports, before it counts as hung.
    """
    findings: list[Finding] = []
    while len(findings) < len(listed):
        findings += _run_in_one_process(listed[len(findings) :], patience_seconds)
    return findings


def _run_in_one_process(listed: Sequence[Trial], patience_seconds: float) -> list[Finding]:
    """Returns the findings up to and including the first trial that crashed or hung. There is at least one."""
    context = multiprocessing.get_context("spawn")  # never fork, since handles of decord and CUDA do not survive it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, [(each.attempt, each.arguments) for each in listed]))
    process.daemon = True
    process.start()
    sender.close()  # otherwise the receiver would not notice that the process has ended
    findings: list[Finding] = []
    try:
        for trial in listed:
            if not receiver.poll(patience_seconds):
                return [*findings, trial.finding(f"gave no answer within {patience_seconds:g} s")]
            findings.append(trial.finding(*receiver.recv()))
    except EOFError:
        process.join(SECONDS_TO_DIE)
        end = f"ended the process, exit code {process.exitcode}"
        if process.exitcode is not None and process.exitcode < 0:
            end = f"crashed the process: {signal.Signals(-process.exitcode).name}"
        findings.append(listed[len(findings)].finding(end))
    finally:
        process.kill()
        process.join()
        receiver.close()
    return findings


def _serve(sender: Connection, attempts: Sequence[tuple[Callable[..., str], tuple[object, ...]]]) -> None:
    """Sends the result or error of each attempt as soon as it ends. Runs in the child process."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # native libraries write to the terminal directly
    os.dup2(silence, 2)
    for attempt, arguments in attempts:
        try:
            sender.send((None, attempt(*arguments)))
        except PrelabelError as error:
            sender.send((str(error),))
        except Exception as error:
            sender.send((f"{type(error).__name__}: {' '.join(str(error).split())}",))
