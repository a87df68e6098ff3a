"""Updates of a round kept until all are there, for bounds that come from the round itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from flowerpress.compression import Manifest
from flowerpress.server.aggregate import Aggregator
from flowerpress.server.defences.base import Claim
from flowerpress.server.defences.spool import Spool
from flowerpress.server.defences.updates import norm_of
from flowerpress.server.intake import Received

__all__ = ["Waiting"]


class Waiting:
    """An aggregator that keeps updates on disk, then hands them to the one that ``make`` returns.

    Args:
        make: from the norms and weights of all updates to an aggregator with bounds.
        manifest: the model's tensors.
    """

    def __init__(self, make: Callable[[Sequence[Claim]], Aggregator], manifest: Manifest) -> None:
        self._make = make
        self._manifest = manifest
        self._spool = Spool()
        self._claims: list[Claim] = []

    def accumulate(self, update: Received, weight: float) -> None:
        """Append one update to the file."""
        self._spool.append(update)
        self._claims.append(Claim(norm_of(update, self._manifest), weight))

    def result(self) -> dict[str, NDArray[Any]]:
        """Read the updates back and aggregate them."""
        if not self._claims:
            raise ZeroDivisionError("no update was accumulated")
        inner = self._make(self._claims)
        for update, claim in zip(self._spool, self._claims, strict=True):
            inner.accumulate(update, claim.weight)
        self._spool.close()
        return inner.result()
