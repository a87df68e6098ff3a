"""The network of task shakespeare-transformer, cut between its blocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from flowerpress.simulations.record import read_run
from flowerpress.simulations.split.networks import cut_network, parts_of
from flowerpress.simulations.tasks.transformer import CausalTransformer
from tests.cli.conftest import command

STEPS = 13


TEXTS = (
    "none",
    "entropic(channels=6)",
    "entropic(channels=6,norm=gdn)",
    "reduction(channels=4,bits=8)",
    "vq(codes=8)",
    "pca(channels=4)",
)
CASES = [(at, text) for at in ("block1", "block1/2", "block1/3") for text in TEXTS]
CASES += [("block1-block2", text) for text in TEXTS[1:-1]]


@pytest.mark.parametrize(("at", "text"), CASES)
def test_no_cut_tells_a_step_what_comes_after_it(at: str, text: str) -> None:
    torch.manual_seed(0)
    model = CausalTransformer(20, width=16, blocks=3, heads=2, steps=STEPS)
    letters = torch.randint(20, (8, STEPS))
    cut = cut_network(parts_of(model), letters, at, text)
    cut.bottleneck.calibrate(cut.head(letters))
    for part in cut.parts():
        part.eval()
    with torch.no_grad():
        before = cut.whole(letters)
        told = False
        for step in range(1, STEPS):
            other = letters.clone()
            other[:, step:] = (other[:, step:] + 1) % 20
            after = cut.whole(other)
            torch.testing.assert_close(after[:, :step], before[:, :step], rtol=0, atol=1e-6)
            told |= not torch.equal(after, before)
    assert told


@pytest.mark.slow
def test_it_learns_from_real_plays_with_fewer_steps_across_the_cut(tmp_path: Path) -> None:
    if not os.environ.get("FLOWERPRESS_DATA"):
        pytest.skip("FLOWERPRESS_DATA does not name a folder with the data sets")
    features = {}
    for at in ("block1", "block1/2"):
        out = tmp_path / at.replace("/", "-")
        words = ("--task", "shakespeare-transformer", "--at", at, "--out", out)
        said = command(
            *("split", "train", *words, "--rounds", 3, "--clients", 4),
            *("--bottleneck", "entropic(channels=12)", "--beta", "1e-5"),
            FLOWERPRESS_DATA=os.environ["FLOWERPRESS_DATA"],
        )
        assert said.code == 0, said.err
        *_, last = read_run(out).records
        # Always saying a blank, the most frequent character, gets 16.3%.
        assert last.accuracy is not None
        assert last.accuracy > 0.17
        features[at] = last.up_by_tensor["(features)"]
    assert features["block1/2"] < 0.7 * features["block1"]
