"""The one error tree of flowerpress.

    FlowerpressError
    ├── ConfigError            what a user wrote cannot be used (also a ValueError)
    │   └── UnknownNameError   a codec, task, parameter or key that does not exist
    ├── EncodeError            this tensor cannot be encoded (NaN, wrong shape, overflow)
    ├── StorageError           what must last cannot be written to disk, or read from it
    └── WireError              something that was received is not acceptable
        ├── TruncatedError     it ends before its own structure does
        ├── ChecksumError      its bytes were changed on the way
        ├── FormatError        a field has a value that no sender may write
        ├── LimitError         it asks for more than the receiver allows
        ├── NonFiniteError     it holds NaN or infinity
        ├── ManifestError      it was made for a model with other tensors
        └── SequenceError      it is a replay, of another round or run, or made from another base

Every ``WireError`` names the ``field`` at fault, so that a report can say more than "bad update".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ChecksumError",
    "ConfigError",
    "EncodeError",
    "FlowerpressError",
    "FormatError",
    "LimitError",
    "ManifestError",
    "NonFiniteError",
    "SequenceError",
    "StorageError",
    "TruncatedError",
    "UnknownNameError",
    "WireError",
    "nearest",
]


class FlowerpressError(Exception):
    """Base of every error that flowerpress raises on purpose."""


class ConfigError(FlowerpressError, ValueError):
    """A configuration, codec or plan cannot be used as written."""


class UnknownNameError(ConfigError):
    """A name that does not exist; the message lists the nearest and all valid ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(f"unknown {kind} {name!r}{nearest(name, self.known)}")


class EncodeError(FlowerpressError):
    """A tensor cannot be encoded; ``tensor`` is its name."""

    def __init__(self, tensor: str, message: str) -> None:
        self.tensor = tensor
        super().__init__(f"tensor {tensor!r}: {message}")


class StorageError(FlowerpressError):
    """State cannot be written to disk or read from it; ``path`` is the folder or file."""

    def __init__(self, path: object, message: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {message}")


class WireError(FlowerpressError):
    """Received bytes are not acceptable; ``field`` names the part at fault."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class TruncatedError(WireError):
    """The bytes end before their own structure does."""


class ChecksumError(WireError):
    """The bytes are not the ones that were sent."""


class FormatError(WireError):
    """A field has a value that no sender may write."""


class LimitError(WireError):
    """The bytes ask for more memory or work than the receiver allows."""


class NonFiniteError(WireError):
    """A decoded value, scale or metric is NaN or infinite."""


class ManifestError(WireError):
    """The bytes belong to a model with other tensors."""


class SequenceError(WireError):
    """A replay, or an update of another run, round or base model."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint to append to a message: the closest valid name, then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (known: {', '.join(names)})"
