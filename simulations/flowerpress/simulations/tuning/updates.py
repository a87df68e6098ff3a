"""A few clients, trained for a few rounds: where real updates come from.

A short plain FedAvg without any codec. Updates are what clients would send, less the residuals that
error feedback adds in a compressed run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import ArrayRecord
from numpy.typing import NDArray
from torch import Tensor, nn

from flowerpress.compression import Manifest
from flowerpress.compression.errors import ConfigError
from flowerpress.protos.arrays import to_numpy
from flowerpress.simulations.loaded import Loaded
from flowerpress.simulations.tasks import Samples

__all__ = ["Federation", "Update"]

State = dict[str, Tensor]

_HELD_OUT = 2000
_HELD_OUT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Update:
    """What one client's training changed: float32 by the name of each floating-point tensor."""

    client: int
    examples: int
    loss: float
    tensors: dict[str, NDArray[np.float32]]


class Federation:
    """Trains clients, one at a time, and averages them; all randomness is from ``config.seed``.

    ``before`` is the model that the updates of the current round began from, ``updates`` are those.
    ``held_out``: training examples that no client trains on, at most 2,000 and a fifth of them.
    """

    def __init__(self, loaded: Loaded, clients: int) -> None:
        """``clients``: how many train in a round, or all if there are fewer.

        Raises:
            ConfigError: the model has no floating-point tensor.
        """
        self.loaded = loaded
        self._seed = loaded.config.seed
        self._few = min(clients, len(loaded.partition))
        rng = np.random.default_rng((self._seed, 0))
        count = len(loaded.data.train)
        chosen = np.sort(rng.permutation(count)[: min(_HELD_OUT, int(_HELD_OUT_SHARE * count))])
        self._chosen = chosen
        self.held_out = loaded.data.train.take(chosen if len(chosen) else np.arange(count))
        torch.set_num_threads(loaded.config.threads)
        torch.manual_seed(self._number(0, 0))
        self.model = loaded.task.build()
        arrays = to_numpy(ArrayRecord(self.model.state_dict()))
        self.manifest = Manifest.of(arrays)
        if not any(spec.is_float for spec in self.manifest.specs):
            raise ConfigError(f"task {loaded.task.name}: its model has no floating-point tensors")
        self.before: State = _copy(self.model)
        self._start = self.before
        self._ended: list[State] = []
        self.updates: list[Update] = []
        self.round = 0

    def order(self, number: int) -> list[int]:
        """Return which clients train in round ``number`` (from 1), in order."""
        rng = np.random.default_rng((self._seed, number))
        return [int(at) for at in rng.permutation(len(self.loaded.partition))[: self._few]]

    def train(self, number: int, client: int) -> None:
        """Train one client of round ``number``; the first of a round begins from the mean before.

        Raises:
            ConfigError: training gave a value that is not finite.
        """
        start = self.mean() if number != self.round else self._start
        torch.manual_seed(self._number(number, client + 1))
        generator = torch.Generator().manual_seed(self._number(number, client + 1, 1))
        model = self.loaded.task.build()
        model.load_state_dict(start)
        samples = self._samples(client)
        result = self.loaded.task.train(model, samples, self.loaded.training, generator)
        tensors = {
            spec.name: _difference(model.state_dict()[spec.name], start[spec.name])
            for spec in self.manifest.specs
            if spec.is_float
        }
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise ConfigError(
                    f"client {client} diverged in round {number}: {name} is not finite; "
                    "try a smaller training.lr"
                )
        # All at once and last: Ctrl-C before this leaves the round as it was.
        if number != self.round:
            self.updates, self._ended = [], []
            self.before = self._start = start
            self.round = number
        self.updates.append(Update(client, result.examples, result.loss, tensors))
        self._ended.append(_copy(model))

    def mean(self) -> State:
        """Return FedAvg's model of the clients trained so far in this round."""
        if not self._ended:
            return self._start
        total = sum(update.examples for update in self.updates)
        shares = [update.examples / total for update in self.updates]
        first = self._ended[0]
        return {
            name: _mean([state[name] for state in self._ended], shares)
            if value.is_floating_point()
            else value
            for name, value in first.items()
        }

    def _samples(self, client: int) -> Samples:
        """Return a client's examples without those held out; all where it has no others."""
        own = np.asarray(self.loaded.partition.train[client], np.int64)
        rest = np.setdiff1d(own, self._chosen)
        return self.loaded.data.train.take(rest if len(rest) else own)

    def _number(self, *numbers: int) -> int:
        state = np.random.SeedSequence((self._seed, *numbers)).generate_state(1, np.uint64)
        return int(state[0]) % 2**63


def _copy(model: nn.Module) -> State:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _difference(after: Tensor, before: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (after.detach().cpu().float() - before.float()).numpy()
    return values


def _mean(values: list[Tensor], shares: list[float]) -> Tensor:
    total = torch.zeros_like(values[0], dtype=torch.float64)
    for value, share in zip(values, shares, strict=True):
        total += share * value.double()
    return total.to(values[0].dtype)


def moved(state: Mapping[str, Tensor], changes: Mapping[str, NDArray[np.float32]]) -> State:
    """Return ``state`` with ``changes`` added to the tensors that they name."""
    result = dict(state)
    for name, change in changes.items():
        value = state[name]
        result[name] = (value.double() + torch.from_numpy(change).double()).to(value.dtype)
    return result
