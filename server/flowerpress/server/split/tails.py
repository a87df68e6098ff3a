"""Whose copy of the server's part a client trains, and how copies become one again.

Thapa et al., "SplitFed: When Federated Learning Meets Split Learning" (AAAI 2022): version 1 has a
copy for each client (``Copies``), version 2 one for all, which clients train in turns (``Shared``).
"""

from __future__ import annotations

import copy
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression import FlowerpressError
from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, part
from flowerpress.server.split.torch_state import (
    pack_optimizer,
    pack_tensors,
    unpack_optimizer,
    unpack_tensors,
)

__all__ = ["Copies", "Part", "Shared", "Tails", "TurnError"]

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class TurnError(FlowerpressError):
    """It is not this client's turn; ``over``: nor will it be in this round; ``late``: it was silent
    in its turn for too long.
    """

    def __init__(self, message: str, *, over: bool, late: bool = False) -> None:
        self.over, self.late = over, late
        super().__init__(message)


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
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


class Copies(Tails):
    """SplitFed V1: a copy for each client, averaged by weights at the end of each round.

    The optimizer of a copy keeps its state between rounds. Memory: a module and its optimizer for
    every client that ever trained.
    """

    def __init__(
        self, module: nn.Module, make_optimizer: MakeOptimizer, loss: Loss = _cross_entropy
    ) -> None:
        super().__init__(module)
        self._make = make_optimizer
        self._loss = loss
        self._parts: dict[int, Part] = {}
        self._starts: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def state(self) -> Snapshot:
        """Return the settled module, and each client's optimizer."""
        own = Snapshot(blobs={"module": pack_tensors(self.module.state_dict())})
        kept = {str(client): pack_optimizer(part.optimizer) for client, part in self._parts.items()}
        return joined({"own": own, **kept})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self.module.load_state_dict(unpack_tensors(part(snapshot, "own").blobs["module"]))
        self._parts, self._starts = {}, {}
        for client in snapshot.facts:
            if client != "own":
                unpack_optimizer(self._made(int(client)).optimizer, part(snapshot, client))

    def begin(self, clients: Sequence[int]) -> None:
        """Forget the last round."""
        del clients
        self._starts = {}

    def enter(self, client: int, patience: float) -> None:
        """Give the client the settled weights and its own optimizer's state."""
        del patience
        with self._lock:
            own = self._parts.get(client) or self._made(client)
            if client in self._starts:
                own.load(self._starts[client])
            else:
                own.module.load_state_dict(copy.deepcopy(self.module.state_dict()))
                self._starts[client] = own.state()

    def _made(self, client: int) -> Part:
        module = copy.deepcopy(self.module).train()
        self._parts[client] = Part(module, self._make(module.parameters()), self._loss)
        return self._parts[client]

    def part(self, client: int) -> Part:
        """Return the client's copy."""
        return self._parts[client]

    def leave(self, client: int) -> None:
        """Nothing: copies do not wait for each other."""
        del client

    def close(self) -> None:
        """Nothing: nobody waits."""

    def end(self, weights: Mapping[int, float]) -> None:
        """Average; a client that does not count gets its optimizer's state back."""
        for client, start in self._starts.items():
            if client not in weights:
                self._parts[client].load(start)
        total = sum(weights.values())
        if not total > 0:
            return
        with self._inference:
            own = self.module.state_dict()
            states = {client: self._parts[client].module.state_dict() for client in weights}
            for name, value in own.items():
                if not value.is_floating_point():
                    value.copy_(next(iter(states.values()))[name])
                    continue
                mean = torch.zeros_like(value, dtype=torch.float64)
                for client, weight in weights.items():
                    mean.add_(states[client][name], alpha=weight / total)
                value.copy_(mean)


class Shared(Tails):
    """SplitFed V2 and plain split learning: one module and one optimizer for all clients.

    Clients train in the order of ``begin``, each its whole round: the next one's ``enter`` waits.
    One that is silent for ``idle`` seconds in its turn, or does not come, is passed over, and what
    it did is taken back.
    """

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: MakeOptimizer,
        loss: Loss = _cross_entropy,
        *,
        idle: float = 120.0,
    ) -> None:
        super().__init__(module)
        self._own = copy.deepcopy(module).train()
        self._part = Part(self._own, make_optimizer(self._own.parameters()), loss)
        self._idle = idle
        self._heard = 0.0
        self._turns: list[int] = []
        self._late: set[int] = set()
        self._entered = False
        self._start: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._changed = threading.Condition()

    def state(self) -> Snapshot:
        """Return the settled module and the optimizer."""
        own = Snapshot(blobs={"module": pack_tensors(self.module.state_dict())})
        return joined({"own": own, "optimizer": pack_optimizer(self._part.optimizer)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self.module.load_state_dict(unpack_tensors(part(snapshot, "own").blobs["module"]))
        unpack_optimizer(self._part.optimizer, part(snapshot, "optimizer"))

    def begin(self, clients: Sequence[int]) -> None:
        """Set the order of turns."""
        with self._changed:
            self._own.load_state_dict(copy.deepcopy(self.module.state_dict()))
            self._before = self._part.state()
            self._turns, self._late = list(clients), set()
            self._next()

    def enter(self, client: int, patience: float) -> None:
        """Wait for the client's turn."""
        deadline = time.monotonic() + patience
        with self._changed:
            while self._turns and self._turns[0] != client and client in self._turns:
                if time.monotonic() - self._heard > self._idle:
                    if self._entered:  # the device's half of these steps will not come, either
                        self._part.load(self._start)
                    self._late.add(self._turns.pop(0))
                    self._next()
                elif time.monotonic() > deadline:
                    raise TurnError(f"client {self._turns[0]} has its turn", over=False)
                else:
                    self._changed.wait(min(0.2, patience))
            self._check(client)
            if self._entered:
                self._part.load(self._start)
            else:
                self._entered, self._start = True, self._part.state()

    def part(self, client: int) -> Part:
        """Return the one part, if it is the client's turn."""
        with self._changed:
            self._check(client)
            return self._part

    def leave(self, client: int) -> None:
        """Give the turn to the next."""
        with self._changed:
            if self._turns and self._turns[0] == client:
                self._turns.pop(0)
                self._next()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._turns = []
            self._next()

    def end(self, weights: Mapping[int, float]) -> None:
        """Take over what was trained; clients cannot be told apart in it."""
        if not weights:
            self._part.load(self._before)
        with self._inference:
            self.module.load_state_dict(copy.deepcopy(self._own.state_dict()))

    def _check(self, client: int) -> None:
        if client in self._late:
            raise TurnError(
                f"client {client} was silent in its turn for {self._idle:g} s and was passed over; "
                "it can take part in another round",
                over=True,
                late=True,
            )
        if not self._turns or self._turns[0] != client:
            raise TurnError(f"the turn of client {client} is over", over=True)
        self._heard = time.monotonic()

    def _next(self) -> None:
        self._entered, self._heard = False, time.monotonic()
        self._changed.notify_all()
