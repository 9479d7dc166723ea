"""What may crash or hang the process that tries it, tried in another."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import prelabel
from prelabel.cli import doctor_trials as trials
from prelabel.encord.connection import KEY_FILE, KEY_TEXT, read_key
from prelabel.errors import AccountError, PrelabelError, WeightsError
from prelabel.models.cards import MODELS_VARIABLE, model_folders, named_model_folders, read_card
from prelabel.models.weights import cache_folder
from prelabel.runtime.process_settings import machine_cores, usable_cores

Status = Literal["ok", "warn", "missing"]

PATIENCE_SECONDS = 90.0
LEAST_FREE_GB = 1.0  # a run of the demo writes some MB; a full disk fails in ways that are hard to read
ENCORD_VARIABLES = (KEY_TEXT, KEY_FILE, "ENCORD_DOMAIN", "ENCORD_PROJECT_HASH")

_REINSTALL = "set the environment up again: uv sync"
_USE_GPU = "the driver shows a GPU that torch cannot use: compare the CUDA version in nvidia-smi with that of torch"
_GIVE_GPU = "; a container gets the host's by docker run --gpus all, in Kubernetes by limits: nvidia.com/gpu: 1"
_GET_DEMO = "models/demo.yaml and its weights come with prelabel: get them back, or set the environment up again"
_GET_FFMPEG = "only torchcodec needs FFmpeg's libraries, version 4 to 9: apt-get install ffmpeg"
_USE_PYAV = "reader.use: auto reads with PyAV on a CPU; for decord: uv pip install decord (Linux on x86_64)"
_GPU_DECORD = "decord from PyPI has no GPU support: build it with -DUSE_CUDA=ON, or leave it to reader.use: auto"
_VIDEO_CAPABILITY = "in a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video …"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        status: `ok`; `warn`: some configs cannot run, others can; `missing`: nothing runs, the demo included.
        detail: what is there, or what is wrong.
        mend: what to do about it; empty where nothing need be done.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


def examine(patience_seconds: float = PATIENCE_SECONDS) -> list[Finding]:
    """Returns what this machine has and lacks. Never raises: a look that fails is a finding.

    What may crash or hang is tried in a process of its own, so a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Args:
        patience_seconds: for each thing that is tried, before it counts as hung.
    """
    return [
        *_look("Python", _look_at_python),
        *_look("machine", _look_at_machine),
        *_look("trials", lambda: _try_all(patience_seconds), otherwise="missing"),
        *_look("ultralytics", _look_at_ultralytics),
        *_look("models", look_at_models),
        *_look("Encord", lambda: look_at_encord(os.environ)),
    ]


def has_blocking(findings: Iterable[Finding]) -> bool:
    """Tells whether something is missing without which not even `prelabel run configs/demo.yaml` can run."""
    return any(finding.status == "missing" for finding in findings)


def _look(name: str, look: Callable[[], Iterable[Finding]], otherwise: Status = "warn") -> list[Finding]:
    try:
        return list(look())
    except Exception as error:  # a doctor that falls ill helps nobody
        return [Finding(name, otherwise, f"could not be looked at: {type(error).__name__}: {error}")]


def _look_at_python() -> Iterable[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()}, {platform.platform(terse=True)}, {platform.machine()}")
    yield Finding("prelabel", "ok", f"{prelabel.__version__}, in {Path(prelabel.__file__).parent}")


def _look_at_machine() -> Iterable[Finding]:
    usable, cores = usable_cores(), machine_cores()
    limit = f", the time of {usable} for this container" if usable < cores else ""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Finding("CPU", "ok", f"{cores} cores{limit}, {memory_gb:.0f} GB memory")
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    enough = free_gb >= LEAST_FREE_GB
    mend = "" if enough else f"make room: a run needs {LEAST_FREE_GB:g} GB here, and downloads need more"
    yield Finding("disk", "ok" if enough else "missing", f"{free_gb:.1f} GB free in {Path.cwd()}", mend)
    yield from look_at_folders({"outputs": Path.cwd(), "fetched weights": cache_folder()})


def look_at_folders(folders: Mapping[str, Path]) -> Iterable[Finding]:
    """Returns whether what a run writes can be written; folders that do not exist yet would be made.

    Args:
        folders: by what goes there.
    """
    for what, folder in folders.items():
        standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not os.access(standing, os.W_OK | os.X_OK):
            detail = f"{what}: {folder}: user {os.geteuid()} may not write in {standing}"
            yield Finding("writing", "warn", detail, _MAKE_WRITABLE[what])


_MAKE_WRITABLE = {
    "outputs": "go to a folder that is yours, or --set source.output=FOLDER; a container wants it mounted at /work",
    "fetched weights": "set XDG_CACHE_HOME to a folder that is yours",
}


def _try_all(patience_seconds: float) -> Iterable[Finding]:
    with tempfile.TemporaryDirectory(prefix="prelabel-doctor-") as folder:
        tries = _tries(Path(folder) / "clip.mp4", with_gpu=has_gpu())
        outcomes = run_probes([each.probe for each in tries], patience_seconds)
    for each, outcome in zip(tries, outcomes, strict=True):
        if outcome.worked:
            yield Finding(each.probe.name, "ok", outcome.text)
        else:
            yield Finding(each.probe.name, each.otherwise, outcome.text, each.mend)


@dataclass(frozen=True, slots=True)
class _Try:
    """A probe, and what to say if it does not work."""

    probe: Probe
    otherwise: Status
    mend: str


def _tries(clip: Path, *, with_gpu: bool) -> list[_Try]:
    """Returns what to try, what breaks least first."""
    tries = [
        _Try(Probe("torch", trials.import_torch), "missing", _REINSTALL),
        _Try(Probe("GPU", trials.list_gpus), "warn", gpu_mend(with_gpu, in_container=is_container())),
        _Try(Probe("test clip", trials.write_test_clip, (clip,)), "missing", _REINSTALL),
        _Try(Probe("pyav, CPU", trials.decode, ("pyav", "cpu", clip)), "missing", _REINSTALL),
        _Try(Probe("demo detector, CPU", trials.detect, ("cpu",)), "missing", _GET_DEMO),
        _Try(Probe("FFmpeg", trials.load_ffmpeg), "warn", _GET_FFMPEG),
        _Try(Probe("torchcodec, CPU", trials.decode, ("torchcodec", "cpu", clip)), "warn", _GET_FFMPEG),
        _Try(Probe("decord, CPU", trials.decode, ("decord", "cpu", clip)), "warn", _USE_PYAV),
    ]
    on_gpu = [
        _Try(Probe("NVDEC", trials.load_nvcuvid), "warn", _VIDEO_CAPABILITY),
        _Try(Probe("demo detector, GPU", trials.detect_on_gpus), "warn", _USE_GPU),
        _Try(Probe("torchcodec, GPU", trials.decode, ("torchcodec", "cuda", clip)), "warn", _VIDEO_CAPABILITY),
        _Try(Probe("decord, GPU", trials.decode, ("decord", "cuda", clip)), "warn", _GPU_DECORD),
    ]
    return [*tries, *on_gpu] if with_gpu else tries


def gpu_mend(with_gpu: bool, *, in_container: bool) -> str:
    """Returns what to do about a GPU that torch does not see.

    Args:
        with_gpu: the system shows one.
        in_container: it could be one of the host's.
    """
    if with_gpu:
        return _USE_GPU
    return f"none needed: all runs on the CPU too{_GIVE_GPU if in_container else ''}"


def is_container() -> bool:
    """Tells whether this is a container: Docker's, Podman's or Kubernetes'."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    named = {"KUBERNETES_SERVICE_HOST", "container"} & os.environ.keys()  # `container`: Podman's and systemd's
    return bool(named) or any(mark.exists() for mark in marks)


