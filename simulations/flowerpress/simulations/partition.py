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

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from flowerpress.simulations.tasks.base import Data, Samples

__all__ = ["SCHEMES", "Partition", "parse_scheme", "split"]

Indices = NDArray[np.int64]

SCHEMES = MappingProxyType(
    {
        "dirichlet": MappingProxyType({"alpha": 0.5}),
        "iid": MappingProxyType({}),
        "natural": MappingProxyType({}),
        "shards": MappingProxyType({"per_client": 2}),
    }
)
"""Each scheme's parameters and their defaults; a whole number stands for one that must be whole."""

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
    name, parameters = parse_scheme(scheme)
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
    if clients is not None and clients < 1:
        raise ConfigError(f"clients is {clients}; there must be at least 1")
    if name == "natural":
        return _natural(data, clients)
    if clients is None:
        raise ConfigError(f"partition {scheme}: say how many clients; only `natural` knows that")
    if clients > len(data.train):
        raise ConfigError(
            f"{clients} clients share {len(data.train)} training examples; each needs one at least"
        )
    divide = _DIVIDE[name]
    return divide(data, clients, parameters, np.random.default_rng(seed))


_PATTERN = re.compile(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", re.DOTALL)


def parse_scheme(text: str) -> tuple[str, dict[str, float]]:
    """Return the name in ``text`` and all parameters of that scheme, defaults filled in.

    Raises UnknownNameError for names that do not exist, ConfigError for values out of range.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ConfigError(f"partition {text!r} cannot be read; write it like dirichlet(alpha=0.5)")
    name, inside = match.group(1), match.group(2)
    if name not in SCHEMES:
        raise UnknownNameError("partition", name, SCHEMES)
    parameters = dict(SCHEMES[name])
    given: set[str] = set()
    for part in inside.split(",") if inside and inside.strip() else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            usage = ", ".join(f"{known}={parameters[known]}" for known in parameters)
            raise ConfigError(f"partition {text!r}: {part.strip()!r} names no value; "
                              f"write {name}({usage})" if usage else
                              f"partition {text!r}: {name} takes no parameters")  # fmt: skip
        if key not in parameters:
            raise UnknownNameError(f"parameter of partition {name}", key, parameters)
        if key in given:
            raise ConfigError(f"partition {text!r}: {key} is given twice")
        given.add(key)
        parameters[key] = _number(text, key, value, whole=isinstance(parameters[key], int))
    return name, parameters


def _number(text: str, key: str, value: str, *, whole: bool) -> float:
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        kind = "whole number" if whole else "number"
        raise ConfigError(f"partition {text!r}: {key} is {value!r}, not a {kind}") from None
    if whole and number < 1:
        raise ConfigError(f"partition {text!r}: {key} is {value}; it must be at least 1")
    if not whole and not _ALPHA[0] <= number <= _ALPHA[1]:
        raise ConfigError(
            f"partition {text!r}: {key} is {value}; it must be from {_ALPHA[0]:g} (each class with "
            f"one client) to {_ALPHA[1]:g} (all alike)"
        )
    return number


def _iid(
    data: Data, clients: int, parameters: dict[str, float], rng: np.random.Generator
) -> Partition:
    def deal(samples: Samples) -> list[Indices]:
        return _ascending(np.array_split(rng.permutation(len(samples)), clients))

    return Partition(deal(data.train), deal(data.test))


def _dirichlet(
    data: Data, clients: int, parameters: dict[str, float], rng: np.random.Generator
) -> Partition:
    """Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks",
    section 4: for each class one draw of the clients' shares of it, here used for train and test.
    A client that got nothing is then given one example of whoever has most.
    """
    train_labels, test_labels = _labels(data.train), _labels(data.test)
    shares = rng.dirichlet([parameters["alpha"]] * clients, size=len(data.classes))
    train = _by_shares(train_labels, shares, rng)
    test = _by_shares(test_labels, shares, rng)
    for poor in range(clients):
        if len(train[poor]) == 0:
            rich = max(range(clients), key=lambda client: len(train[client]))
            train[poor], train[rich] = train[rich][-1:], train[rich][:-1]
    return Partition(_ascending(train), _ascending(test))


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


def _shards(
    data: Data, clients: int, parameters: dict[str, float], rng: np.random.Generator
) -> Partition:
    """McMahan et al. 2017, section 3, "pathological non-IID". The test examples are cut into as
    many shards at the same places of the class order, and go with the training shards.
    """
    per_client = int(parameters["per_client"])
    count = clients * per_client
    if count > len(data.train):
        raise ConfigError(
            f"{clients} clients with {per_client} shards each need {count} training examples; "
            f"there are {len(data.train)}"
        )
    owned = rng.permutation(count).reshape(clients, per_client)

    def deal(samples: Samples) -> list[Indices]:
        labels = _labels(samples)
        shuffled = rng.permutation(len(labels))
        by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
        shards = np.array_split(by_class, count)
        return _ascending([np.concatenate([shards[shard] for shard in own]) for own in owned])

    return Partition(deal(data.train), deal(data.test))


def _natural(data: Data, clients: int | None) -> Partition:
    if data.train.groups is None or data.test.groups is None:
        raise ConfigError(
            "partition natural: this task's examples have no owners; use iid, dirichlet or shards"
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


_DIVIDE: dict[str, Callable[[Data, int, dict[str, float], np.random.Generator], Partition]] = {
    "dirichlet": _dirichlet,
    "iid": _iid,
    "shards": _shards,
}


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
