"""Checks a run before the first frame, for every kind of agent.

Each check returns a description of what it checked, or raises an error that says what to change.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prelabel.assembly.assemble import Assembly
from prelabel.errors import ConfigError, MachineError, SetupError, did_you_mean
from prelabel.evaluate.coco import CocoFile
from prelabel.plugins.load import load_plugin
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import unavailable_reason
from prelabel.run.agents.agent import Agent, make_agent
from prelabel.store.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes:
        name: what was checked.
        passed: whether the check passed.
        detail: a description of what was checked, or what is wrong and what to do.
    """

    name: str
    passed: bool
    detail: str


def run_checks(assembly: Assembly) -> list[Check]:
    """Runs all checks and returns their results, in the order in which a run needs them."""
    agent = make_agent(assembly)
    described = dict(agent.checks())
    if assembly.config.workers is not None:
        from prelabel.run.placement import describe_workers  # it imports the agents, which import this module

        described["workers"] = partial(describe_workers, assembly)
    if assembly.config.source.has_workflow or assembly.config.pathway is not None:
        described["pathway"] = partial(check_pathways, assembly)
    if assembly.config.routing or assembly.router.priority is not None:
        described["routing"] = partial(check_routing, assembly, agent)
    checks: list[Check] = []
    for name, describe in described.items():
        check = _check(name, describe)
        first = next((earlier for earlier in checks if earlier.detail == check.detail and not earlier.passed), None)
        checks.append(check if first is None else Check(name, False, f"waits for {first.name}, above"))
    return checks


def _check(name: str, describe: Callable[[], str]) -> Check:
    try:
        return Check(name, True, describe())
    except SetupError as error:
        return Check(name, False, str(error))


def prepare_stages(assemblies: Sequence[Assembly]) -> None:
    """Creates all components of each stage's run.

    Raises:
        SetupError: the first misconfigured component. With several stages, the message names the stage.
    """
    for assembly in assemblies:
        try:
            prepare(assembly)
        except SetupError as error:
            if len(assemblies) == 1:
                raise
            raise type(error)(f"stage {assembly.stage!r}: {error}") from error


def prepare(assembly: Assembly) -> None:
    """Creates all components of a run, cheap ones first.

    Raises:
        SetupError: the first misconfigured component.
    """
    agent = make_agent(assembly)
    check_output(assembly.store)
    check_reader(assembly)
    assembly.source.prepare()
    check_truth(assembly)
    check_pathways(assembly)
    check_routing(assembly, agent)
    agent.prepare()


def check_output(store: RunFolder) -> None:
    """Checks that a run can write to its folder, which may not exist yet, and to its bucket.

    Raises:
        ConfigError: the folder is a file, or one of them is not writable.
    """
    folder = store.output
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise ConfigError(f"source.output: {folder}: {nearest} is a file, expected a folder: name another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"source.output: {folder}: {nearest} may not be written by this user: name another folder")
    store.claim_bucket()


def check_truth(assembly: Assembly) -> None:
    """Checks that the ground truth exists and is COCO; the demo's is there after `prepare`.

    Raises:
        ConfigError: there is no such file, or it is not COCO.
    """
    truth = assembly.config.source.truth_file
    if truth is None:
        return
    if not truth.exists():
        raise ConfigError(f"source.truth: {truth}: there is no such file: correct the path, or remove the key")
    try:
        CocoFile.read(truth)
    except ConfigError as error:
        raise ConfigError(f"source.truth: {error}") from error


def check_reader(assembly: Assembly) -> str:
    """Describes the reader.

    Raises:
        SetupError: the reader is missing, rejects its options, or needs what this machine lacks.
    """
    section = assembly.config.reader
    if section.use == "auto":
        if section.options:
            key = next(iter(section.options))
            hint = did_you_mean(key, section.own_keys)
            raise ConfigError(
                f"reader.{key}: is not a key of the section: {hint}; a reader's own options need reader.use"
            )
        from prelabel.media.choose import check_device

        check_device(section.device)
        return f"chosen for each file; device {section.device}"
    plugin = load_plugin("reader", section.use, assembly.folder, section.own_keys)
    plugin.check_options(section.options, num_positional=1)
    reason = unavailable_reason(plugin.factory, section.device)
    if reason:
        raise MachineError(f"reader.use: {section.use}, device {section.device}: {reason}")
    return f"{section.use}, device {section.device}"


def check_pathways(assembly: Assembly) -> str:
    """Describes the pathways that tasks may take, and where they lead.

    Raises:
        AccountError: the stage has no such pathway.
    """
    source, failed = assembly.source, assembly.config.on_failure.pathway
    if not source.moves_tasks:
        return "; ".join(assembly.notes) or "none: tasks stay where they are"
    pathways = [source.check_pathway(pathway) for pathway in assembly.router.pathways]
    if not pathways:
        pathways = ["the one that the function returns"]
    if failed is not None:
        pathways.append(f"failed tasks: {source.check_pathway(failed)}")
    return "; ".join(pathways)


def check_routing(assembly: Assembly, agent: Agent[Any, Any]) -> str:
    """Describes the routing rules, in order.

    Raises:
        OntologyError: a rule names an unknown class.
    """
    router = assembly.router
    router.check_classes(agent.routing_classes)
    rules = [f"{number}. {rule}" for number, rule in enumerate(router.rules, start=1)]
    return "; ".join(rules if router.priority is None else [*rules, f"priority: {router.priority.text}"])


def describe_source(assembly: Assembly) -> str:
    """Describes the waiting tasks."""
    return assembly.source.describe()


def describe_sink(assembly: Assembly) -> str:
    """Describes where labels are saved.

    Raises:
        SetupError: labels cannot be saved there.
    """
    check_output(assembly.store)
    check_truth(assembly)
    own, _ = assembly.config.sink, assembly.sink
    if own is None or assembly.dry_run:
        return assembly.rows.describe()
    return f"to {own.use}; reports into {assembly.store.described}"


def describe_model(model: ModelRecord, num_classes: int, batch_size: int) -> str:
    """Describes a model's name, weights, licence, classes, engine and batch size."""
    digest = f", sha256 {model.weights_sha256[:12]}…" if model.weights_sha256 else ""
    licence = f", licence {model.licence}" if model.licence else ""
    engine = f", in {model.engine}" if model.engine else ""
    return f"{model.name}{digest}{licence}, {num_classes} classes{engine}, batches of {batch_size}"
