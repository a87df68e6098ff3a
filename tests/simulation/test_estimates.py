"""Multiply-adds are what layers' shapes say; times and energies are sums of their parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.links import Link
from flowerpress.simulations.split.estimates import (
    DEVICES,
    RADIOS,
    Device,
    Estimate,
    Radio,
    estimate,
    multiply_adds,
)


class Functional(nn.Module):
    """A product that no layer's hook would see."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ x.transpose(1, 2)


class Last(nn.Module):
    """The output of a layer that returns its state, too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)[0]
        return out


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(7, 5), (3, 7), 3 * 7 * 5),
        (nn.Linear(7, 5, bias=False), (2, 4, 7), 8 * 7 * 5),
        (nn.Conv2d(3, 8, 5, stride=2, padding=2), (1, 3, 32, 32), 16 * 16 * 8 * 3 * 25),
        (nn.Conv2d(6, 8, 3, groups=2), (2, 6, 10, 10), 2 * 64 * 8 * 3 * 9),
        (nn.Conv1d(3, 4, 3, dilation=2), (1, 3, 20), 16 * 4 * 3 * 3),
        (nn.ConvTranspose2d(4, 3, 2, stride=2), (1, 4, 5, 5), 25 * 4 * 3 * 4),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4), nn.Dropout()), (8, 4), 0),
        (Last(nn.LSTM(6, 10, batch_first=True)), (1, 7, 6), 7 * 4 * 10 * (6 + 10)),
        (Last(nn.GRU(6, 10, batch_first=True)), (1, 7, 6), 7 * 3 * 10 * (6 + 10)),
        (Functional(), (2, 5, 3), 2 * 5 * 5 * 3),
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (1, 6, 8),
            6 * 8 * 8 * 4 + 2 * 6 * 6 * 8 + 2 * 6 * 8 * 16,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_multiply_adds_by_hand(module: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert multiply_adds(module, torch.randn(shape)) == expected


def test_the_learned_encoder_of_the_paper() -> None:
    """138,672 weights, each used at every output of its layer; norms over channels count, too."""
    from flowerpress.compression.bottleneck.gdn import Gdn

    encoder = nn.Sequential(
        nn.Conv2d(3, 96, 5, 2, 2, bias=False),
        Gdn(96),
        nn.Conv2d(96, 48, 5, 2, 2, bias=False),
        Gdn(48),
        nn.Conv2d(48, 24, 2, bias=False),
    )
    at = 112 * 112 * (3 * 96 * 25 + 96 * 96) + 56 * 56 * (96 * 48 * 25 + 48 * 48)
    assert multiply_adds(encoder, torch.randn(1, 3, 224, 224)) == at + 55 * 55 * 48 * 24 * 4


def test_counting_leaves_no_trace() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    multiply_adds(module, torch.randn(5, 4, generator=torch.Generator().manual_seed(1)))
    assert module.training
    assert not module[2].training
    assert torch.equal(state, torch.random.get_rng_state())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_an_estimate_is_the_sum_of_its_parts() -> None:
    link = Link(uplink=1e6, downlink=4e6, latency=0.02)
    got = estimate(
        link,
        device_macs=2e9,
        server_macs=1e9,
        bytes_up=1000,
        bytes_down=500,
        device=Device(1e9, 1e-10),
        radio=Radio(up=3e-7, down=1e-7, base=0.5),
        server_rate=1e12,
    )
    assert got.device_seconds == pytest.approx(2.0)
    assert got.link_seconds == pytest.approx(0.008 + 0.001 + 0.02)
    assert got.server_seconds == pytest.approx(0.001)
    assert got.seconds == pytest.approx(2.03)
    assert got.device_joules == pytest.approx(0.2)
    assert got.radio_joules == pytest.approx(8000 * 3e-7 + 4000 * 1e-7 + 0.5 * 0.009)
    assert got.joules == pytest.approx(0.2 + got.radio_joules)
    assert got.describe().startswith("estimated 2.03e+03 ms (device 2e+03, link 29, server 1)")


def test_fewer_bytes_cost_less() -> None:
    link = Link(uplink=5e6)  # the downlink is not limited

    def joules(size: int, radio: str) -> Estimate:
        return estimate(link, device_macs=1e6, bytes_up=size, bytes_down=10, radio=RADIOS[radio])

    for radio in RADIOS:
        assert joules(100, radio).joules < joules(1000, radio).joules
        assert joules(100, radio).seconds < joules(1000, radio).seconds
    assert math.isfinite(joules(100, "wifi").joules)
    # 8,000 bits at 0.438 microjoules, and 1.6 ms of 1.288 W: worked out from the published model.
    assert joules(1000, "lte").radio_joules == pytest.approx(0.003507 + 0.002061, rel=1e-2)


def test_devices_are_in_order() -> None:
    assert DEVICES["jetson-tx2"].joules == pytest.approx(136e-12, rel=0.01)
    assert DEVICES["arithmetic"].joules < DEVICES["jetson-tx2"].joules


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="a device does 0 multiply-adds"):
        Device(0, 1e-12)
    with pytest.raises(ConfigError, match="must not be negative"):
        estimate(Link(1e6), device_macs=1, bytes_up=-1)
