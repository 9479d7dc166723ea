"""Checks a run before the first frame, for every kind of agent.

Each check returns a description of what it checked, or raises an error that says what to change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prelabel.assembly.assemble import Assembly
from prelabel.errors import SetupError
from prelabel.run.agents.agent import Agent
from prelabel.run.agents.checks import check_output, check_reader, check_truth
from prelabel.run.agents.make import make_agent
from prelabel.run.placement import describe_workers


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
    _start_reading(assembly)
    assembly.source.prepare()
    check_truth(assembly)
    check_pathways(assembly)
    check_routing(assembly, agent)
    agent.prepare()


def _start_reading(assembly: Assembly) -> None:
    """Starts the process that will decode, while this one loads the model; not if workers or a function read media."""
    if assembly.config.workers is None and assembly.config.agent_kind != "function":
        from prelabel.media.open import start_reading

        start_reading(assembly.config.reader)


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
