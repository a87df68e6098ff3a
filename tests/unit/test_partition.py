"""Schemes of partition: how they are written, what they refuse, and what each is known for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.partition import (
    Dirichlet,
    Iid,
    Natural,
    Partition,
    Scheme,
    Shards,
    read_scheme,
    split,
)
from flowerpress.simulations.tasks import Data, Samples


def samples(labels: list[int], groups: list[int] | None = None) -> Samples:
    return Samples(
        torch.zeros(len(labels), 1),
        torch.tensor(labels),
        None if groups is None else np.array(groups, np.int64),
    )


def data(train: int = 1000, test: int = 200, classes: int = 10) -> Data:
    names = tuple(str(label) for label in range(classes))
    return Data(
        samples([index % classes for index in range(train)]),
        samples([index % classes for index in range(test)]),
        names,
    )


def counts(part: Samples, indices: list[np.ndarray]) -> np.ndarray:
    labels = part.labels.numpy()
    return np.stack([np.bincount(labels[own], minlength=10) for own in indices])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iid", Iid()),
        ("iid()", Iid()),
        ("dirichlet", Dirichlet(alpha=0.5)),
        (" dirichlet ( alpha = 1e-1 ) ", Dirichlet(alpha=0.1)),
        ("shards(per_client=3)", Shards(per_client=3)),
        ("natural", Natural()),
    ],
)
def test_schemes_are_read(text: str, expected: Scheme) -> None:
    assert read_scheme(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dirichelt(alpha=1)", "did you mean 'dirichlet'"),
        ("dirichlet(alhpa=1)", "did you mean 'alpha'"),
        ("iid(alpha=1)", "unknown parameter of iid 'alpha'"),
    ],
)
def test_unknown_names_get_the_nearest(text: str, says: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        read_scheme(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "known: dirichlet, iid, natural, shards"),
        ("dirichlet(alpha=1", "write dirichlet(alpha=0.5)"),
        ("dirichlet(0.5)", "write dirichlet(alpha=0.5)"),
        ("iid(3)", "takes no parameters"),
        ("dirichlet(alpha=many)", "'many'; it must be a number"),
        ("dirichlet(alpha=nan)", "from 0.001"),
        ("dirichlet(alpha=0)", "from 0.001"),
        ("dirichlet(alpha=1,alpha=2)", "given twice"),
        ("shards(per_client=1.5)", "it must be an integer"),
        ("shards(per_client=0)", "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_scheme(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "clients", "seed", "says"),
    [
        ("iid", None, 0, "say how many clients"),
        ("iid", 0, 0, "at least 1"),
        ("iid", 1001, 0, "1001 clients share 1000"),
        ("iid", 2, -1, "seed is -1"),
        ("shards(per_client=11)", 100, 0, "need 1100 training examples"),
        ("natural", None, 0, "have no owners"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(
    scheme: str, clients: int | None, seed: int, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        split(scheme, data(), clients, seed)
    assert says in str(caught.value)


@pytest.mark.parametrize("scheme", ["dirichlet", "shards"])
def test_sequences_have_no_class_to_be_split_by(scheme: str) -> None:
    sequences = Samples(torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="use iid or natural"):
        split(scheme, Data(sequences, sequences, ("a",)), 2, 0)
    assert len(split("iid", Data(sequences, sequences, ("a",)), 2, 0)) == 2


def test_iid_sizes_differ_by_one_at_most() -> None:
    sizes = [len(own) for own in split("iid", data(103), 10, 0).train]
    assert sorted(sizes) == [10] * 7 + [11] * 3


def test_small_alpha_is_less_even_than_large_alpha() -> None:
    def unevenness(alpha: float) -> float:
        found = counts(data().train, split(f"dirichlet(alpha={alpha})", data(), 10, 0).train)
        return float((found / found.sum(1, keepdims=True)).max(1).mean())

    assert unevenness(1e6) < 0.12
    assert unevenness(0.05) > 0.5
    assert unevenness(1e6) < unevenness(1.0) < unevenness(0.05)


@pytest.mark.parametrize("alpha", [0.001, 1e6])
def test_the_ends_of_alpha_are_usable(alpha: float) -> None:
    partition = split(f"dirichlet(alpha={alpha})", data(), 50, 3)
    assert min(len(own) for own in partition.train) >= 1
    assert sum(len(own) for own in partition.train) == 1000


def test_shards_give_few_classes_to_each_client() -> None:
    partition = split("shards(per_client=2)", data(), 10, 0)
    found = counts(data().train, partition.train)
    assert ((found > 0).sum(1) <= 2).all()  # 20 shards of 50, 10 classes of 100: none is mixed
    assert (found.sum(1) == 100).all()
    np.testing.assert_array_equal(counts(data().test, partition.test) * 5, found)


def test_natural_takes_the_largest_owners() -> None:
    groups = [5, 5, 9, 2, 2, 2, 9]
    owned = Data(samples([0] * 7, groups), samples([0] * 3, [9, 2, 9]), ("a",))
    everyone = split("natural", owned, None, 0)
    assert [own.tolist() for own in everyone.train] == [[3, 4, 5], [0, 1], [2, 6]]
    assert [own.tolist() for own in everyone.test] == [[1], [], [0, 2]]
    two = split("natural", owned, 2, 0)
    assert [own.tolist() for own in two.train] == [[3, 4, 5], [0, 1]]
    with pytest.raises(ConfigError, match="the data has 3 owners"):
        split("natural", owned, 4, 0)


def test_the_split_of_a_seed_is_pinned() -> None:
    """What a seed gives must not change from one version to the next: results are compared."""
    pinned = {
        scheme: [own.tolist() for own in split(scheme, data(12, 6, 3), 3, 11).train]
        for scheme in ("iid", "dirichlet", "shards")
    }
    assert pinned == PINNED


PINNED = {
    "iid": [[1, 2, 8, 10], [4, 5, 6, 9], [0, 3, 7, 11]],
    "dirichlet": [[3, 4, 6, 7, 10], [0, 8, 9], [1, 2, 5, 11]],
    "shards": [[0, 3, 4, 7], [2, 5, 8, 11], [1, 6, 9, 10]],
}


def test_partition_counts_its_clients() -> None:
    assert len(Partition([np.zeros(1, np.int64)] * 3, [np.zeros(0, np.int64)] * 3)) == 3
