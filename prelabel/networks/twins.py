"""A network that stands several times on the same weights, so that several threads can use it at once."""

from __future__ import annotations

import copy

import torch


def twin_of(network: torch.nn.Module) -> torch.nn.Module:
    """Returns a network with the same tensors, and all else its own: some heads note the size they saw last."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    with torch.inference_mode():
        twin: torch.nn.Module = copy.deepcopy(network, shared)
    return twin
