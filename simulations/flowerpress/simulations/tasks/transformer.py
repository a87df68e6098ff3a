"""The next character in Shakespeare's plays again, with a small causal transformer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.simulations.tasks.base import Training
from flowerpress.simulations.tasks.shakespeare import VOCABULARY, Shakespeare

__all__ = ["CausalTransformer", "ShakespeareTransformer"]

_STEPS = 80


class ShakespeareTransformer(Shakespeare):
    """The data of ``shakespeare``; three blocks of width 96, 362,113 parameters.

    Made to be cut: between its parts, features are (B, C, T), channels before steps, as those of
    images are.
    """

    name: ClassVar[str] = "shakespeare-transformer"
    training: ClassVar[Training] = Training(epochs=1, batch_size=16, lr=0.1, momentum=0.9)
    cut_at: ClassVar[str | None] = "block1"

    def build(self) -> nn.Module:
        """96-dimensional characters, three blocks of 4 heads, 97 scores a step."""
        return CausalTransformer(len(VOCABULARY), width=96, blocks=3, heads=4, steps=_STEPS)


class CausalTransformer(nn.Sequential):
    """Maps characters (B, T) to scores (B, T, ``characters``); a step sees none after itself.

    Normalized before each half of a block (Xiong et al., "On Layer Normalization in the
    Transformer Architecture", 2020), positions learned. ``steps`` is the longest T.
    """

    def __init__(self, characters: int, *, width: int, blocks: int, heads: int, steps: int) -> None:
        super().__init__()
        self.add_module("embed", _Embed(characters, width, steps))
        for number in range(1, blocks + 1):
            self.add_module(f"block{number}", _Block(width, heads))
        self.add_module("head", _Head(width, characters))


class _Embed(nn.Module):
    def __init__(self, characters: int, width: int, steps: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, width)
        self.positions = nn.Embedding(steps, width)
        nn.init.normal_(self.characters.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.1)

    def forward(self, characters: Tensor) -> Tensor:
        """Return (B, C, T)."""
        places = torch.arange(characters.shape[1], device=characters.device)
        features: Tensor = self.characters(characters) + self.positions(places)
        return features.transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.outputs = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, C, T) of the same shape."""
        rows: Tensor = features.transpose(1, 2)
        rows = rows + self.outputs(self._attended(self.norm1(rows)))
        rows = rows + self.narrow(functional.gelu(self.wide(self.norm2(rows))))
        return rows.transpose(1, 2)

    def _attended(self, rows: Tensor) -> Tensor:
        samples, steps, width = rows.shape
        split = self.inputs(rows).view(samples, steps, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return found.transpose(1, 2).reshape(samples, steps, width)


class _Head(nn.Module):
    def __init__(self, width: int, characters: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, characters)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, T, characters)."""
        scores: Tensor = self.scores(self.norm(features.transpose(1, 2)))
        return scores
