"""Who holds which examples: the split of a data set among clients.

Schemes are written as ``name`` or ``name(key=value)``:

==========================  ====================================================================
``iid``                     shuffled and dealt out evenly
``dirichlet(alpha=0.5)``    each class divided by proportions drawn from a Dirichlet distribution
``shards(per_client=2)``    sorted by class, cut into shards, so many of them to each client
``natural``                 each owner's own examples (a writer, a speaking role)
==========================  ====================================================================

Train and test examples are split alike: what a client is tested on has the mix of classes that it
trains on. Every client gets at least one training example; its test set may be empty. The same
scheme, data, number of clients and seed give the same split. This module does not import torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spelling import build

if TYPE_CHECKING:
    from flowerpress.simulations.tasks.base import Data, Samples

__all__ = [
    "SCHEMES",
    "Dirichlet",
    "Iid",
    "Natural",
    "Partition",
    "Scheme",
    "Shards",
    "read_scheme",
    "split",
]

Indices = NDArray[np.int64]

_ALPHA = (1e-3, 1e6)


@dataclass(frozen=True)
class Partition:
    """For each client the positions, int64 and ascending, of its ``train`` and ``test`` examples.

    No position is in two clients.
    """

    train: list[Indices]
    test: list[Indices]

    def __len__(self) -> int:
        """The number of clients."""
        return len(self.train)


def split(scheme: str, data: Data, clients: int | None, seed: int) -> Partition:
    """Divide ``data`` among ``clients`` clients, with draws from ``seed`` alone.

    ``natural`` may be given None: as many clients as there are owners; a number takes that many
    owners, those with most training examples first, and leaves the others out. All other schemes
    use every example. Raises UnknownNameError for a scheme or parameter that does not exist,
    ConfigError for one that this data cannot be split by.
    """
    choice = read_scheme(scheme)
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    if clients is not None and clients < 1:
        raise ConfigError(f"clients is {clients}; there must be at least 1")
    if isinstance(choice, Natural):
        return choice.divide(data, clients)
    if clients is None:
        raise ConfigError(f"partition {scheme}: say how many clients; only `natural` knows that")
    if clients > len(data.train):
        raise ConfigError(
            f"{clients} clients share {len(data.train)} training examples; each needs one at least"
        )
    return choice.divide(data, clients, np.random.default_rng(seed))


class Scheme(ABC):
    """A rule that divides examples among clients, with its parameters as dataclass fields."""

    @abstractmethod
    def divide(self, data: Data, clients: int, rng: np.random.Generator) -> Partition:
        """Divide all examples; there are at least as many for training as clients."""


@dataclass(frozen=True)
class Iid(Scheme):
    """``iid``: shuffled and dealt out evenly."""

    def divide(self, data: Data, clients: int, rng: np.random.Generator) -> Partition:
        """Deal train and test examples."""

        def deal(samples: Samples) -> list[Indices]:
            return _ascending(np.array_split(rng.permutation(len(samples)), clients))

        return Partition(deal(data.train), deal(data.test))


@dataclass(frozen=True)
class Dirichlet(Scheme):
    """``dirichlet``: each class divided by shares that are drawn from a Dirichlet distribution.

    Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks",
    section 4: for each class one draw of the clients' shares of it, here used for train and test.
    A client that got nothing is then given one example of whoever has most.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        low, high = _ALPHA
        if not low <= self.alpha <= high:
            raise ConfigError(
                f"alpha of dirichlet is {self.alpha:g}; it must be from {low:g} (each class with "
                f"one client) to {high:g} (all alike)"
            )

    def divide(self, data: Data, clients: int, rng: np.random.Generator) -> Partition:
        """Divide class by class."""
        train_labels, test_labels = _labels(data.train), _labels(data.test)
        shares = rng.dirichlet([self.alpha] * clients, size=len(data.classes))
        train = _by_shares(train_labels, shares, rng)
        test = _by_shares(test_labels, shares, rng)
        for poor in range(clients):
            if len(train[poor]) == 0:
                rich = max(range(clients), key=lambda client: len(train[client]))
                train[poor], train[rich] = train[rich][-1:], train[rich][:-1]
        return Partition(_ascending(train), _ascending(test))


