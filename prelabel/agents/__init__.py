"""What is done with a task at an agent stage, one module a kind of agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prelabel.agents.task_agent import TaskAgent
    from prelabel.assembly import Assembly
    from prelabel.interrupts import StopSignal
    from prelabel.progress import Progress


def make_agent(assembly: Assembly, progress: Progress, stop: StopSignal) -> TaskAgent[Any]:
    """Returns the agent that the config asks for; what it finds is between it and itself."""
    if assembly.config.agent is not None:
        from prelabel.agents.function import FunctionAgent

        return FunctionAgent(assembly, progress, stop)
    if assembly.config.classifier is not None:
        from prelabel.agents.classification import ClassificationAgent

        return ClassificationAgent(assembly, progress, stop)
    from prelabel.agents.detection import DetectionAgent

    return DetectionAgent(assembly, progress, stop)