def has_gpu() -> bool:
    """Tells whether the system shows an NVIDIA GPU, whatever torch makes of it."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # dxg: under WSL


def _look_at_ultralytics() -> Iterable[Finding]:
    try:
        found = version("ultralytics")
    except PackageNotFoundError:
        mend = "uv pip install ultralytics, or use torchvision models"
        yield Finding("ultralytics", "warn", "not installed: no YOLO and no RT-DETR", mend)
        return
    yield Finding("ultralytics", "ok", f"{found}; it and its published weights are AGPL-3.0")


def look_at_models() -> Iterable[Finding]:
    """Returns each folder in which cards and weights are looked for, and what is in it."""
    for folder in dict.fromkeys([*model_folders(), cache_folder()]):
        try:
            if folder.is_dir():
                yield Finding("models", "ok", f"{folder}: {_list_models(folder)}")
            elif folder in named_model_folders():
                yield Finding("models", "warn", f"{folder}: is no folder", f"${MODELS_VARIABLE} names it: mend that")
        except WeightsError as error:
            yield Finding("models", "warn", str(error), "mend this card, or take it away")


def _list_models(folder: Path) -> str:
    cards = sorted(folder.glob("*.yaml"))
    files = {read_card(card).file for card in cards}
    weights = sorted(path.name for path in folder.rglob("*") if path.suffix in _WEIGHT_SUFFIXES or path.name in files)
    listed = f"weights {', '.join(weights)}" if weights else "no weights yet: those of cards are fetched when asked for"
    return f"{len(cards)} cards ({', '.join(card.stem for card in cards)}); {listed}" if cards else listed


_WEIGHT_SUFFIXES = (".pt", ".pth", ".onnx", ".engine", ".torchscript", ".safetensors")


def look_at_encord(environment: Mapping[str, str]) -> list[Finding]:
    """Returns which of Encord's variables are set, and whether the key is one. No value of any is told.

    Args:
        environment: variables by name.
    """
    named = [name for name in ENCORD_VARIABLES if environment.get(name)]
    if not named:
        detail = f"not set: {', '.join(ENCORD_VARIABLES)}"
        return [Finding("Encord", "warn", detail, "needed for source.use: encord only")]
    unset = [name for name in ENCORD_VARIABLES if name not in named]
    detail = f"set: {', '.join(named)}" + (f"; not set: {', '.join(unset)}" if unset else "")
    return [Finding("Encord", "ok", detail), *_look_at_key(environment)]


def _look_at_key(environment: Mapping[str, str]) -> Sequence[Finding]:
    try:
        read_key(environment)
    except AccountError as error:
        return [Finding("Encord key", "warn", _without_values(str(error), environment))]
    if environment.get(KEY_TEXT, "").strip():
        return [Finding("Encord key", "ok", f"an Ed25519 private key, in {KEY_TEXT}")]
    path = Path(environment[KEY_FILE].strip()).expanduser()
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    # A mounted secret belongs to root, and a container's user reads it by its group.
    if mode & (0o077 if status.st_uid == os.geteuid() else 0o007):
        detail = f"the file that {KEY_FILE} names is open to other users (mode {mode:03o})"
        return [Finding("Encord key", "warn", detail, f'chmod 600 "${KEY_FILE}"')]
    return [
        Finding("Encord key", "ok", f"an Ed25519 private key, from the file that {KEY_FILE} names, mode {mode:03o}")
    ]


def _without_values(text: str, environment: Mapping[str, str]) -> str:
    for name in (KEY_TEXT, KEY_FILE):
        value = environment.get(name, "").strip()
        for form in {value, str(Path(value).expanduser())} if value else ():
            text = text.replace(form, f"${name}")
    return text


SECONDS_TO_DIE = 5.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try.

    Attributes:
        name: what a person calls it.
        attempt: tries it and returns what was seen, in words; raises if it does not work. A module's own function.
        arguments: for `attempt`; they are pickled.
    """

    name: str
    attempt: Callable[..., str]
    arguments: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a probe ended.

    Attributes:
        worked: it neither raised, crashed nor hung.
        text: what was seen, or what went wrong.
    """

    worked: bool
    text: str


def run_probes(probes: Sequence[Probe], patience_seconds: float) -> list[Outcome]:
    """Returns how each probe ended.

    They share a process, so that what they import is imported once; one that crashes or hangs takes only itself along,
    and those after it get a new process.

    Args:
        probes: tried in this order.
        patience_seconds: for one probe, imports included, before it counts as hung.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(probes):
        outcomes += _run_in_one_process(probes[len(outcomes) :], patience_seconds)
    return outcomes


