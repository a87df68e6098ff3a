"""A copy of the server's part for each client, and how copies become one again."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, part
from flowerpress.server.split.tails import Loss, MakeOptimizer, Part, Tails, cross_entropy
from flowerpress.server.split.torch_state import (
    pack_optimizer,
    pack_tensors,
    unpack_optimizer,
    unpack_tensors,
)

__all__ = ["Copies"]


class Copies(Tails):
    """SplitFed V1: a copy for each client, averaged by weights at the end of each round.

    The optimizer of a copy keeps its state between rounds. Memory: a module and its optimizer for
    every client that ever trained.
    """

    def __init__(
        self, module: nn.Module, make_optimizer: MakeOptimizer, loss: Loss = cross_entropy
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
