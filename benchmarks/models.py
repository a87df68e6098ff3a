"""Tasks for updates of kinds that the built-in tasks do not give: wider, deeper, or sparse.

Each is a built-in task's data under another model: a wider residual network, transformers over
characters, and a recurrent network over words whose embedding is mostly left alone by a client.
"""

from __future__ import annotations

import re
import zlib
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.simulations.tasks import Data, Samples
from flowerpress.simulations.tasks.cifar10 import Cifar10
from flowerpress.simulations.tasks.resnet import ResNet
from flowerpress.simulations.tasks.shakespeare import VOCABULARY, Shakespeare

__all__ = ["Characters", "ManyCharacters", "PooledCifar10", "WideCifar10", "Words"]

_CLASSES = 10
_STEPS = 80


class WideCifar10(Cifar10):
    """The residual network of the task, twice as wide: about 1.1 million parameters."""

    def build(self) -> nn.Module:
        """Widths 32, 64 and 128."""
        return ResNet(widths=(32, 64, 128), blocks=3, classes=_CLASSES)


class PooledCifar10(WideCifar10):
    """The usual form of a residual network: its head sees the mean of the map and its branches
    start at full strength. About 1.1 million parameters, nearly all of them convolutions'; in the
    task's own network, the head takes most of a young update.
    """

    def build(self) -> nn.Module:
        """The same widths."""
        model = super().build()
        assert isinstance(model, ResNet)
        model.blocks.append(nn.AdaptiveAvgPool2d(1))
        model.head = nn.Linear(128, _CLASSES)
        for name, parameter in model.named_parameters():
            if name.endswith("norm2.weight"):
                nn.init.ones_(parameter)
        return model


class Characters(Shakespeare):
    """The next character by a transformer of about 0.8 million parameters."""

    width: ClassVar[int] = 128
    layers: ClassVar[int] = 4

    def build(self) -> nn.Module:
        """Heads of 32 units, feed-forward layers four times as wide."""
        return _Transformer(len(VOCABULARY), self.width, self.layers)


class ManyCharacters(Characters):
    """The same with about 10.7 million parameters."""

    width: ClassVar[int] = 384
    layers: ClassVar[int] = 6


class Words(Shakespeare):
    """The next word of 10, among the thousand most usual ones; words are hashed to 8,192 rows.

    One pass over a role's text touches some hundreds of rows of the embedding: most of what a
    client would send is exactly zero.
    """

    rows: ClassVar[int] = 8192
    usual: ClassVar[int] = 1000
    length: ClassVar[int] = 10

    def load(self) -> Data:
        """Cut each window of characters into words, and those into sequences."""
        data = super().load()
        spelled = {part: _words(each) for part, each in (("a", data.train), ("b", data.test))}
        words, counts = np.unique(spelled["a"][0], return_counts=True)
        ranking = words[np.argsort(-counts, kind="stable")][: self.usual]
        classes = {str(word): index for index, word in enumerate(ranking, start=1)}
        train, test = (self._samples(*spelled[part], classes) for part in ("a", "b"))
        return Data(train, test, ("(other)", *classes))

    def build(self) -> nn.Module:
        """An embedding of 64, 128 GRU units, and a score for each usual word."""
        return _Recurrent(self.rows, 64, 128, self.usual + 1)

    def prepare(self, inputs: Tensor) -> Tensor:
        """int64 (B, T), as it is."""
        return inputs

    def _samples(self, words: np.ndarray, owners: np.ndarray, classes: dict[str, int]) -> Samples:
        rows = np.array([zlib.crc32(str(word).encode()) % self.rows for word in words])
        labels = np.array([classes.get(str(word), 0) for word in words])
        count = (len(words) - 1) // self.length
        cut = count * self.length
        return Samples(
            torch.from_numpy(rows[:cut].reshape(count, self.length)),
            torch.from_numpy(labels[1 : cut + 1].reshape(count, self.length)),
            owners[: cut : self.length],
        )


def _words(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Return the words of all windows in their order, and the owner of each."""
    words: list[str] = []
    owners: list[int] = []
    assert samples.groups is not None
    for codes, owner in zip(samples.inputs.tolist(), samples.groups.tolist(), strict=True):
        text = "".join(VOCABULARY[code] for code in codes).lower()
        found = re.findall(r"[a-z']+|[.,;:!?]", text)
        words += found
        owners += [owner] * len(found)
    return np.array(words), np.array(owners, np.int64)


class _Recurrent(nn.Module):
    def __init__(self, rows: int, embedding: int, units: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, embedding)
        self.gru = nn.GRU(embedding, units, batch_first=True)
        self.head = nn.Linear(units, classes)

    def forward(self, words: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(words))
        scores: Tensor = self.head(states)
        return scores


class _Transformer(nn.Module):
    """Decoder with normalization first (Radford et al. 2019), learned positions."""

    def __init__(self, characters: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.positions = nn.Embedding(_STEPS, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, characters: Tensor) -> Tensor:
        where = torch.arange(characters.shape[1], device=characters.device)
        states = self.embedding(characters) + self.positions(where)
        for block in self.blocks:
            states = block(states)
        scores: Tensor = self.head(self.norm(states))
        return scores


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 32
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, states: Tensor) -> Tensor:
        batch, steps, width = states.shape
        mixed = self.attention(self.norm1(states)).view(batch, steps, 3, self.heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.project(seen.transpose(1, 2).reshape(batch, steps, width))
        change: Tensor = self.narrow(functional.gelu(self.widen(self.norm2(states))))
        return states + change
