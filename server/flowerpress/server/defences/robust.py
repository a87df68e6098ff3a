"""Trimmed means and medians, coordinate by coordinate, of decoded changes.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates" (ICML 2018), definitions 1 and 2. Every client counts alike, whatever it claims
to have trained on. Changes wait on disk, a float for each parameter and client, and are read back
a block of coordinates at a time: memory stays that of one model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from logging import WARNING
from typing import Any

import numpy as np
from flwr.supercore import log
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, Manifest
from flowerpress.server.defences.spool import Spool
from flowerpress.server.intake import Received

__all__ = ["Median", "Trimmed", "TrimmedMean"]

# Values in memory at a time: so many, over all clients.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Trimmed:
    """``trimmed``: of each coordinate the mean without the ``share`` largest and smallest values.

    It withstands hostile clients up to that share.
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 0.5:
            raise ConfigError(
                f"share of trimmed is {self.share:g}; it must be above 0 and below 0.5, since it "
                "is cut off at both ends"
            )

    def cut(self, clients: int) -> int:
        """Return how many of ``clients`` values are cut off at each end; at least one is left."""
        # Rounded up, but not for the last bit of a product such as 0.07 x 100.
        return min(math.ceil(self.share * clients - 1e-9), (clients - 1) // 2)


@dataclass(frozen=True)
class Median:
    """``median``: of each coordinate the median; withstands anything but a hostile half."""

    def cut(self, clients: int) -> int:
        """Return how many values are cut off at each end: all but the middle one or two."""
        return (clients - 1) // 2


class TrimmedMean:
    """An aggregator: the model plus the trimmed mean of the changes; weights do not matter.

    Args:
        manifest: the model's tensors. Those of integers are averaged as values and rounded.
        model: the server's model.
        rule: says how many values are cut off.

    Attributes:
        shares: once there is a result, for each update the share of its values that were within
            what was averaged.
    """

    def __init__(
        self, manifest: Manifest, model: Mapping[str, NDArray[Any]], rule: Trimmed | Median
    ) -> None:
        self.shares: list[float] = []
        self._manifest = manifest
        self._model = model
        self._rule = rule
        self._spool = Spool()

    def accumulate(self, update: Received, weight: float) -> None:
        """Append one change to the file."""
        self._spool.append(update)

    def result(self) -> dict[str, NDArray[Any]]:
        """Read the changes back by blocks and average what is left of them."""
        clients = len(self._spool)
        if not clients:
            raise ZeroDivisionError("no update was accumulated")
        cut = self._rule.cut(clients)
        inside = np.zeros(clients, np.int64)
        zeros = total = 0
        out = {}
        for index, spec in enumerate(self._manifest.specs):
            mean = np.empty(spec.size, np.float64)
            step = max(1, _BLOCK // clients)
            for start in range(0, spec.size, step):
                stop = min(start + step, spec.size)
                values = self._spool.block(index, start, stop)
                ordered = np.sort(values, axis=0)
                kept = ordered[cut : clients - cut]
                mean[start:stop] = kept.mean(axis=0, dtype=np.float64)
                inside += ((values >= kept[0]) & (values <= kept[-1])).sum(axis=1)
                zeros += values.size - int(np.count_nonzero(values)) if spec.is_float else 0
            total += clients * spec.size
            if spec.is_float:
                mean += self._model[spec.name].reshape(-1)
            else:
                mean = np.rint(mean)
            with np.errstate(over="ignore"):  # whoever takes the result checks that it is finite
                out[spec.name] = spec.cast(mean).reshape(spec.shape)
        self._spool.close()
        self.shares = [int(count) * clients / total if total else 1.0 for count in inside]
        if 2 * zeros > total:
            log(
                WARNING,
                "flowerpress: %.0f%% of the values that clients sent are zero, and so is most of "
                "their median; let clients send dense updates, such as int8",
                100 * zeros / total,
            )
        return out
