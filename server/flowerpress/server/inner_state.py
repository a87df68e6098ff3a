"""What the wrapped strategy keeps between rounds.

Of Flower's own strategies it is known. A strategy of somebody else's says it itself, with the
methods of ``Stateful``; one that has attributes of its own and no such methods is refused, since a
run that goes on without them would be another run.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from flowerpress.compression import ConfigError
from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, pack_record, part, unpack_record

__all__ = ["InnerState", "settings_of"]

# The attributes that change from round to round, of every class whose attributes are all known.
_CHANGING: Mapping[type[Strategy], tuple[str, ...]] = {
    **dict.fromkeys((FedAdagrad, FedAdam, FedYogi), ("current_arrays", "m_t", "v_t")),
    FedAvgM: ("current_arrays", "momentum_vector"),
    QFedAvg: ("current_arrays",),
    **dict.fromkeys(
        (FedAvg, FedProx, FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan), tuple[str, ...]()
    ),
}


class InnerState:
    """The state of a strategy.

    Args:
        strategy: one of Flower's, a subclass of one without attributes of its own, or one with the
            methods ``state()`` and ``restore(snapshot)`` (see ``flowerpress.server.Stateful``).

    Raises:
        ConfigError: it may keep something that nobody knows of.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy: Any = strategy
        self._own = callable(getattr(strategy, "state", None)) and callable(
            getattr(strategy, "restore", None)
        )
        self._names = () if self._own else self._changing()

    def state(self) -> Snapshot:
        """Return it.

        Raises:
            ConfigError: the strategy has got an attribute since that nobody knows of.
        """
        if self._own:
            snapshot: Snapshot = self._strategy.state()
            return snapshot
        self._changing()
        values = {name: getattr(self._strategy, name) for name in self._names}
        return joined({name: _packed(value) for name, value in values.items()})

    def restore(self, snapshot: Snapshot) -> None:
        """Put it into the strategy."""
        if self._own:
            self._strategy.restore(snapshot)
            return
        for name in self._names:
            setattr(self._strategy, name, _unpacked(part(snapshot, name)))

    def _changing(self) -> tuple[str, ...]:
        kind = type(self._strategy)
        known = next((base for base in kind.__mro__ if base in _CHANGING), None)
        if known is None:
            raise ConfigError(
                f"checkpoint: what {kind.__name__} keeps between rounds is not known; give it the "
                "methods state() and restore(snapshot) (docs/resume.md), or leave out checkpoint"
            )
        if known is not kind and (own := sorted(vars(self._strategy).keys() - _attributes(known))):
            raise ConfigError(
                f"checkpoint: {kind.__name__} has attributes of its own ({', '.join(own)}), and "
                "whether they change from round to round is not known; give it the methods state() "
                "and restore(snapshot) (docs/resume.md), or leave out checkpoint"
            )
        return _CHANGING[known]


def settings_of(strategy: Strategy) -> dict[str, bool | int | float | str]:
    """Return the class of a strategy, and of Flower's own what they were made with.

    Functions are left out: they have no text that says what they do.
    """
    kind = type(strategy)
    own = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    known = next((base for base in kind.__mro__ if base in _CHANGING), None)
    if known is None:
        return dict(own)
    plain = {
        name: value
        for name, value in sorted(vars(strategy).items())
        if isinstance(value, bool | int | float | str)
        and name in _attributes(known)
        and name not in _CHANGING[known]
    }
    return {**own, **plain}


def _attributes(known: type[Strategy]) -> set[str]:
    """Return the names of all attributes of a strategy of Flower's: its options, and what changes.

    ``server_opt`` is FedAvgM's, worked out from its options.
    """
    classes = [base for base in known.__mro__ if "__init__" in vars(base)]
    options = {name for base in classes for name in signature(base).parameters}
    return {*options, *_CHANGING[known], "server_opt"}


def _packed(value: ArrayRecord | Mapping[str, Any] | list[Any] | None) -> Snapshot:
    if value is None:
        return Snapshot({"kind": "none"})
    if isinstance(value, ArrayRecord):
        record = pack_record(value)
        return Snapshot({"kind": "record", **record.facts}, blobs=record.blobs)
    if isinstance(value, Mapping):
        arrays = {name: np.asarray(array) for name, array in value.items()}
        return Snapshot({"kind": "mapping"}, arrays)
    return Snapshot({"kind": "list"}, {str(i): np.asarray(array) for i, array in enumerate(value)})


def _unpacked(snapshot: Snapshot) -> ArrayRecord | dict[str, Any] | list[Any] | None:
    match snapshot.facts["kind"]:
        case "none":
            return None
        case "record":
            return unpack_record(snapshot)
        case "mapping":
            return dict(snapshot.arrays)
    return list(snapshot.arrays.values())
