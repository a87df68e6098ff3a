"""The two halves of a bottleneck: convolutions for images, linear maps for sequences.

Matsubara et al., "Supervised Compression for Resource-Constrained Edge Computing Systems"
(WACV 2022), section 3.1, with widths and strides as arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from flowerpress.compression.errors import ConfigError

__all__ = ["halves", "rectified"]

Norm = Callable[[int], nn.Module]


def halves(
    shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    channels: int,
    encoder_widths: Sequence[int],
    decoder_widths: Sequence[int],
    norm: Norm,
    inverse: Norm,
) -> tuple[nn.Sequential, nn.Sequential]:
    """Return encoder and decoder.

    Images, (C, H, W): a convolution 5x5 for each halving from ``shape`` to ``out_shape``, then one
    2x2 to ``channels``, which takes a row and a column off; the decoder's 2x2 convolutions put
    them on again, off, and on. Sequences, (C, T): maps of each position by itself, T as it is.
    No biases.

    Args:
        shape: what enters.
        out_shape: what leaves: (C', H / 2**k, W / 2**k), or (C', T).
        channels: of the latent.
        encoder_widths: channels after each of the encoder's layers but the last; the last of them
            is repeated where there are more.
        decoder_widths: channels after the decoder's first and second layer.
        norm: what follows the encoder's layers, made for a number of channels.
        inverse: what follows the decoder's.

    Raises:
        ConfigError: shapes that no such convolutions lead from and to.
    """
    if len(shape) == 2 and len(out_shape) == 2 and shape[1] == out_shape[1]:
        hidden, middle = encoder_widths[0], decoder_widths[0]
        encoder = nn.Sequential(
            nn.Conv1d(shape[0], hidden, 1, bias=False),
            norm(hidden),
            nn.Conv1d(hidden, channels, 1, bias=False),
        )
        decoder = nn.Sequential(
            nn.Conv1d(channels, middle, 1, bias=False),
            inverse(middle),
            nn.Conv1d(middle, out_shape[0], 1, bias=False),
        )
        return encoder, decoder
    halvings = _halvings(shape, out_shape)
    layers: list[nn.Module] = []
    before = shape[0]
    for layer in range(max(halvings, 1)):
        width = encoder_widths[min(layer, len(encoder_widths) - 1)]
        stride = 2 if layer < halvings else 1
        layers += [nn.Conv2d(before, width, 5, stride, padding=2, bias=False), norm(width)]
        before = width
    layers.append(nn.Conv2d(before, channels, 2, bias=False))
    first, second = decoder_widths
    decoder = nn.Sequential(
        nn.Conv2d(channels, first, 2, padding=1, bias=False),
        inverse(first),
        nn.Conv2d(first, second, 2, bias=False),
        inverse(second),
        nn.Conv2d(second, out_shape[0], 2, padding=1, bias=False),
    )
    return nn.Sequential(*layers), decoder


def rectified(channels: int) -> nn.Module:
    """Return a normalization over groups of channels and a ReLU.

    Over groups, since averages over the batches of unlike clients describe none of them; in a
    sequence each position by itself, since others may lie in its future.
    """
    return nn.Sequential(_Groups(math.gcd(channels, 4), channels), nn.ReLU())


class _Groups(nn.GroupNorm):
    def forward(self, features: Tensor) -> Tensor:
        """Normalize images (B, C, H, W), or each position of (B, C, T)."""
        if features.dim() != 3:
            return super().forward(features)
        rows = features.transpose(1, 2)
        return super().forward(rows.flatten(0, 1)).view(rows.shape).transpose(1, 2)


def _halvings(shape: tuple[int, ...], out_shape: tuple[int, ...]) -> int:
    if len(shape) == 3 and len(out_shape) == 3:
        for count in range(8):
            small = tuple(-(-side // 2**count) for side in shape[1:])
            if small == out_shape[1:] and min(small) >= 2:
                return count
    raise ConfigError(
        f"no bottleneck leads from features of shape {shape} to {out_shape}: images must shrink by "
        "a power of two, to no less than 2 x 2, and sequences keep their length"
    )
