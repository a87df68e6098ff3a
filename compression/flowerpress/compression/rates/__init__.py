"""Rates per layer: how many bytes each tensor of an update gets.

tensors --measure--> points --allocate--> one setting each --solve--> plan

A *setting* is a codec as text. ``points`` and ``menu`` say what each setting costs on each tensor;
``hull``, ``lambda_search``, ``dynamic_program`` and ``heuristics`` choose among them; ``solve``
makes a plan of the choice.

Names are imported when first used: presets import this package's plan, and its menus the presets.
Functions that are called like their module (``menu``, ``solve``) are imported from there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerpress.compression.rates.choice import choose
    from flowerpress.compression.rates.heuristics import by_size, uniform
    from flowerpress.compression.rates.menu import MENUS, measure
    from flowerpress.compression.rates.plan import Entry, RatePlan
    from flowerpress.compression.rates.points import Points, mean, median
    from flowerpress.compression.rates.policy import Policy
    from flowerpress.compression.rates.solve import ALLOCATORS, allocate

__all__ = [
    "ALLOCATORS",
    "MENUS",
    "Entry",
    "Points",
    "Policy",
    "RatePlan",
    "allocate",
    "by_size",
    "choose",
    "mean",
    "measure",
    "median",
    "uniform",
]

_MODULES = {
    "choice": ("choose",),
    "heuristics": ("by_size", "uniform"),
    "menu": ("MENUS", "measure"),
    "plan": ("Entry", "RatePlan"),
    "points": ("Points", "mean", "median"),
    "policy": ("Policy",),
    "solve": ("ALLOCATORS", "allocate"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a checker must still refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
