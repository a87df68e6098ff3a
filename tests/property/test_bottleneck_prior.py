"""The factorized prior, whatever its parameters: a density, its medians, its tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compression.bottleneck import Entropic, FactorizedPrior
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.features import TableCodec


@st.composite
def priors(draw: st.DrawFn) -> FactorizedPrior:
    """Return priors that are anywhere from as new to far from it."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    prior = FactorizedPrior(draw(st.integers(1, 4)))
    spread = draw(st.sampled_from([0.0, 0.3, 1.0]))
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(spread * torch.randn(parameter.shape))
        # Away from zero: medians of thousands, and of fractions.
        prior.biases[0] += draw(st.sampled_from([0.0, 30.0, -3000.0]))
    return prior


@settings(max_examples=25, deadline=None)
@given(priors())
def test_bins_are_a_distribution(prior: FactorizedPrior) -> None:
    medians = prior.medians()
    steps = torch.arange(-4000, 4001, dtype=torch.float64)
    values = (medians.double()[:, None] + steps).T
    with torch.no_grad():
        mass = prior.likelihood(values)
    assert (mass > 0).all()
    # 1e-9 is the least: eight thousand of these may be too many.
    np.testing.assert_allclose(mass.sum(0).numpy(), 1, atol=2e-4)


@settings(max_examples=25, deadline=None)
@given(priors())
def test_half_is_below_the_median(prior: FactorizedPrior) -> None:
    medians = prior._quantiles(0.0)
    with torch.no_grad():
        assert prior.logits(medians[:, None, None]).abs().max() < 1e-6
    np.testing.assert_allclose(prior.medians().numpy(), medians.numpy(), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(priors())
def test_tables_are_the_prior_in_integers(prior: FactorizedPrior) -> None:
    tables = prior.tables(2)
    assert tables.version == 2
    assert tables.channels == prior.channels
    assert (tables.steps == 1).all()
    np.testing.assert_array_equal(tables.centres, prior.medians().numpy())
    for channel, row in enumerate(tables.frequencies):
        assert int(row.sum()) == 1 << 16
        assert int(row.min()) >= 1
        low = int(tables.lows[channel])
        symbols = torch.arange(low, low + row.size - 1, dtype=torch.float64)
        values = (prior.medians().double()[:, None] + symbols).T
        with torch.no_grad():
            mass = prior.likelihood(values)[:, channel].numpy()
        # Frequencies of at least 1 take from the most frequent: at most one for each symbol.
        assert np.abs(row[:-1] / 65536 - mass).max() < (row.size + 1) / 65536
        # The escape has what is outside, where no symbol has more than the tails do together.
        assert row[-1] <= 65536 * (1 - mass.sum()) + 2
        if row.size < 8000:
            beyond = prior.medians().double()[:, None] + torch.tensor([low - 1, low + row.size - 1])
            with torch.no_grad():
                assert prior.likelihood(beyond.T)[:, channel].max() < 2.0**-14


def test_the_estimate_of_the_rate_is_what_the_coder_writes() -> None:
    torch.manual_seed(0)
    inside = Entropic((4, 40), (4, 40), channels=4, widths=(4, 4), decoder_widths=(4, 4))
    latent = 4 * torch.randn(200, 4, 40)
    optimizer = torch.optim.Adam(inside.prior.parameters(), 0.02)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(inside.rate(latent, generator) / latent.numel())
        optimizer.step()
    codec = TableCodec(inside.tables(1))
    bits = 8 * len(codec.encode(latent.numpy()))
    estimate = float(inside.rate(latent, generator).detach())
    assert bits == pytest.approx(estimate, rel=0.02)
    # Of a normal distribution rounded to integers: log2(4 sqrt(2 pi e)) bits.
    assert bits / latent.numel() == pytest.approx(np.log2(4 * np.sqrt(2 * np.pi * np.e)), rel=0.02)


def test_what_is_far_out_still_learns() -> None:
    prior = FactorizedPrior(1)
    latent = torch.full((1, 1, 1), 1e4, requires_grad=True)
    torch.autograd.backward(prior.bits(latent))
    assert latent.grad is not None
    assert torch.isfinite(latent.grad).all()
    assert prior.bits(torch.full((1, 1, 1), 1e4)).item() == pytest.approx(9 * np.log2(10), rel=1e-4)


def test_medians_are_those_of_the_prior_as_it_is() -> None:
    prior = FactorizedPrior(2)
    first = prior.medians().clone()
    with torch.inference_mode():
        assert torch.equal(prior.medians(), first)
    with torch.no_grad():
        prior.biases[0] += 1.0
    assert (prior.medians() != first).all()
    prior.load_state_dict(FactorizedPrior(2).state_dict())
    np.testing.assert_array_equal(prior.tables(1).centres, prior.medians().numpy())


def test_a_prior_that_broke_makes_no_tables() -> None:
    prior = FactorizedPrior(2)
    with torch.no_grad():
        prior.biases[2][0] = torch.nan
    with pytest.raises(ConfigError, match="NaN"):
        prior.tables(1)
