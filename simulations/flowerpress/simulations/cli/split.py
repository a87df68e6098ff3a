"""``flowerpress split ...``: a network that is cut between devices and a server."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from flowerpress.simulations.cli.split_compare import split_compare
from flowerpress.simulations.cli.split_distill import split_distill
from flowerpress.simulations.cli.split_infer import split_infer
from flowerpress.simulations.cli.split_serve import split_serve
from flowerpress.simulations.cli.split_train import split_train

__all__ = ["COMMANDS", "HELP"]

HELP = """Networks that are cut between devices and a server.

A device runs the first layers; what crosses is made small by a bottleneck, coded, and sent over one
gRPC stream. train: split training over rounds of Flower. distill: a cut network from a whole one.
serve, infer: predictions for devices. compare: accuracy against bytes, beside pictures and others.
"""

COMMANDS: MappingProxyType[str, tuple[Callable[..., Any], str]] = MappingProxyType(
    {
        "train": (split_train, "Split training over rounds of Flower."),
        "distill": (split_distill, "A cut network from a whole one."),
        "serve": (split_serve, "Predictions for devices."),
        "infer": (split_infer, "A device that asks for them."),
        "compare": (split_compare, "Accuracy against bytes of an example."),
    }
)
"""Name of each command -> function, and its line in the overview."""
