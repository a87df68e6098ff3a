"""Bottlenecks: shapes, the published size, what is refused, gradients, normalization."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck import (
    BOTTLENECKS,
    Bottleneck,
    ChannelReduction,
    Cut,
    Entropic,
    Gdn,
    Pca,
    Plain,
    VectorQuantized,
    bottleneck,
    replaces,
    straight_through,
)
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.features import TableCodec

IMAGE, MAP, SEQUENCE = (3, 32, 32), (16, 8, 8), (12, 20)


def made(text: str, shape: tuple[int, ...], out: tuple[int, ...] | None = None) -> Bottleneck:
    """Return a bottleneck, measured on features that are what later ones are like."""
    torch.manual_seed(1)
    chosen = bottleneck(text, shape, out)
    chosen.calibrate(3 * torch.randn(64, *shape) + 1)
    return chosen.eval()


CASES = [
    *((name, MAP, None) for name in BOTTLENECKS if name != "none"),
    *((name, SEQUENCE, None) for name in BOTTLENECKS if name != "none"),
    *((name, IMAGE, MAP) for name in BOTTLENECKS if replaces(name)),
    ("entropic(norm=gdn)", MAP, None),
    ("entropic(norm=gdn)", SEQUENCE, None),
    ("plain(bits=3)", (10,), None),
    ("pca(channels=2)", (10,), None),
]


def test_the_published_bottleneck_has_the_published_size() -> None:
    whole = Entropic((3, 224, 224), (256, 56, 56))
    assert sum(p.numel() for p in whole.encoder.parameters()) == 138_672
    small = Entropic((3, 64, 64), (8, 16, 16), widths=(4, 4), decoder_widths=(8, 8))
    latent = small.encoder(torch.zeros(2, 3, 64, 64))
    assert latent.shape == (2, 24, 15, 15)
    assert small.decoder(latent).shape == (2, 8, 16, 16)


@pytest.mark.parametrize(("text", "shape", "out"), CASES)
def test_shapes(text: str, shape: tuple[int, ...], out: tuple[int, ...] | None) -> None:
    chosen = made(text, shape, out)
    features = torch.randn(5, *shape)
    latent = chosen.encoder(features)
    assert latent.shape[:2] == (5, chosen.channels)
    assert chosen.decoder(chosen.rounded(latent)).shape == (5, *(out or shape))
    assert torch.equal(chosen(features), chosen.decoder(chosen.rounded(latent)))


@pytest.mark.parametrize(("text", "shape", "out"), CASES)
def test_what_the_coder_returns_is_what_rounding_returns_to_the_bit(
    text: str, shape: tuple[int, ...], out: tuple[int, ...] | None
) -> None:
    chosen = made(text, shape, out)
    tables = chosen.tables(3)
    assert tables is not None
    codec = TableCodec(tables)
    with torch.no_grad():
        # Ten times wider than what it was measured on: many values are escapes.
        for scale in (1.0, 10.0):
            latent = scale * chosen.encoder(3 * torch.randn(7, *shape) + 1)
            if text.startswith("vq"):
                latent = latent.round()
            body = codec.encode(latent.numpy())
            decoded = codec.decode(body, tuple(latent.shape))
            assert decoded.tobytes() == chosen.rounded(latent).numpy().tobytes()
    assert codec.tables.version == 3
    assert all(int(row.sum()) == 1 << 16 for row in codec.tables.frequencies)


@pytest.mark.parametrize("text", ["entropic", "plain(bits=2)", "pca(channels=2)"])
def test_gradients_pass_rounding_unchanged(text: str) -> None:
    chosen = made(text, MAP)
    latent = torch.randn(3, chosen.channels, 4, 4, requires_grad=True)
    weights = torch.randn(latent.shape)
    rounded = chosen.rounded(latent)
    assert not torch.equal(rounded, latent)
    torch.autograd.backward((rounded * weights).sum())
    assert latent.grad is not None
    assert torch.equal(latent.grad, weights)


def test_straight_through_keeps_values_to_the_bit() -> None:
    latent, rounded = torch.tensor([1e8, 0.1]), torch.tensor([0.3, 1e-9])
    assert torch.equal(straight_through(latent, rounded), rounded)


def test_noise_is_as_wide_as_a_step_and_drawn_from_the_generator() -> None:
    chosen = made("plain(bits=4)", MAP)
    assert isinstance(chosen, Plain)
    assert len(set(chosen.levels.steps.tolist())) > 1
    latent = torch.randn(50, 16, 8, 8)
    noise = chosen.noisy(latent, torch.Generator().manual_seed(5)) - latent
    again = chosen.noisy(latent, torch.Generator().manual_seed(5)) - latent
    assert torch.equal(noise, again)
    shares = noise / chosen.width(latent)
    assert shares.abs().max() <= 0.5 + 1e-4
    assert shares.std().item() == pytest.approx(1 / 12**0.5, rel=0.02)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (2, 4, 5), (2, 4)])
def test_normalization_against_its_formula(shape: tuple[int, ...], inverse: bool) -> None:
    torch.manual_seed(2)
    module = Gdn(4, inverse=inverse)
    with torch.no_grad():
        module.beta.add_(torch.rand(4))
        module.gamma.add_(torch.rand(4, 4))
    x = torch.randn(shape)
    beta = module.beta.detach().double().numpy() ** 2 - 2.0**-36
    gamma = module.gamma.detach().double().numpy() ** 2 - 2.0**-36
    expected = np.empty(shape)
    values = x.double().numpy()
    for index in np.ndindex(shape):
        sample, channel, *place = index
        norm = beta[channel] + sum(
            gamma[channel, other] * abs(values[(sample, other, *place)]) for other in range(4)
        )
        expected[index] = values[index] * norm if inverse else values[index] / norm
    np.testing.assert_allclose(module(x).detach().numpy(), expected, rtol=1e-5)


def test_normalization_starts_as_published_and_leaves_its_floor_again() -> None:
    module = Gdn(3)
    x = torch.tensor([[1.0, -2.0, 0.5]])
    assert torch.allclose(module(x), x / (1 + 0.1 * x.abs()), atol=1e-6)
    with torch.no_grad():
        module.beta.zero_()  # below the least: cut off
    out = module(x)
    assert torch.isfinite(out).all()
    # A smaller output asks for a larger beta: that gradient has to pass.
    torch.autograd.backward(out.square().sum())
    assert module.beta.grad is not None
    assert bool((module.beta.grad < 0).all())
    module.zero_grad()
    torch.autograd.backward(-module(x).square().sum())
    assert module.beta.grad is not None
    assert bool((module.beta.grad == 0).all())


def test_pca_with_all_axes_is_exact_but_for_the_steps() -> None:
    chosen = made("pca(channels=16,bits=12)", MAP)
    features = 3 * torch.randn(20, *MAP) + 1
    assert torch.allclose(chosen.decoder(chosen.encoder(features)), features, atol=1e-4)
    assert (chosen(features) - features).abs().max() < 0.05


def test_pca_finds_the_axes_that_hold_everything() -> None:
    torch.manual_seed(3)
    basis = torch.linalg.qr(torch.randn(8, 2))[0]
    features = torch.einsum("cd,bdn->bcn", basis, torch.randn(40, 2, 9)) + 5
    chosen = Pca((8, 9), channels=2, bits=12)
    chosen.calibrate(features)
    assert (chosen(features) - features).abs().max() < 0.01


def test_more_codes_are_nearer() -> None:
    torch.manual_seed(4)
    features = torch.randn(64, 6, 12)
    errors = []
    for codes in (4, 32, 256):
        chosen = bottleneck(f"vq(codes={codes},dimensions=3)", (6, 12))
        assert isinstance(chosen, VectorQuantized)
        chosen.calibrate(features)
        with torch.no_grad():
            points, latent = chosen.points(features), chosen.encoder(features)
        found = chosen.book.looked_up(latent.long().flatten(), (64, 12))
        errors.append(float((points - found).square().mean()))
        assert chosen.tables(1).frequencies[0].size == codes + 1
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_codes_follow_their_points_in_training_alone() -> None:
    chosen = made("vq(codes=8,dimensions=3)", (6, 12))
    assert isinstance(chosen, VectorQuantized)
    before = chosen.book.codes.clone()
    chosen(torch.randn(9, 6, 12))
    assert torch.equal(before, chosen.book.codes)
    chosen.train()
    chosen(torch.randn(9, 6, 12))
    assert not torch.equal(before, chosen.book.codes)


def test_both_convolutional_bottlenecks_have_the_same_convolutions() -> None:
    def kernels(module: nn.Module) -> list[tuple[int, ...]]:
        return [tuple(m.weight.shape) for m in module.modules() if isinstance(m, nn.Conv2d)]

    one, other = made("entropic(channels=5)", IMAGE, MAP), made("reduction(channels=5)", IMAGE, MAP)
    assert isinstance(other, ChannelReduction)
    assert kernels(one) == kernels(other)
    assert one.encoder(torch.zeros(1, *IMAGE)).shape == other.encoder(torch.zeros(1, *IMAGE)).shape


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("entropi(channels=12)", UnknownNameError),
        ("entropic(channel=12)", UnknownNameError),
        ("entropic(channels=0)", ConfigError),
        ("entropic(norm=batch)", UnknownNameError),
        ("entropic(width=-1)", ConfigError),
        ("reduction(bits=13)", ConfigError),
        ("plain(bits=0)", ConfigError),
        ("pca(channels=17)", ConfigError),
        ("vq(codes=1)", ConfigError),
        ("vq(dimensions=0)", ConfigError),
        ("plain(bits=many)", ConfigError),
    ],
)
def test_what_cannot_be_is_refused(text: str, error: type[ConfigError]) -> None:
    with pytest.raises(error):
        bottleneck(text, MAP)


@pytest.mark.parametrize("text", ["pca", "plain", "none"])
def test_without_layers_the_shape_stays(text: str) -> None:
    with pytest.raises(ConfigError, match="keeps the shape"):
        bottleneck(text, IMAGE, MAP)


@pytest.mark.parametrize(
    ("shape", "out"),
    [(IMAGE, (16, 7, 7)), ((12, 20), (12, 10)), ((3, 1, 1), (3, 1, 1)), ((4,), (4,))],
)
def test_shapes_that_no_convolutions_lead_to(shape: tuple[int, ...], out: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="no bottleneck leads"):
        bottleneck("entropic", shape, out)


@pytest.mark.parametrize("text", ["plain", "pca", "reduction", "vq"])
def test_what_is_measured_has_to_be(text: str) -> None:
    with pytest.raises(ConfigError, match="calibrate"):
        bottleneck(text, MAP).tables(1)


def test_features_to_measure_on_must_be_finite() -> None:
    for bad in (torch.full((2, *MAP), torch.nan), torch.zeros(0, *MAP)):
        with pytest.raises(ConfigError, match="finite"):
            bottleneck("plain", MAP).calibrate(bad)


def test_a_channel_that_never_changes_is_coded() -> None:
    chosen = bottleneck("plain(bits=8)", (2, 4))
    features = torch.stack([torch.full((6, 4), 7.0), torch.randn(6, 4)], 1)
    chosen.calibrate(features)
    assert torch.equal(chosen(features)[:, 0], features[:, 0])


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@pytest.mark.parametrize("last", [None, nn.Linear(10, 3)])
@pytest.mark.parametrize("text", ["entropic", "reduction", "vq", "pca", "plain", "none"])
def test_device_and_server_together_are_the_whole(text: str, last: nn.Module | None) -> None:
    inside = made(text, MAP)
    tail = nn.Sequential(nn.Flatten(), nn.Linear(16 * 64, 10))
    cut = Cut(Halves(), inside, tail, last)
    inputs = torch.randn(4, *MAP)
    latent = cut.device(inputs)
    scores = cut.server(inside.rounded(latent))
    whole = cut.whole(inputs)
    assert torch.equal(scores if last is None else last(scores), whole)
    tables = inside.tables(1)
    if tables is None:
        assert text == "none"
        return
    codec = TableCodec(tables)
    decoded = codec.decode(codec.encode(latent.detach().numpy()), tuple(latent.shape))
    coded = cut.server(torch.from_numpy(decoded))
    assert torch.equal(coded if last is None else last(coded), whole)


@pytest.mark.parametrize("text", ["entropic", "reduction", "vq", "pca", "plain"])
def test_the_two_halves_hold_all_that_tables_and_decoding_need(text: str) -> None:
    torch.manual_seed(9)
    here = Cut(nn.Identity(), made(text, MAP), nn.Flatten())
    there = Cut(nn.Identity(), bottleneck(text, MAP).eval(), nn.Flatten())
    there.device.load_state_dict(here.device.state_dict())
    there.server.load_state_dict(here.server.state_dict())
    inputs = torch.randn(3, *MAP)
    assert torch.equal(here.whole(inputs), there.whole(inputs))
    ours, theirs = here.bottleneck.tables(1), there.bottleneck.tables(1)
    assert ours is not None
    assert theirs is not None
    assert ours.to_bytes() == theirs.to_bytes()