def _run_in_one_process(probes: Sequence[Probe], patience_seconds: float) -> list[Outcome]:
    """Returns outcomes up to and with the first probe that did not answer: one or more."""
    context = multiprocessing.get_context("spawn")  # never fork: decord's and CUDA's handles do not survive it
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, tuple(probes)), daemon=True)
    process.start()
    sender.close()
    try:
        return _collect(receiver, process, len(probes), patience_seconds)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _collect(receiver: Connection, process: BaseProcess, num_probes: int, patience_seconds: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while len(outcomes) < num_probes:
        if not receiver.poll(patience_seconds):
            return [*outcomes, Outcome(False, f"gave no answer within {patience_seconds:g} s")]
        try:
            outcomes.append(Outcome(*receiver.recv()))
        except EOFError:
            process.join(SECONDS_TO_DIE)
            return [*outcomes, Outcome(False, _describe_end(process.exitcode))]
    return outcomes


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"crashed the process: {signal.Signals(-exit_code).name}"
    return f"ended the process, exit code {exit_code}"


def _serve(sender: Connection, probes: Sequence[Probe]) -> None:
    """Runs in the child: sends an outcome for each probe as it ends."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # native libraries write to the terminal on their own
    os.dup2(silence, 2)
    for probe in probes:
        try:
            sender.send((True, probe.attempt(*probe.arguments)))
        except PrelabelError as error:
            sender.send((False, str(error)))
        except Exception as error:
            sender.send((False, f"{type(error).__name__}: {' '.join(str(error).split())}"))
