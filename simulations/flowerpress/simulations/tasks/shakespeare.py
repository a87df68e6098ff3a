"""The next character in Shakespeare's plays; each speaking role is a client by nature."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowerpress.compression.errors import FormatError
from flowerpress.simulations.tasks.base import Data, Samples, Task, Training
from flowerpress.simulations.tasks.folders import Source, find_files
from flowerpress.simulations.tasks.plays import speeches_by_role
from flowerpress.simulations.tasks.reading import read_exactly, refuse_above, typed_errors

__all__ = ["VOCABULARY", "Shakespeare"]

VOCABULARY = ("\ufffd", "\n", *(chr(code) for code in range(0x20, 0x7F)))
"""The classes: anything else, the line break, printable ASCII. Fixed, so that the model has the
same shape whatever the text."""

_STEPS = 80
_LEAST = 2000
_TEST_SHARE = 5
_MAX_TEXT = 1 << 26
_SOURCE = Source(
    task="shakespeare",
    title='"tiny Shakespeare", input.txt',
    home="data/tinyshakespeare in the repository karpathy/char-rnn on GitHub",
    layouts=((("input.txt",),),),
)


class Shakespeare(Task):
    """Predict each next character of 80; two layers of LSTM, 220,913 parameters (the task of
    McMahan et al. 2017, section 3, with 128 instead of 256 units).

    A role's text is cut into windows of 80 characters; the last fifth of them is its test set.
    A role with fewer than 2,000 characters (24 windows) is dropped: its score on a few lines
    would say nothing. Groups count the roles from the longest on.
    """

    training: ClassVar[Training] = Training(epochs=1, batch_size=10, lr=1.0, momentum=0.9)
    partition: ClassVar[str] = "natural"
    clients: ClassVar[int] = 30

    def load(self) -> Data:
        """Read the text: inputs uint8 (N, 80), labels int64 (N, 80), the input one step on.

        Raises ConfigError if it is missing, WireError if it is no text in the form of ``plays``.
        """
        (path,) = find_files(_SOURCE, self.folder)
        spoken = speeches_by_role(_read_text(path))
        long = [text for text in spoken.values() if len(text) >= _LEAST]
        if not long:
            raise FormatError(
                path.name,
                f"holds {len(spoken)} roles, none with {_LEAST} characters; expected are plays in "
                "the form 'ROLE:', then a speech on the next lines, then a blank line",
            )
        windows = [_windows(text) for text in sorted(long, key=len, reverse=True)]
        cuts = [max(1, len(window) // _TEST_SHARE) for window in windows]
        pairs = list(zip(windows, cuts, strict=True))
        return Data(
            train=_samples(window[:-cut] for window, cut in pairs),
            test=_samples(window[-cut:] for window, cut in pairs),
            classes=VOCABULARY,
        )

    def build(self) -> nn.Module:
        """16-dimensional characters, two layers of 128 LSTM units, 97 scores a step."""
        return _CharacterModel(len(VOCABULARY), embedding=16, units=128)

    def prepare(self, inputs: Tensor) -> Tensor:
        """uint8 (B, T) -> int64 (B, T)."""
        return inputs.long()


class _CharacterModel(nn.Module):
    def __init__(self, characters: int, embedding: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, units, num_layers=2, batch_first=True)
        self.head = nn.Linear(units, characters)

    def forward(self, characters: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(characters))
        scores: Tensor = self.head(states)
        return scores


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    refuse_above(size, _MAX_TEXT, path.name)
    with typed_errors(path), path.open("rb") as file:
        # Bytes that are no UTF-8 become the character that stands for anything else.
        return read_exactly(file, size, path.name).tobytes().decode("utf-8", errors="replace")


def _windows(text: str) -> NDArray[np.uint8]:
    """Cut ``text`` into (W, 81) indices of characters; neighbours share one, the one to predict."""
    table = np.zeros(128, np.uint8)
    for index, character in enumerate(VOCABULARY[1:], start=1):
        table[ord(character)] = index
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    indices = np.where(codes < 128, table[np.minimum(codes, 127)], 0).astype(np.uint8)
    view = np.lib.stride_tricks.sliding_window_view(indices, _STEPS + 1)
    return view[::_STEPS].copy()


def _samples(parts: Iterable[NDArray[np.uint8]]) -> Samples:
    windows = list(parts)
    sizes = [len(window) for window in windows]
    everything = torch.from_numpy(np.concatenate(windows))
    return Samples(
        inputs=everything[:, :-1].contiguous(),
        labels=everything[:, 1:].long().contiguous(),
        groups=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes),
    )
