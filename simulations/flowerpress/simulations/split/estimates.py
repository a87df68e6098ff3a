"""What a cut would cost a device: multiply-adds are counted, time and energy are estimated.

Nothing here is measured, but for the multiply-adds, which torch reports while a network runs. A
time is operations over a rate and bits over a rate; an energy is operations and bits times a
published figure for one. Real devices wait for memory, sleep and wake, and share their radio:
estimates tell which of two cuts is cheaper, and about by how much, and not what a battery loses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.links import Link

__all__ = [
    "DEVICES",
    "RADIOS",
    "SERVER_RATE",
    "TRAINING",
    "Device",
    "Estimate",
    "Radio",
    "estimate",
    "multiply_adds",
]

TRAINING = 3
"""A training step takes about so many times the multiply-adds of a forward pass: as many again for
the gradients of the inputs and of the weights (Kaplan et al., arXiv:2001.08361, section 2.1)."""

SERVER_RATE = 1e12
"""Multiply-adds a second that a server is taken to do for one client: assumed, a small share of any
accelerator of a data centre."""


@dataclass(frozen=True)
class Device:
    """A device by its multiply-adds: how many a second, and joules for each.

    Raises:
        ConfigError: a rate that is not positive, or a negative energy.
    """

    rate: float
    joules: float

    def __post_init__(self) -> None:
        if not self.rate > 0 or not self.joules >= 0:
            raise ConfigError(
                f"a device does {self.rate} multiply-adds a second for {self.joules} J each; "
                "the first must be positive, the second not negative"
            )


DEVICES = {
    "jetson-tx2": Device(rate=1.1e11, joules=15.0 / 1.1e11),
    "arithmetic": Device(rate=1.1e11, joules=4.6e-12),
}
"""``jetson-tx2``: 1.33 teraflops in half precision within 15 W (NVIDIA, Jetson TX2 module data
sheet), so a sixth as many multiply-adds of single precision a second at a third of its peak, which
is assumed; 136 pJ each, with everything on the board.

``arithmetic``: 4.6 pJ for one multiplication and one addition in single precision, at 45 nm (M.
Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9), and nothing for memory: what no
device of that kind goes below. Its rate is the other's."""


@dataclass(frozen=True)
class Radio:
    """Power of a radio: ``base`` watts while it is busy, more by the rate of what it moves.

    ``up`` and ``down`` are watts for each bit a second, which is joules a bit. Power is
    ``up * uplink + down * downlink + base`` (Huang et al., "A Close Examination of Performance and
    Power Characteristics of 4G LTE Networks", MobiSys 2012, section 4.3).
    """

    up: float
    down: float
    base: float

    def joules(self, bytes_up: float, bytes_down: float, link: Link) -> float:
        """Return the energy of sending and receiving so many bytes over ``link``.

        Without promotion from idle and without the tail, in which the radio stays on for seconds
        after the last byte: frequent exchanges share them.
        """
        busy = 8 * bytes_up / link.uplink + 8 * bytes_down / link.downlink
        return 8 * (bytes_up * self.up + bytes_down * self.down) + self.base * busy


RADIOS = {
    "wifi": Radio(up=283.17e-9, down=137.01e-9, base=0.13286),
    "lte": Radio(up=438.39e-9, down=51.97e-9, base=1.28804),
    "3g": Radio(up=868.98e-9, down=122.12e-9, base=0.81788),
}
"""Phones of 2011 (Huang et al., MobiSys 2012, table 4, milliwatts a megabit a second and mW)."""


@dataclass(frozen=True)
class Estimate:
    """What one exchange is estimated to take: seconds by what they pass with, joules by place."""

    device_seconds: float
    link_seconds: float
    server_seconds: float
    device_joules: float
    radio_joules: float

    @property
    def seconds(self) -> float:
        """From the input on the device to the answer on the device."""
        return self.device_seconds + self.link_seconds + self.server_seconds

    @property
    def joules(self) -> float:
        """Of the device, its radio included; a server's energy is not counted."""
        return self.device_joules + self.radio_joules

    def describe(self) -> str:
        """Return a line for people that says that this is an estimate."""
        return (
            f"estimated {1e3 * self.seconds:.3g} ms (device {1e3 * self.device_seconds:.3g}, "
            f"link {1e3 * self.link_seconds:.3g}, server {1e3 * self.server_seconds:.3g}) and "
            f"{1e3 * self.joules:.3g} mJ (device {1e3 * self.device_joules:.3g}, "
            f"radio {1e3 * self.radio_joules:.3g})"
        )


def estimate(
    link: Link,
    *,
    device_macs: float,
    server_macs: float = 0.0,
    bytes_up: float,
    bytes_down: float = 0.0,
    device: Device = DEVICES["jetson-tx2"],
    radio: Radio = RADIOS["wifi"],
    server_rate: float = SERVER_RATE,
) -> Estimate:
    """Return what an exchange is estimated to take.

    Args:
        link: rates and latency (both ways together); its ``compute`` is not used.
        device_macs, server_macs: multiply-adds on either side; see ``multiply_adds``.
        bytes_up, bytes_down: on the wire.
        device, radio: the device, by default a Jetson TX2 on Wi-Fi.
        server_rate: multiply-adds a second of the server.
    """
    if min(device_macs, server_macs, bytes_up, bytes_down) < 0 or not server_rate > 0:
        raise ConfigError("operations and bytes must not be negative, and rates must be positive")
    return Estimate(
        device_seconds=device_macs / device.rate,
        link_seconds=8 * bytes_up / link.uplink + 8 * bytes_down / link.downlink + link.latency,
        server_seconds=server_macs / server_rate,
        device_joules=device_macs * device.joules,
        radio_joules=radio.joules(bytes_up, bytes_down, link),
    )


def multiply_adds(module: nn.Module, *inputs: Any) -> int:
    """Return the multiply-adds of convolutions and products of matrices in one forward pass.

    Counted by torch where tensors are multiplied, whichever layer asks for it; additions,
    activations, normalization by statistics and lookups are left out. Training mode, gradients
    and the state of random generators are as before.

    Args:
        module: run once, in evaluation mode.
        inputs: what it takes; with a batch of one, the count is of a sample.
    """
    modes = {each: each.training for each in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    # Fused layers hide their products from the counter: have them taken apart.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        module.eval()
        with (
            torch.random.fork_rng(devices=[]),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=_FUSED) as counter,
            torch.no_grad(),
        ):
            module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each, training in modes.items():
            each.training = training
    return int(counter.get_total_flops()) // 2


def _recurrent(inputs: Any, first: Any, second: Any, *rest: Any, **other: Any) -> int:
    """Operations of a recurrent layer that oneDNN runs as a whole, from the shapes of its
    inputs (steps, samples, features) and of its weights for these and for its state.
    """
    del rest, other
    each = first[0] * first[1] + second[0] * second[1]
    return int(2 * inputs[0] * inputs[1] * each)


_FUSED = {torch.ops.aten.mkldnn_rnn_layer: _recurrent}
