"""From a config to the parts of a run, each made when it is first asked for."""

from prelabel.assembly.assemble import Assembly, assemble

__all__ = ["Assembly", "assemble"]
