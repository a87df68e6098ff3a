"""Plans and points on their way between server and clients."""

from __future__ import annotations

import numpy as np
import pytest

from flowerpress.compression import FormatError, Manifest, SequenceError, TensorSpec, WireError
from flowerpress.compression.errors import ManifestError
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.points import Points
from flowerpress.compression.rates.statistics import pack_points, packed_length, unpack_points
from flowerpress.compression.rates.wire import pack_plan, plan_digest, unpack_plan

LAYERS = [TensorSpec(f"layer{i}.weight", (64, 8)) for i in range(300)]
MANIFEST = Manifest((*LAYERS, TensorSpec("steps", (), "int64")))


def plan(*changed: tuple[int, str]) -> RatePlan:
    texts = dict.fromkeys(range(300), "topk(density=0.01)") | {300: "none"} | dict(changed)
    entries = [Entry(spec.name, texts[i]) for i, spec in enumerate(MANIFEST.specs)]
    entries[7] = Entry("layer7.weight", "int8", ("int8", "int4", "int8"))
    return RatePlan(tuple(entries), MANIFEST.digest.hex(), menu=("int8", "fp16"))


def test_a_plan_survives_without_its_predictions() -> None:
    sent = plan((3, "fp16"))
    packed = pack_plan(sent)
    assert len(packed) < 1100
    assert unpack_plan(packed, MANIFEST, None) == sent
    assert plan_digest(unpack_plan(packed, MANIFEST, None)) == plan_digest(sent)


def test_a_difference_is_short_and_for_one_plan_only() -> None:
    old, new = plan(), plan((3, "fp16"), (299, "int8"))
    packed = pack_plan(new, old)
    assert len(packed) < 60
    assert unpack_plan(packed, MANIFEST, old) == new
    for held in (None, plan((5, "int8"))):
        with pytest.raises(SequenceError, match="another plan"):
            unpack_plan(packed, MANIFEST, held)


def test_the_same_codecs_have_the_same_digest_at_whatever_budget() -> None:
    one = plan()
    other = RatePlan(one.entries, one.manifest, 4096, one.menu, "lambda")
    assert plan_digest(one) == plan_digest(other)
    assert plan_digest(one) != plan_digest(plan((3, "fp16")))


def test_a_plan_of_another_model_is_refused() -> None:
    with pytest.raises(ManifestError):
        unpack_plan(pack_plan(plan()), Manifest(MANIFEST.specs[:5]), None)


@pytest.mark.parametrize(
    "changed",
    [(0, "__import__('os')"), (0, "no such codec"), (300, "int8"), (1, "x" * 299)],
)
def test_texts_that_no_server_sends(changed: tuple[int, str]) -> None:
    good = (changed[0], "topk(density=0.987654321)")
    packed = pack_plan(plan(good))
    text = good[1].encode()
    assert text in packed
    bad = changed[1].encode()
    at = packed.index(text)
    head = packed[: at - 1]
    length = len(bad)
    varint = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    with pytest.raises(FormatError):
        unpack_plan(head + varint + bad + packed[at + len(text) :], MANIFEST, None)


def test_a_plan_cut_anywhere() -> None:
    packed = pack_plan(plan())
    for end in range(len(packed)):
        with pytest.raises(WireError):
            unpack_plan(packed[:end], MANIFEST, None)
    with pytest.raises(WireError):
        unpack_plan(packed + b"\0", MANIFEST, None)


def some_points() -> Points:
    rng = np.random.default_rng(0)
    t, s = 9, 12
    lengths = np.floor(2.0 ** rng.uniform(0, 31, (t, s)))
    energies = 10.0 ** rng.uniform(-12, 12, t)
    errors = energies[:, None] * 10.0 ** rng.uniform(-6, 2, (t, s))
    lengths[2, 3:] = errors[2, 3:] = np.inf
    lengths[4, 0] = errors[4, 1] = 0.0
    energies[5], errors[5] = 0.0, 0.0
    sizes = rng.integers(1, 10**9, t)
    names = tuple(f"t{i}" for i in range(t))
    return Points(names, tuple(f"topk(density={i / 100})" for i in range(s)), lengths, errors,
                  energies, sizes)  # fmt: skip


def test_points_survive_closely_enough() -> None:
    sent = some_points()
    packed = pack_points(sent)
    assert len(packed) == packed_length(9, 12) == 9 * 56
    got = unpack_points(packed, sent.names, sent.settings, sent.sizes)
    usable = np.isfinite(sent.bytes)
    np.testing.assert_array_equal(np.isfinite(got.bytes), usable)
    np.testing.assert_allclose(got.bytes[usable], sent.bytes[usable], rtol=2e-4, atol=0.5)
    large = usable & (sent.errors > 1e-4 * sent.energies[:, None])
    np.testing.assert_allclose(got.errors[large], sent.errors[large], rtol=1e-3)
    np.testing.assert_array_equal(got.energies, sent.energies)


def test_points_that_nobody_measures() -> None:
    sent = some_points()
    packed = bytearray(pack_points(sent))

    def read(body: bytes) -> None:
        unpack_points(body, sent.names, sent.settings, sent.sizes)

    for body in (b"", packed[:-1], packed + b"\0"):
        with pytest.raises(WireError, match="are due"):
            read(bytes(body))
    for energy in (np.nan, np.inf, -1.0, 1e301):
        with pytest.raises(WireError, match="energy"):
            read(np.float64(energy).tobytes() + bytes(packed[8:]))
    half = bytearray(packed)
    half[72:74] = b"\xff\xff"  # the first length, and not its error
    with pytest.raises(WireError, match="half measured"):
        read(bytes(half))
