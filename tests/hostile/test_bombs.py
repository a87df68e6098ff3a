"""Thousands of small bodies that ask for gigabytes: memory stays within a few times the tensor."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from itertools import islice

import pytest

from flowerpress.compression import PRESETS
from flowerpress.compression.spelling import parse_call
from tests.hostile.bombs import SPEC, bombs, crafted, honest
from tests.hostile.mutate import decode, most_memory, traced

COUNT = 2_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that an invalid number got further than it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_honest_frames_take_no_more_either() -> None:
    """So the bound is one that codecs keep, and not one that bombs happen to stay under."""
    assert {parse_call(one.text)[0] for one in honest()} == set(PRESETS)
    for one in honest():
        with traced() as peak:
            assert decode(one.codec, one.body, one) == ""
            assert peak() <= most_memory(SPEC), one.text


def test_bombs_take_little_memory() -> None:
    everything = list(bombs())
    assert len(everything) >= COUNT
    refused = 0
    for codec, body, one in everything[:: len(everything) // COUNT]:
        with traced() as peak:
            refused += bool(decode(codec, body, one))
            assert peak() <= most_memory(SPEC), f"{one.text}: {body[:100].hex()}"
    assert refused > COUNT * 0.9


def test_crafted_bombs_take_little_memory() -> None:
    for name, (codec, body, one) in crafted():
        with traced() as peak:
            refused = decode(codec, body, one)
            assert peak() <= most_memory(SPEC), name
        # Only the one that holds what it declares decodes, to zeros.
        assert bool(refused) == (name != f"zstd, {SPEC.nbytes} bytes in {SPEC.nbytes >> 17} blocks")


def test_bombs_take_little_memory_outside_of_python_too() -> None:
    """What libraries and kernels allocate is seen by the system only, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.bombs"], capture_output=True, text=True, check=True
    )
    count, refused, grown = map(int, done.stdout.split())
    assert count > COUNT
    assert refused > count * 0.9
    assert grown <= 64 << 20


def test_the_same_bombs_every_time() -> None:
    assert list(islice(bombs(1), 50)) == list(islice(bombs(1), 50)) != list(islice(bombs(2), 50))
