"""What every partition must keep, whatever the data, the scheme and the number of clients."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.simulations.partition import Partition, split
from flowerpress.simulations.tasks import Data, Samples

_SCHEMES = st.one_of(
    st.just("iid"),
    st.floats(0.001, 1000.0).map(lambda alpha: f"dirichlet(alpha={alpha})"),
    st.integers(1, 4).map(lambda per_client: f"shards(per_client={per_client})"),
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[str, Data, int, int]:
    """A scheme, data, a number of clients that it can serve, and a seed."""
    classes = draw(st.integers(1, 6))
    label = st.integers(0, classes - 1)
    owner = st.integers(-3, 9)
    parts = []
    for most in (80, 40):
        labels = draw(st.lists(label, min_size=4, max_size=most))
        groups = draw(st.lists(owner, min_size=len(labels), max_size=len(labels)))
        parts.append(
            Samples(torch.zeros(len(labels), 1), torch.tensor(labels), np.array(groups, np.int64))
        )
    scheme = draw(_SCHEMES)
    shards = int(scheme[len("shards(per_client=") : -1]) if scheme.startswith("shards") else 1
    clients = draw(st.integers(1, len(parts[0]) // shards))
    data = Data(parts[0], parts[1], tuple(str(index) for index in range(classes)))
    return scheme, data, clients, draw(st.integers(0, 2**40))


def same(a: Partition, b: Partition) -> bool:
    return all(
        np.array_equal(own, other)
        for one, two in ((a.train, b.train), (a.test, b.test))
        for own, other in zip(one, two, strict=True)
    )


@settings(max_examples=300, deadline=None)
@given(problems())
def test_every_example_has_one_client_and_every_client_an_example(
    problem: tuple[str, Data, int, int],
) -> None:
    scheme, data, clients, seed = problem
    partition = split(scheme, data, clients, seed)
    assert len(partition) == len(partition.train) == len(partition.test) == clients
    for samples, parts in ((data.train, partition.train), (data.test, partition.test)):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(samples)))
        for own in parts:
            assert own.dtype == np.int64
            assert (np.diff(own) > 0).all()
    assert min(len(own) for own in partition.train) >= 1


@settings(max_examples=100, deadline=None)
@given(problems())
def test_the_same_arguments_give_the_same_split(problem: tuple[str, Data, int, int]) -> None:
    assert same(split(*problem), split(*problem))


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 20))
def test_natural_clients_hold_one_owner_each_and_all_of_theirs(
    problem: tuple[str, Data, int, int], wanted: int
) -> None:
    _, data, _, seed = problem
    assert data.train.groups is not None
    assert data.test.groups is not None
    owners = np.unique(data.train.groups)
    clients = min(wanted, len(owners))
    partition = split("natural", data, clients, seed)
    assert len(partition) == clients
    assert len(split("natural", data, None, seed)) == len(owners)
    sizes = [len(own) for own in partition.train]
    assert sizes == sorted(np.bincount(data.train.groups + 3).tolist(), reverse=True)[:clients]
    for train, test in zip(partition.train, partition.test, strict=True):
        (owner,) = np.unique(data.train.groups[train])
        np.testing.assert_array_equal(train, np.flatnonzero(data.train.groups == owner))
        np.testing.assert_array_equal(test, np.flatnonzero(data.test.groups == owner))


@settings(max_examples=150, deadline=None)
@given(
    alpha=st.floats(0.01, 100.0),
    clients=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.tuples(st.integers(5, 60), st.integers(0, 30)), min_size=1, max_size=5),
)
def test_a_client_is_tested_on_the_mix_that_it_trains_on(
    alpha: float, clients: int, seed: int, sizes: list[tuple[int, int]]
) -> None:
    """Of each class a client has the same share of train and test, but for the rounding of both
    ends of its piece, and for single examples that were given away to those who had none."""
    if all(test == 0 for _, test in sizes):
        sizes = [(sizes[0][0], 1), *sizes[1:]]
    labels = [
        np.repeat(np.arange(len(sizes)), [pair[part] for pair in sizes]).astype(np.int64)
        for part in (0, 1)
    ]
    parts = [Samples(torch.zeros(len(own), 1), torch.from_numpy(own)) for own in labels]
    if clients > len(parts[0]):
        clients = len(parts[0])
    data = Data(parts[0], parts[1], tuple(str(index) for index in range(len(sizes))))
    partition = split(f"dirichlet(alpha={alpha})", data, clients, seed)
    for label, (train_size, test_size) in enumerate(sizes):
        for train, test in zip(partition.train, partition.test, strict=True):
            trained = int((labels[0][train] == label).sum())
            tested = int((labels[1][test] == label).sum())
            low, high = trained - 1 - int(len(train) == 1), trained + 1 + clients
            assert tested <= high / train_size * test_size + 1
            assert tested >= low / train_size * test_size - 1
