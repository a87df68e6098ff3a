"""A network in two or three parts, with a bottleneck where it is cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import Bottleneck

__all__ = ["Cut"]


@dataclass(frozen=True, eq=False)
class Cut:
    """What is where: ``head`` on the device, ``tail`` on the server, ``bottleneck`` on both.

    With ``last``, the server's output comes back to the device, which holds the last layers and
    the labels (the U-shaped cut of Vepakomma et al., "Split learning for health", 2018).
    """

    head: nn.Module
    bottleneck: Bottleneck
    tail: nn.Module
    last: nn.Module | None = None

    @cached_property
    def device(self) -> nn.Module:
        """Inputs to the latent that is coded: head, encoder, and what tables are made from.

        Its parameters are those of the parts. ``last`` is not in it.
        """
        return _Device(self.head, self.bottleneck)

    @cached_property
    def server(self) -> nn.Module:
        """The decoded latent to scores, or to what the last layers take."""
        return nn.Sequential(self.bottleneck.decoder, self.tail)

    def whole(self, inputs: Tensor) -> Tensor:
        """Return the scores, with what crosses rounded as it is in the exchange."""
        out: Tensor = self.tail(self.bottleneck(self.head(inputs)))
        return out if self.last is None else self.last(out)

    def parts(self) -> list[nn.Module]:
        """Return all modules: head, bottleneck, tail and, where there is one, last."""
        parts = [self.head, self.bottleneck, self.tail, self.last]
        return [part for part in parts if part is not None]


class _Device(nn.Module):
    def __init__(self, head: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.head = head
        self.encoder = bottleneck.encoder
        for name, module in bottleneck.statistics().items():
            self.add_module(name, module)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the latent (B, C, ...)."""
        latent: Tensor = self.encoder(self.head(inputs))
        return latent
