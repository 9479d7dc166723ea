"""Starts or joins a Ray cluster, and divides it among workers."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prelabel.config.sections import WorkersSection
from prelabel.errors import ConfigError, MachineError
from prelabel.runtime.process_settings import usable_cores

CONNECT_SECONDS = 10.0
START_ATTEMPTS = 4
MAX_WORKERS_PER_CORE = 4
SECRETS = ("ENCORD_SSH_KEY", "ENCORD_SSH_KEY_FILE", "ENCORD_WEBHOOK_SECRET")
"""Variables that workers must not inherit."""


def require_ray() -> None:
    """Raises: MachineError: Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise MachineError("workers: Ray is not installed: uv sync --extra ray, or pip install 'prelabel[ray]'")


def import_ray() -> Any:
    """Returns Ray's module, set up for workers.

    Raises:
        MachineError: Ray is not installed.
    """
    require_ray()
    # If the run was started by `uv run`, Ray 2.47 and later would start each worker by it too, and upload the working
    # directory. Ray also sends usage statistics home, and gives workers a niceness of 15.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    from ray._private import ray_constants

    # Ray reads the variable when it is imported, and another package may have imported it before: Ultralytics does.
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    return ray


def connect(ray: Any, section: WorkersSection) -> bool:
    """Joins a cluster, or starts one on this machine; returns False if this process has joined one already.

    Raises:
        ConfigError: there is no cluster at the address, or it cannot be joined.
        MachineError: Ray does not start here.
    """
    if ray.is_initialized():
        return False
    if section.address is not None:
        check_answers(section.address)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    if section.address is None:
        num, cpus = (1 if value == "auto" else value for value in (section.num, section.cpus))
        # Workers that mostly wait may be more than there are cores, but not any number of them: each takes memory.
        cores = min(max(usable_cores(), num * cpus), MAX_WORKERS_PER_CORE * usable_cores())
        options |= {"num_cpus": cores, "include_dashboard": False}
    for attempt in range(START_ATTEMPTS):
        try:
            with _without_secrets():
                ray.init(address=section.address or "local", **options)
            break
        except Exception as error:  # Ray 2.60 raises bare ones
            if section.address is not None:
                raise _cannot_join(section.address, error) from error
            # Ray gives itself 30 seconds, which is too little if this machine has much else to do.
            if "timed out during startup" not in str(error) or attempt == START_ATTEMPTS - 1:
                raise MachineError(f"workers: Ray does not start on this machine: {first_line(error)}") from error
    return True


def check_answers(address: str) -> None:
    """Checks that something answers at `host:port`; Ray itself would try for minutes.

    Raises:
        ConfigError: nothing answers.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():  # such as `auto`, which Ray finds by itself
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise _cannot_join(address, error) from error


def _cannot_join(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"workers.address: cannot join {address}: {first_line(error)}. Start the cluster first (`ray start --head`), "
        "with the same versions of Ray and Python, or leave address out"
    )


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Hides the key from what is started: Ray's processes and workers inherit the environment."""
    hidden = {name: os.environ.pop(name) for name in SECRETS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def divide(nodes: Sequence[Mapping[str, float]], section: WorkersSection) -> tuple[int, float, int]:
    """Returns the number of workers, and the GPUs and CPU cores of each.

    Args:
        nodes: resources of each machine of the cluster, by Ray's names: CPU, GPU.
        section: the config's section `workers`.

    Raises:
        ConfigError: so many workers do not fit on the machines.

    >>> divide([{"CPU": 8}, {"CPU": 8}], WorkersSection(num=3))
    (3, 0.0, 4)
    """
    num_gpus, num_cores = (sum(node.get(kind, 0) for node in nodes) for kind in ("GPU", "CPU"))
    gpus = section.gpus if num_gpus else 0.0

    def num_places(cores: int) -> int:
        limits = [(node.get("CPU", 0) // cores, node.get("GPU", 0) // gpus if gpus else math.inf) for node in nodes]
        return int(sum(map(min, limits)))

    one_per_gpu = max(1, int(num_gpus // gpus)) if gpus else 1
    num = one_per_gpu if section.num == "auto" else section.num
    if section.cpus != "auto":
        cores = section.cpus
    else:  # a worker is on one machine, so an even share may be too much
        even = max(1, int(num_cores // num))
        cores = next((cores for cores in range(even, 0, -1) if num_places(cores) >= num), 1)
    if num_places(cores) < num:
        asked = f"{cores} CPU" + (f" and {gpus:g} GPU" if gpus else "")
        raise ConfigError(
            f"workers: {num} workers with {asked} each do not fit: the cluster has {num_cores:g} CPU and "
            f"{num_gpus:g} GPU: lower workers.num or workers.cpus"
        )
    return num, gpus, cores


def part_of(resource: float, num_stages: int) -> float:
    """Returns what each of several stages asks Ray for, so that all get it; Ray takes fractions below 1 only.

    >>> part_of(1.0, 2), part_of(3, 2), part_of(4, 1)
    (0.5, 1, 4)
    """
    part = resource / num_stages
    return part if part < 1 else int(part)


def first_line(error: Exception) -> str:
    """Returns the first line of an error of Ray, without colours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\x1b\[\d+m", "", lines[0])[:300] if lines else type(error).__name__
