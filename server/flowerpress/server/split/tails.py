"""The server's part of a cut network in training, whoever trains which copy of it.

Thapa et al., "SplitFed: When Federated Learning Meets Split Learning" (AAAI 2022): version 1 has a
copy for each client (``copies.py``), version 2 one for all, which clients train in turns
(``shared.py``).
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression import FlowerpressError
from flowerpress.protos.store import Snapshot

__all__ = ["Loss", "MakeOptimizer", "Part", "Tails", "TurnError", "cross_entropy"]

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class TurnError(FlowerpressError):
    """It is not this client's turn; ``over``: nor will it be in this round; ``late``: it was silent
    in its turn for too long.
    """

    def __init__(self, message: str, *, over: bool, late: bool = False) -> None:
        self.over, self.late = over, late
        super().__init__(message)


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over all labels (B, ...); scores are (B, ..., classes)."""
    return functional.cross_entropy(scores.flatten(0, -2), labels.flatten())


@dataclass
class Part:
    """A module with its optimizer: what one step trains."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss

    def step(self, latent: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Take one step; return the gradient of ``latent`` and the loss.

        Nothing is changed where either is not finite.
        """
        leaf = latent.requires_grad_()
        # Such as a batch norm's running means, which change with a forward pass.
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        try:
            loss = self.loss(self.module(leaf), labels)
            return self._descend(loss, None, leaf), float(loss.detach())
        except Exception:
            for buffer, before in zip(self.module.buffers(), buffers, strict=True):
                buffer.copy_(before)
            raise

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the leaf and what the module makes of it, with its graph."""
        leaf = latent.requires_grad_()
        return leaf, self.module(leaf)

    def backward(self, leaf: Tensor, output: Tensor, gradient: Tensor) -> Tensor:
        """Take one step by the gradient of ``output``; return that of ``leaf``."""
        return self._descend(output, gradient, leaf)

    def state(self) -> dict[str, Any]:
        """Return a copy of weights and optimizer state."""
        return copy.deepcopy(
            {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        )

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what ``state()`` returned."""
        state = copy.deepcopy(state)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _descend(self, output: Tensor, gradient: Tensor | None, leaf: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        torch.autograd.backward(output, gradient)
        found = leaf.grad
        if found is None:
            found = torch.zeros_like(leaf)
        parameters = (p.grad for p in self.module.parameters() if p.grad is not None)
        if not all(
            bool(torch.isfinite(each).all()) for each in (output.detach(), found, *parameters)
        ):
            self.optimizer.zero_grad()
            raise FloatingPointError("the step is not finite")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found


class Tails(ABC):
    """The server's part of the network in training. Calls for different clients may overlap."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._inference = threading.Lock()

    @abstractmethod
    def begin(self, clients: Sequence[int]) -> None:
        """Open a round for ``clients``, in this order where it matters."""

    @abstractmethod
    def enter(self, client: int, patience: float) -> None:
        """Let a client begin its round, or begin it anew: what it did in it is taken back.

        Raises:
            TurnError: its turn did not come within ``patience`` seconds, or is over.
        """

    @abstractmethod
    def part(self, client: int) -> Part:
        """Return what ``client`` trains.

        Raises:
            TurnError: it is not its turn.
        """

    @abstractmethod
    def leave(self, client: int) -> None:
        """Note that a client has taken its last step of the round."""

    @abstractmethod
    def close(self) -> None:
        """Let nobody wait any more: the round is about to end."""

    @abstractmethod
    def end(self, weights: Mapping[int, float]) -> None:
        """Close the round: settle ``module`` from the clients that count, by their weights.

        Without any, it is as it was before the round.
        """

    @abstractmethod
    def state(self) -> Snapshot:
        """Return what later rounds begin from; between rounds."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""

    def infer(self, latent: Tensor) -> Tensor:
        """Return what the settled module makes of ``latent``."""
        with self._inference, torch.inference_mode():
            before = self.module.training
            self.module.eval()
            try:
                out: Tensor = self.module(latent)
            finally:
                self.module.train(before)
            return out

    def state_dict(self) -> dict[str, Tensor]:
        """Return the settled module's state."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the settled module's state."""
        self.module.load_state_dict(dict(state))
