"""What coded tensors take as a message."""

from __future__ import annotations

from collections.abc import Sequence

from flowerpress.compression.codec import recipe
from flowerpress.compression.plan import Coded
from flowerpress.compression.presets.ratedistortion import ENVELOPE
from flowerpress.compression.wire import Writer

__all__ = ["message_bytes"]


def message_bytes(coded: Sequence[Coded]) -> int:
    """Return the most bytes that an update of these tensors has, its envelope included.

    It is a bound and close: an update's own numbers (run, round, client) vary in length.
    """
    lengths = Writer()
    for each in coded:
        lengths.varint(len(each.body))
    recipes = {recipe(codec) for codec in dict.fromkeys(each.codec for each in coded)}
    # With two recipes and more, each frame says which one is its own.
    choices = len(coded) * (1 if len(recipes) < 128 else 2) if len(recipes) > 1 else 0
    names = sum(len(text) + (2 if len(text) < 128 else 3) for text in recipes)
    return ENVELOPE + sum(len(e.body) for e in coded) + len(lengths) + names + choices
