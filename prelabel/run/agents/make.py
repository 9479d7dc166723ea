"""What is done with a task at an agent stage, one module a kind of agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prelabel.assembly.assemble import Assembly
    from prelabel.run.agents.agent import TaskAgent
    from prelabel.runtime.interrupts import StopSignal
    from prelabel.runtime.progress import Progress


def make_agent(assembly: Assembly, progress: Progress, stop: StopSignal) -> TaskAgent[Any]:
    """Returns the agent that the config asks for; what it finds is between it and itself."""
    if assembly.config.agent is not None:
        from prelabel.run.agents.function import FunctionAgent

        return FunctionAgent(assembly, progress, stop)
    if assembly.config.classifier is not None:
        from prelabel.run.agents.classification import ClassificationAgent

        return ClassificationAgent(assembly, progress, stop)
    from prelabel.run.agents.detection import DetectionAgent

    return DetectionAgent(assembly, progress, stop)
