"""One server's part for all clients, which train it in turns."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, part
from flowerpress.server.split.tails import (
    Loss,
    MakeOptimizer,
    Part,
    Tails,
    TurnError,
    cross_entropy,
)
from flowerpress.server.split.torch_state import (
    pack_optimizer,
    pack_tensors,
    unpack_optimizer,
    unpack_tensors,
)

__all__ = ["Shared"]


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
        loss: Loss = cross_entropy,
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
