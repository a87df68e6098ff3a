"""Vector quantization: of each position, only the number of the nearest code crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from flowerpress.compression.bottleneck.base import Bottleneck, straight_through
from flowerpress.compression.bottleneck.convolutions import halves, rectified
from flowerpress.compression.errors import ConfigError
from flowerpress.compression.features.tables import Tables

__all__ = ["VectorQuantized"]

_MOST_CODES = 1 << 12
_DECAY = 0.99
_LLOYD = 10


class VectorQuantized(Bottleneck):
    """At most log2 ``codes`` bits a position, less where codes are not used equally.

    van den Oord et al., "Neural Discrete Representation Learning" (NeurIPS 2017), section 3 and
    appendix A.1: codes follow the means of what is assigned to them, gradients pass straight
    through. The latent, (B, 1, ...), holds numbers of codes: it has no gradient, so this one is
    trained where both halves are at hand (distillation) and not over the wire.

    Args:
        shape, out_shape, widths, decoder_widths: as in ``Entropic``.
        codes: in the book, 2 to 4,096.
        dimensions: of a code.

    Raises:
        ConfigError: shapes that its convolutions do not lead from and to, or too many codes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        codes: int = 64,
        dimensions: int = 16,
        widths: Sequence[int] = (96, 48),
        decoder_widths: Sequence[int] = (512, 256),
    ) -> None:
        super().__init__()
        if not 2 <= codes <= _MOST_CODES:
            raise ConfigError(f"codes is {codes}; it must be from 2 to {_MOST_CODES:,}")
        self.channels = 1
        self.points, self.features = halves(
            shape, out_shape, dimensions, widths, decoder_widths, rectified, rectified
        )
        self.book = _Book(codes, dimensions)
        self.usage = _Usage(codes)
        self.encoder = nn.Sequential(self.points, _Assign(self.book))
        self.decoder = nn.Sequential(_LookUp(self.book), self.features)

    def rounded(self, latent: Tensor) -> Tensor:
        """Return ``latent``: it holds whole numbers."""
        return latent

    def relaxed(
        self, features: Tensor, generator: torch.Generator | None = None, *, noise: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the features that the tail gets: the codes themselves are trained with."""
        del generator, noise
        return self(features), features.new_zeros(())

    def statistics(self) -> Mapping[str, nn.Module]:
        """Return how often each code was used."""
        return {"usage": self.usage}

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> None:
        """Set the book by Lloyd's algorithm where it was never trained; count the use of codes."""
        points = self.points(features)
        if not self.usage.counts.any():
            flat = points.transpose(0, 1).flatten(1).T
            spread = torch.linspace(0, len(flat) - 1, len(self.book.codes)).long()
            self.book.codes.copy_(flat[spread])
            for _ in range(_LLOYD):
                self._follow(points, self.book.nearest(points), 0.0)
        owners = self.book.nearest(points)
        self.usage.counts.copy_(torch.bincount(owners, minlength=len(self.book.codes)))

    def tables(self, version: int) -> Tables:
        """Return the table of how often each code is used, with half a count added to each."""
        counts = self.usage.counts.numpy().astype(np.float64)
        if not counts.any():
            raise ConfigError("this bottleneck is measured: call calibrate(features) first")
        smoothed = np.append(counts + 0.5, 0.5)
        return Tables.from_probabilities(
            version,
            np.zeros(1, np.int32),
            [smoothed / smoothed.sum()],
            np.zeros(1, np.float32),
            np.ones(1, np.float32),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the features that the tail gets; while training, codes follow their points."""
        points = self.points(features)
        owners = self.book.nearest(points)
        if self.training and torch.is_grad_enabled():
            self._follow(points.detach(), owners, _DECAY)
        found = self.book.looked_up(owners, (len(points), *points.shape[2:]))
        out: Tensor = self.features(straight_through(points, found))
        return out

    @torch.no_grad()
    def _follow(self, points: Tensor, owners: Tensor, decay: float) -> None:
        codes = self.book.codes
        flat = points.transpose(0, 1).flatten(1).T
        used = torch.bincount(owners, minlength=len(codes)).to(flat.dtype)
        sums = torch.zeros_like(codes).index_add_(0, owners, flat)
        seen = used > 0
        codes[seen] = decay * codes[seen] + (1 - decay) * sums[seen] / used[seen, None]


class _Usage(nn.Module):
    counts: Tensor

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(codes))


class _Book(nn.Module):
    """The codes (K, D); device and server hold it both."""

    codes: Tensor

    def __init__(self, codes: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, dimensions))

    def nearest(self, points: Tensor) -> Tensor:
        """Return the number of the code nearest to each vector of ``points`` (B, D, ...), (N,)."""
        flat = points.detach().transpose(0, 1).flatten(1).T
        return torch.cdist(flat, self.codes).argmin(1)

    def looked_up(self, owners: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the codes numbered ``owners`` (N,), as (B, D, ...) where ``shape`` is (B, ...)."""
        return self.codes[owners].T.reshape(-1, *shape).transpose(0, 1)


class _Assign(nn.Module):
    def __init__(self, book: _Book) -> None:
        super().__init__()
        self.book = book

    def forward(self, points: Tensor) -> Tensor:
        """Return numbers of codes (B, 1, ...)."""
        owners = self.book.nearest(points)
        return owners.to(points.dtype).reshape(len(points), 1, *points.shape[2:])


class _LookUp(nn.Module):
    def __init__(self, book: _Book) -> None:
        super().__init__()
        self.book = book

    def forward(self, latent: Tensor) -> Tensor:
        """Return codes (B, D, ...); numbers that none has become the nearest that one has."""
        owners = latent.clamp(0, len(self.book.codes) - 1).long().flatten()
        return self.book.looked_up(owners, (len(latent), *latent.shape[2:]))
