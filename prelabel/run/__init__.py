"""Tasks, one after the other or again and again: which are taken up, what runs ahead, how each ended."""

from prelabel.run.run import run_tasks

__all__ = ["run_tasks"]
