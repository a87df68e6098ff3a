"""What runs on a device: the ``press`` mod and the state it keeps between rounds."""

from __future__ import annotations

from flowerpress.client.press import press

__all__ = ["press"]