@dataclass(frozen=True)
class Shards(Scheme):
    """``shards``: sorted by class, cut into shards, ``per_client`` of them to each client.

    McMahan et al. 2017, section 3, "pathological non-IID". The test examples are cut into as
    many shards at the same places of the class order, and go with the training shards.
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        if self.per_client < 1:
            raise ConfigError(f"per_client of shards is {self.per_client}; it must be at least 1")

    def divide(self, data: Data, clients: int, rng: np.random.Generator) -> Partition:
        """Cut and hand out shards."""
        count = clients * self.per_client
        if count > len(data.train):
            raise ConfigError(
                f"{clients} clients with {self.per_client} shards each need {count} training "
                f"examples; there are {len(data.train)}"
            )
        owned = rng.permutation(count).reshape(clients, self.per_client)

        def deal(samples: Samples) -> list[Indices]:
            labels = _labels(samples)
            shuffled = rng.permutation(len(labels))
            by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
            shards = np.array_split(by_class, count)
            return _ascending([np.concatenate([shards[shard] for shard in own]) for own in owned])

        return Partition(deal(data.train), deal(data.test))


@dataclass(frozen=True)
class Natural(Scheme):
    """``natural``: each owner's own examples; the data says how many owners there are."""

    def divide(
        self, data: Data, clients: int | None, rng: np.random.Generator | None = None
    ) -> Partition:
        """Give each of the largest owners its examples; nothing is drawn."""
        if data.train.groups is None or data.test.groups is None:
            raise ConfigError(
                "partition natural: this task's examples have no owners; use iid, dirichlet or "
                "shards"
            )
        owners, sizes = np.unique(data.train.groups, return_counts=True)
        # Sizes are negated, not the order reversed, so that owners of equal size stay in order.
        largest = owners[np.argsort(-sizes, kind="stable")]
        if clients is not None and clients > len(largest):
            raise ConfigError(
                f"partition natural: {clients} clients are asked for; the data has {len(largest)} "
                "owners with training examples"
            )
        chosen = largest[:clients]
        train_groups, test_groups = data.train.groups, data.test.groups
        return Partition(
            [np.flatnonzero(train_groups == owner) for owner in chosen],
            [np.flatnonzero(test_groups == owner) for owner in chosen],
        )


SCHEMES: dict[str, type[Scheme]] = {
    "dirichlet": Dirichlet,
    "iid": Iid,
    "natural": Natural,
    "shards": Shards,
}


def read_scheme(text: str) -> Scheme:
    """Return the scheme that ``text`` names, such as ``dirichlet(alpha=0.1)``.

    Raises UnknownNameError for names that do not exist, ConfigError for values out of range.
    """
    return build("partition", text, SCHEMES)


def _by_shares(
    labels: Indices, shares: NDArray[np.float64], rng: np.random.Generator
) -> list[Indices]:
    clients = shares.shape[1]
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label, share in enumerate(shares):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(np.cumsum(share)[:-1] * len(members)).astype(np.int64)
        for client, part in enumerate(np.split(members, cuts)):
            parts[client].append(part)
    return [np.concatenate(part) for part in parts]


def _labels(samples: Samples) -> Indices:
    if samples.labels.ndim != 1:
        raise ConfigError(
            "this task has a label for every step of a sequence, so its examples have no class to "
            "be split by; use iid or natural"
        )
    labels: Indices = samples.labels.numpy()
    return labels


def _ascending(parts: list[Indices]) -> list[Indices]:
    return [np.sort(part).astype(np.int64, copy=False) for part in parts]
