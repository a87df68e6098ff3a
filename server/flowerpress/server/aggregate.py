"""Weighted means of updates in the memory of one model, however many clients there are.

Both aggregators take updates one at a time and return the mean as a model for the inner strategy.
``StreamingMean`` sums differences in double precision. ``FlowerMean`` is for lossless exchanges:
it repeats the arithmetic of Flower's own average bit for bit, which needs the sum of all weights
before the first product, so models wait in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Manifest, NonFiniteError, TensorSpec
from flowerpress.protos import Kind
from flowerpress.server.intake import Received

__all__ = ["Aggregator", "FlowerMean", "StreamingMean", "as_model"]

Arrays = Mapping[str, NDArray[Any]]


class Aggregator(Protocol):
    """Averages updates."""

    def accumulate(self, update: Received, weight: float) -> None:
        """Take one update with a positive weight.

        Raises:
            NonFiniteError: the update leads to a model that its dtype cannot hold; not taken.
        """

    def result(self) -> dict[str, NDArray[Any]]:
        """Return the averaged model, in the manifest's dtypes.

        Raises:
            ZeroDivisionError: nothing was accumulated.
        """


class StreamingMean:
    """The server's model plus the weighted mean of the clients' changes.

    Sums are float64: 8 bytes a parameter, and the same result as Flower's average up to float32
    rounding. Sparse updates are added without becoming dense. Updates that hold models count with
    their difference to ``held``, the model that clients trained from; tensors of integers are
    averaged as values and rounded.
    """

    def __init__(self, manifest: Manifest, model: Arrays, held: Arrays) -> None:
        self._manifest = manifest
        self._model = model
        self._held = held
        self._weight = 0.0
        self._sums = [np.zeros(spec.size, np.float64) for spec in manifest.specs]

    def accumulate(self, update: Received, weight: float) -> None:
        """Add one update."""
        for index, decoded in update.decoded:
            spec = self._manifest.specs[index]
            decoded.add_to(self._sums[index], weight)
            if update.kind is Kind.MODEL and spec.is_float:
                self._sums[index] -= self._held[spec.name].reshape(-1) * np.float64(weight)
        self._weight += weight

    def merge(self, other: StreamingMean) -> None:
        """Take over what another aggregator of the same round has summed."""
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            mine += theirs
        self._weight += other._weight

    def result(self) -> dict[str, NDArray[Any]]:
        """Return model plus mean change."""
        if not self._weight:
            raise ZeroDivisionError("no update was accumulated")
        out = {}
        for spec, total in zip(self._manifest.specs, self._sums, strict=True):
            mean = total / self._weight
            if spec.is_float:
                mean += self._model[spec.name].reshape(-1)
            out[spec.name] = _cast(mean, spec).reshape(spec.shape)
        return out


class FlowerMean:
    """Flower's own weighted average of models (``aggregate_arrayrecords``), bit for bit.

    Args:
        manifest: the model's tensors.
        model: the server's model.
        held: what clients trained from; where it differs from ``model`` (a lossy downlink), the
            difference is added to the mean.
    """

    def __init__(self, manifest: Manifest, model: Arrays, held: Arrays) -> None:
        self._manifest = manifest
        self._model = model
        self._held = held
        self._weights: list[float] = []
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the aggregator

    def accumulate(self, update: Received, weight: float) -> None:
        """Append one model to the temporary file."""
        model = as_model(update, self._manifest, self._held, self._held)
        for spec in self._manifest.specs:
            self._file.write(np.ascontiguousarray(model[spec.name]).data)
        self._weights.append(weight)

    def result(self) -> dict[str, NDArray[Any]]:
        """Read the models back one tensor at a time and average them."""
        if not self._weights:
            raise ZeroDivisionError("no update was accumulated")
        total = sum(self._weights)
        factors = [weight / total for weight in self._weights]
        sums: list[NDArray[Any]] = []
        self._file.seek(0)
        for factor in factors:
            for index, spec in enumerate(self._manifest.specs):
                value = np.frombuffer(
                    self._file.read(spec.size * spec.storage.itemsize), spec.storage
                )
                if index == len(sums):
                    sums.append(value * factor)
                else:
                    sums[index] += value * factor
        out = {}
        for spec, mean in zip(self._manifest.specs, sums, strict=True):
            if spec.is_float:
                lag = self._model[spec.name].reshape(-1) - self._held[spec.name].reshape(-1)
                if lag.any():
                    mean += lag
            out[spec.name] = _cast(mean, spec).reshape(spec.shape)
        self._file.close()
        return out


def as_model(
    update: Received, manifest: Manifest, base: Arrays, held: Arrays
) -> dict[str, NDArray[Any]]:
    """Return the model that an update stands for: ``base`` plus the client's change from ``held``.

    Values come through bit for bit where ``base`` and ``held`` agree.

    Raises:
        NonFiniteError: a value overflows the tensor's dtype.
    """
    out = {}
    for index, decoded in update.decoded:
        spec = manifest.specs[index]
        if update.kind is Kind.DELTA and spec.is_float:
            flat = np.array(base[spec.name], order="C").reshape(-1)
            with np.errstate(over="ignore"):
                decoded.add_to(flat)
                flat = spec.cast(flat)
        else:
            flat = _cast(decoded.dense(), spec)
            if spec.is_float and base[spec.name] is not held[spec.name]:
                lag = (base[spec.name] - held[spec.name]).reshape(-1)
                flat = flat + lag if lag.any() else flat
        if spec.is_float and not np.isfinite(flat).all():
            raise NonFiniteError(f"frame[{spec.name!r}]", f"overflows {spec.dtype} in the model")
        out[spec.name] = flat.reshape(spec.shape)
    return out


def _cast(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if not spec.is_float and values.dtype.kind == "f":
        values = np.rint(values)
    with np.errstate(over="ignore"):  # whoever takes the result checks that it is finite
        return spec.cast(values)
