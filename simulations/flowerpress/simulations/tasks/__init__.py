"""Tasks: a model, its data, and how both are trained and judged.

``load_task("digits")`` gives one of the built-in tasks, ``load_task("./my_task.py:MyTask")`` one
that a user wrote; both are a :class:`Task`. Importing this package does not import torch: the
classes of ``base`` are fetched when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowerpress.simulations.tasks.registry import BUILT_IN, load_task

if TYPE_CHECKING:
    from flowerpress.simulations.tasks.base import (
        Data,
        Evaluation,
        Samples,
        Task,
        Training,
        TrainResult,
    )

__all__ = [
    "BUILT_IN",
    "Data",
    "Evaluation",
    "Samples",
    "Task",
    "TrainResult",
    "Training",
    "load_task",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from flowerpress.simulations.tasks import base

        return vars(base)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
