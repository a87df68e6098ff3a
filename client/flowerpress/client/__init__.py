"""What runs on a device: the ``press`` mod and the state it keeps between rounds.

``press`` is imported when first used: a device that only asks a split service needs no Flower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerpress.client.mod import press

__all__ = ["press"]


if not TYPE_CHECKING:  # a checker must still refuse names that do not exist

    def __getattr__(name: str) -> Any:
        if name != "press":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from flowerpress.client.mod import press

        return press
