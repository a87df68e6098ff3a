"""The contract of a stage: what it takes, what it gives, and how the decoder undoes it.

A pipeline runs its stages in order and hands the last result to one coder. Each stage may write
*side information* (positions, scales, centroids) into the body, ahead of the coded symbols.

    tensor --select--> values --quantize--> levels --code--> bytes
    tensor ----------------quantize-------> levels --code--> bytes

The decoder first *opens* the stages in the same order: each reads its side information and says
how many items, over what alphabet, the next one has. Only then are symbols decoded, and the
restore functions run in reverse. No count ever comes from the sender unchecked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from numpy.typing import NDArray

from flowerpress.compression.codec import Context
from flowerpress.compression.decoded import Decoded
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Form", "Levels", "Opened", "Stage"]


class Form(Enum):
    """What passes between stages."""

    TENSOR = "every element of the tensor, in order"
    VALUES = "a list of real values"
    LEVELS = "a list of small integers"

    def feeds(self, other: Form) -> bool:
        """Whether a stage that takes ``other`` can follow one that gives ``self``."""
        return self is other or (self is Form.TENSOR and other is Form.VALUES)


@dataclass(frozen=True)
class Levels:
    """Integers in ``[0, alphabet)``, flat; what a coder takes."""

    symbols: NDArray[Any]
    alphabet: int


@dataclass(frozen=True)
class Opened:
    """What a decoder knows of a stage once its side information is read.

    ``count`` and ``alphabet`` (0 unless levels) describe the stage's output; ``restore`` turns
    that output back into the stage's input.
    """

    count: int
    alphabet: int
    restore: Callable[[NDArray[Any]], NDArray[Any] | Decoded]


class Stage(ABC):
    """One step of a pipeline; immutable, with its static parameters as fields."""

    tag: ClassVar[int]
    name: ClassVar[str]
    takes: Form
    gives: ClassVar[Form]
    lossless: ClassVar[bool] = False
    biased: bool = True

    @property
    def alphabet(self) -> int:
        """The most different levels that the stage gives; 0 where it gives no levels."""
        return 0

    @abstractmethod
    def encode(
        self, x: NDArray[Any], spec: TensorSpec, context: Context, side: Writer
    ) -> NDArray[Any] | Levels:
        """Return the next form of ``x`` (flat) after writing side information to ``side``.

        Raises:
            EncodeError: ``x`` cannot be represented.
        """

    @abstractmethod
    def open(self, count: int, spec: TensorSpec, side: Reader) -> Opened:
        """Read the side information for an input of ``count`` items.

        Raises:
            WireError: side information that no encoder writes.
        """

    def write_params(self, out: Writer) -> None:
        """Write static parameters into the recipe; none by default."""
        del out

    @classmethod
    def read_params(cls, reader: Reader) -> Stage:
        """Return the stage with the parameters that ``write_params`` wrote.

        What a decoder need not know is not written, and the stage that is read may be unable to
        encode.

        Raises:
            WireError: parameters that no encoder writes.
        """
        del reader
        return cls()

    def describe(self) -> str:
        """Return the name and parameters, for people."""
        return self.name
