"""What is done with a task at an agent stage, one module a kind of agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prelabel.agents.detection import DetectionAgent
    from prelabel.assemble import Assembly
    from prelabel.interrupts import StopSignal
    from prelabel.progress import Progress


def make_agent(assembly: Assembly, progress: Progress, stop: StopSignal) -> DetectionAgent:
    """Returns the agent that the config asks for."""
    from prelabel.agents.detection import DetectionAgent

    return DetectionAgent(assembly, progress, stop)
