"""A lower bound that a learned value can leave again."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["at_least"]


def at_least(values: Tensor, bound: float) -> Tensor:
    """Return max(``values``, ``bound``); a gradient that lifts a value off the bound still passes.

    With ``clamp`` a value below could never return.
    """
    kept: Tensor = _AtLeast.apply(values, bound)  # type: ignore[no-untyped-call]
    return kept


class _AtLeast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(values >= bound)
        return values.clamp(min=bound)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * (above | (gradient < 0)), None
