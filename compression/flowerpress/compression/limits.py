"""What a receiver allows before it allocates anything."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Caps on what may be asked for over the wire.

    The defaults admit every model that fits a large machine; a device or a server that knows its
    model better may lower them. They cost a few comparisons per message.
    """

    max_tensors: int = 65_536
    max_dimensions: int = 16
    max_elements: int = 1 << 33
    # A frame may be longer than the tensor it codes (tables, a codec that lost), but not by much.
    slack_bytes_per_tensor: int = 1024
    # Names, shapes, recipes, lengths: what precedes the bodies of a message.
    header_bytes_per_tensor: int = 512
    header_bytes: int = 4096


DEFAULT_LIMITS = Limits()
