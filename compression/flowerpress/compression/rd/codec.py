"""The rate-distortion codec: a tensor to a body and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context
from flowerpress.compression.decoded import Decoded, Dense
from flowerpress.compression.errors import ConfigError, EncodeError, FormatError
from flowerpress.compression.pipeline import lossy_input
from flowerpress.compression.rd import stream
from flowerpress.compression.rd.basis import DIGEST_BYTES, Bases, Reference
from flowerpress.compression.rd.body import SMALLEST_STEP, Body
from flowerpress.compression.rd.decoded import Composed
from flowerpress.compression.rd.factors import restore, scaled
from flowerpress.compression.rd.stream import Kind, Plane
from flowerpress.compression.rd.subject import Subject
from flowerpress.compression.rd.views import matrix_shape
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.wire import Reader, Writer

__all__ = ["RateDistortion", "subject"]

_LARGEST = 1e38


@dataclass(frozen=True)
class RateDistortion(Codec):
    """Low rank, trellis-coded levels and adaptive contexts, all with one absolute step.

    One step for all tensors of an update is what reverse water-filling asks for (Cover and Thomas,
    Elements of Information Theory, theorem 10.3.3); where a tensor's errors count w times as much,
    its step is ``step / sqrt(w)``. The squared error is at most about ``step**2 / 4`` an element,
    and about 0.065 of it at high rates.

    ``step`` is in the units of the tensors, at least 1e-30. Biased: use error feedback.
    """

    step: float

    tag = 2

    def __post_init__(self) -> None:
        if not SMALLEST_STEP <= self.step < float("inf"):
            raise ConfigError(f"step is {self.step}; it must be at least {SMALLEST_STEP}")
        # What travels is a float32.
        object.__setattr__(self, "step", float(np.float32(self.step)))

    @property
    def lossless(self) -> bool:
        """Never."""
        return False

    @property
    def biased(self) -> bool:
        """Small values become zero."""
        return True

    def encode(self, x: NDArray[Any], spec: TensorSpec, context: Context) -> bytes:
        """Return the body; empty where every element becomes zero."""
        return subject(x, spec, context).encode(self.step)

    def decode(
        self, body: memoryview, spec: TensorSpec, reference: NDArray[Any] | None = None
    ) -> Decoded:
        """Return factors and points; they are multiplied out when they are added to something."""
        field = f"frame[{spec.name!r}]"
        if not spec.is_float:
            raise FormatError(field, f"a lossy codec for a tensor of {spec.dtype}")
        if not len(body) or not spec.size:
            if len(body):
                raise FormatError(field, "a body for a tensor without elements")
            return Dense(np.zeros(spec.size, np.float32))
        if reference is not None:
            reference = np.asarray(reference, np.float32).reshape(spec.shape)
        return _decode(Reader(body, field), spec.shape, self.step, reference)

    def warmth(self, body: memoryview, spec: TensorSpec) -> NDArray[np.float32] | None:
        """Return the right factor (rank, columns): the next one is likely to be near it."""
        if not len(body) or not spec.is_float or not spec.size:
            return None
        reader = Reader(body, f"frame[{spec.name!r}]")
        head = Body.read(reader, spec.shape)
        if not head.exponents or head.right_basis or head.left_basis:
            return None  # near the reference's
        return _decode(Reader(body, reader.field), spec.shape, self.step, None).right

    def write_recipe(self, out: Writer) -> None:
        """Write the step."""
        out.f32(self.step)

    @classmethod
    def read_recipe(cls, reader: Reader) -> RateDistortion:
        """Read what ``write_recipe`` wrote."""
        step = reader.f32()
        if not step >= np.float32(SMALLEST_STEP):
            raise FormatError(reader.field, f"step {step}")
        return cls(step)

    def describe(self) -> str:
        """Return the name and the step."""
        return f"rate-distortion, step {self.step:.3g}"


def subject(x: NDArray[Any], spec: TensorSpec, context: Context) -> Subject:
    """Return a tensor as something to be coded with one step or several.

    Raises:
        EncodeError: NaN, infinity, overflow of float32, or a tensor of integers.
    """
    values = lossy_input(x, spec).reshape(spec.shape)
    reference = context.reference
    if reference is not None:
        reference = np.asarray(reference, np.float32).reshape(spec.shape)
    out = Subject(values, context.warm, reference)
    if out.largest > _LARGEST:
        raise EncodeError(
            spec.name,
            f"{out.largest:.2g} does not fit a float32 with its coding error; send it with 'none'",
        )
    return out


def _decode(
    reader: Reader, shape: tuple[int, ...], step: float, reference: NDArray[np.float32] | None
) -> Composed:
    body = Body.read(reader, shape)
    m, n = matrix_shape(shape, body.view)
    m = m if body.rows is None else body.rows.size
    n = n if body.columns is None else body.columns.size
    known = _known(reader, body, reference, m, n)
    rank = len(body.exponents)
    targets = []
    for basis in (known.left, known.right) if rank else ():
        if len(basis):
            targets.append(np.empty((rank, len(basis)), np.int32))
        targets.append(np.empty((rank, basis.shape[1]), np.int32))
    planes = [Plane(Kind.FACTOR, t, low) for t, low in zip(targets, body.low, strict=False)]
    points = np.empty((0, n), np.int32)
    if body.shifts is not None:
        points = np.empty((m, n), np.int32)
        planes.append(Plane(Kind.REST, points, body.low[-1]))
    stream.decode(reader, body.lanes, planes, signs=body.signs)

    half = len(targets) - (2 if body.right_basis else 1) if rank else 0
    shifts = np.zeros(6, np.float32)
    shifts[1:5] = np.array(body.shifts or [0] * 4, np.float32) / 32
    return Composed(
        shape,
        body.view,
        np.float32(step if body.step is None else body.step),
        scaled(_factor(targets[:half], known.left), body.exponents),
        _factor(targets[half:], known.right),
        points,
        shifts,
        body.rows,
        body.columns,
    )


def _factor(targets: list[NDArray[np.int32]], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    if not targets:
        return np.zeros((0, basis.shape[1]), np.float32)
    points = targets[-1]
    none = np.zeros((len(points), 0), np.int32)
    return restore(points, targets[0] if len(targets) > 1 else none, basis)


def _known(
    reader: Reader, body: Body, reference: NDArray[np.float32] | None, m: int, n: int
) -> Bases:
    """Return the bases that the encoder used, of a matrix (m, n)."""
    none = Bases.none(m, n)
    if body.reference is None:
        return none
    own = None if reference is None else Reference(reference)
    if own is None or own.digest[:DIGEST_BYTES] != body.reference:
        raise FormatError(reader.field, "made with a reference that this receiver does not have")
    known = own.bases(body.view, body.rows, body.columns)
    if known is None:
        raise FormatError(reader.field, "made with a reference that says nothing")
    return Bases(
        known.left if body.left_basis else none.left,
        known.right if body.right_basis else none.right,
    )
