"""Stochastic gradient descent with momentum, as torch.optim.SGD does it, bit for bit.

Written out because the first optimizer of torch.optim that is made in a process imports torch's
compiler, more than a second of work, and a run has many processes that make a small one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Descent"]


class Descent:
    """Moves ``parameters`` in place, those that take gradients; momentum starts from nothing.

    With gradient g, weight w and rate lr, a step is ``v = momentum v + (g + weight_decay w)``,
    ``w = w - lr v``; the first v is the first gradient.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters = [each for each in parameters if each.requires_grad]
        self._velocities: list[Tensor | None] = [None] * len(self._parameters)
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay

    def forget_gradients(self) -> None:
        """Drop all gradients: backward passes add to what is there."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step; a parameter without a gradient stays."""
        for index, parameter in enumerate(self._parameters):
            move = parameter.grad
            if move is None:
                continue
            if self._weight_decay:
                move = move.add(parameter, alpha=self._weight_decay)
            if self._momentum:
                velocity = self._velocities[index]
                if velocity is None:
                    velocity = self._velocities[index] = move.clone()
                else:
                    velocity.mul_(self._momentum).add_(move)
                move = velocity
            parameter.add_(move, alpha=-self._lr)
