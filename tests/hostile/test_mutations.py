"""A hundred thousand mutants of the frames of every preset: refused, or decoded to something sound.

More of them, or others: ``python -m tests.hostile.mutate --count 1000000 --seed 1``.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator

import pytest

from flowerpress.compression import CODECS, PRESETS, WireError
from flowerpress.compression.coders.registry import REGISTRY
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.spelling import parse_call
from flowerpress.compression.stages import STAGES
from flowerpress.protos.envelope import Kind, Update, pack, unpack
from tests.hostile.mutate import attack, body_of, decode
from tests.hostile.specimens import MANIFEST, coded, specimens, spellings

# Per preset, so that a new one adds its own; together never fewer than so many.
BODIES = 80_000
ENVELOPES = 20_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that an invalid number got further than it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_every_preset_codec_stage_and_coder_is_attacked() -> None:
    assert {parse_call(one.text)[0] for one in specimens()} == set(PRESETS)
    codecs = [one.codec for one in specimens()]
    assert {codec.tag for codec in codecs} == set(CODECS)
    pipelines = [codec for codec in codecs if isinstance(codec, Pipeline)]
    used = {stage.tag for codec in pipelines for stage in codec.stages}
    assert used == {stage.tag for stage in STAGES}  # several encoders share a tag
    assert {codec.coder.tag for codec in pipelines} == set(REGISTRY)
    for name in PRESETS:
        assert coded(name) is not None, "a preset's defaults must do for any model"


def test_specimens_are_sound() -> None:
    for one in specimens():
        assert decode(one.codec, one.body, one) == "", one


@pytest.mark.parametrize("name", list(PRESETS))
def test_mutants_are_refused_or_sound(name: str) -> None:
    """Bodies and recipes, with no checksum in the way."""
    chosen = [one for one in specimens() if parse_call(one.text)[0] == name]
    count = -(-BODIES // len(PRESETS))
    ends = attack(count, seed=len(name), chosen=chosen)
    assert sum(ends.values()) == count
    assert ends["FormatError"] + ends["TruncatedError"] > count // 20
    # Attacks that nothing survives would only test the first check.
    assert ends["sound"]


@pytest.mark.parametrize("seed", range(4))
def test_no_mutant_of_an_envelope_is_taken(seed: int) -> None:
    """Whatever changes behind a checksum is noticed, also what would decode to something else."""
    rng = random.Random(seed)
    everything = specimens()
    blobs = []
    for text in spellings():
        frames = coded(text)
        if frames is not None:
            update = Update(Kind.DELTA, 1, 2, 3, 4, MANIFEST.digest, frames, bytes(16))
            blobs.append(pack(update))
            unpack(blobs[-1], MANIFEST)
    for turn in range(ENVELOPES // 4):
        damaged = body_of(blobs[turn % len(blobs)], everything, rng)
        if rng.random() < 0.5:  # two envelopes cut and joined anywhere
            other = rng.choice(blobs)
            damaged = (
                damaged[: rng.randrange(len(damaged) + 1)] + other[rng.randrange(len(other)) :]
            )
        if damaged not in blobs:
            with pytest.raises(WireError):
                unpack(damaged, MANIFEST)


def test_frames_of_one_tensor_do_not_pass_for_anothers() -> None:
    """Bodies swapped among tensors, behind a right checksum, are refused or sound."""
    for text in PRESETS:
        for frame in coded(text) or ():
            for one in specimens()[::40]:
                decode(frame.codec, bytes(frame.body), one)


def test_attacks_can_be_repeated() -> None:
    chosen = specimens()[:40]
    assert attack(300, 5, chosen) == attack(300, 5, chosen) != attack(300, 6, chosen)
