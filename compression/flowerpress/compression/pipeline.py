"""A codec made of stages and one coder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context, encodable
from flowerpress.compression.coders.base import Coder
from flowerpress.compression.coders.registry import coder, coder_named
from flowerpress.compression.decoded import Decoded, Dense
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Form, Levels, Stage, stage_class
from flowerpress.compression.wire import Reader, Writer

__all__ = ["Pipeline", "lossy_input"]

MAX_STAGES = 8


class Pipeline(Codec):
    """Runs ``stages`` in order and codes the last one's levels with the coder named ``code``.

    A wrong order is refused here: each stage must take what the one before it gives, the first
    takes a tensor and the last gives levels.
    """

    tag = 1

    def __init__(self, stages: Sequence[Stage], code: str | Coder) -> None:
        self.stages = tuple(stages)
        self.coder = coder_named(code) if isinstance(code, str) else code
        form = Form.TENSOR
        before = "a tensor"
        for index, stage in enumerate(self.stages):
            if not form.feeds(stage.takes):
                raise ConfigError(
                    f"{stage.name} cannot follow {before}: it takes {stage.takes.value}, "
                    f"and is given {form.value}"
                )
            if index and stage.takes is Form.TENSOR and stage.gives is Form.VALUES:
                raise ConfigError(
                    f"{stage.name} cannot follow {before}: what selects entries comes first"
                )
            form, before = stage.gives, stage.name
        if form is not Form.LEVELS:
            raise ConfigError(
                f"{self.coder.name} cannot follow {before}: it takes {Form.LEVELS.value}"
            )
        alphabet = self.stages[-1].alphabet
        if alphabet > self.coder.largest:
            raise ConfigError(
                f"{self.coder.name} cannot follow {before}: it codes at most {self.coder.largest} "
                f"different levels, and is given {alphabet}"
            )

    @property
    def lossless(self) -> bool:
        """Whether every stage is."""
        return all(stage.lossless for stage in self.stages)

    @property
    def biased(self) -> bool:
        """Whether some stage is."""
        return any(stage.biased for stage in self.stages)

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return side information of each stage in order, then the coded symbols."""
        signal: NDArray[Any] | Levels = (
            encodable(x, spec) if self.lossless else lossy_input(x, spec)
        )
        body = Writer()
        for stage in self.stages:
            assert not isinstance(signal, Levels)  # the constructor's check
            signal = stage.encode(signal, spec, context, body)
        assert isinstance(signal, Levels)
        coded = self.coder.encode(signal.symbols, signal.alphabet)
        if not len(body):
            return coded
        body.raw(coded)
        return body.getvalue()

    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Decoded:
        """Open the stages in order, decode the symbols, restore in reverse."""
        del reference
        reader = Reader(body, f"frame[{spec.name!r}]")
        if not (self.lossless or spec.is_float):
            raise FormatError(reader.field, f"a lossy codec for a tensor of {spec.dtype}")
        count, alphabet = spec.size, 0
        opened = []
        for stage in self.stages:
            step = stage.open(count, spec, reader)
            opened.append(step)
            count, alphabet = step.count, step.alphabet
        signal: NDArray[Any] | Decoded = self.coder.decode(reader.rest(), count, alphabet)
        for step in reversed(opened):
            assert isinstance(signal, np.ndarray)  # only a first stage selects
            signal = step.restore(signal)
        return Dense(signal) if isinstance(signal, np.ndarray) else signal

    def write_recipe(self, out: Writer) -> None:
        """Write the number of stages, each tag with its parameters, and the coder's tag."""
        out.u8(len(self.stages))
        for stage in self.stages:
            out.varint(stage.tag)
            stage.write_params(out)
        out.varint(self.coder.tag)

    @classmethod
    def read_recipe(cls, reader: Reader) -> Pipeline:
        """Read what ``write_recipe`` wrote."""
        n = reader.u8()
        if n > MAX_STAGES:
            raise FormatError(reader.field, f"{n} stages, at most {MAX_STAGES} are accepted")
        stages = [stage_class(reader.varint(), reader.field).read_params(reader) for _ in range(n)]
        code = coder(reader.varint())
        try:
            return cls(stages, code)
        except ConfigError as error:
            raise FormatError(reader.field, str(error)) from error

    def describe(self) -> str:
        """Return the stages and the coder, joined by ``>``."""
        return " > ".join([*(stage.describe() for stage in self.stages), self.coder.name])


def lossy_input(x: NDArray[Any], spec: TensorSpec) -> NDArray[np.float32]:
    """Return ``x`` as lossy stages take it: flat, contiguous, finite float32.

    Raises:
        EncodeError: another shape than ``spec``, NaN, infinity, a tensor of integers, or a value
            that single precision cannot hold.
    """
    flat = encodable(x, spec)
    if not spec.is_float:
        raise EncodeError(spec.name, f"{spec.dtype} is sent exactly; use 'none' or 'lossless'")
    with np.errstate(over="ignore"):
        single = flat.astype(np.float32, copy=False)
    if single is not flat and not np.isfinite(single).all():
        raise EncodeError(spec.name, "a value does not fit a float32; send it with 'none'")
    return single
