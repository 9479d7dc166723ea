"""Makes the agent that a config selects."""

from __future__ import annotations

from typing import Any

from prelabel.assembly.assemble import Assembly
from prelabel.run.agents.agent import Agent
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress, Progress


def make_agent(assembly: Assembly, progress: Progress | None = None, stop: StopSignal | None = None) -> Agent[Any, Any]:
    """Returns the agent that the config selects."""
    progress, stop = progress or NullProgress(), stop or StopSignal()
    match assembly.config.agent_kind:
        case "detection":
            from prelabel.run.agents.detection import DetectionAgent

            return DetectionAgent(assembly, progress, stop)
        case "classification":
            from prelabel.run.agents.classification import ClassificationAgent

            return ClassificationAgent(assembly, progress, stop)
        case "function":
            from prelabel.run.agents.function import FunctionAgent

            return FunctionAgent(assembly, progress, stop)
