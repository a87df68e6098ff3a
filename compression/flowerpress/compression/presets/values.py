"""How the values are sent that a selection left: a name for each format."""

from __future__ import annotations

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.stages import (
    Bfloat,
    Float8,
    Half,
    Integers,
    Normal4,
    Qsgd,
    Single,
    Stage,
)
from flowerpress.compression.stages.scales import CHANNEL, TENSOR

__all__ = ["SCALES", "VALUES", "grouping", "values_stage"]

VALUES = ("fp32", "fp16", "bf16", "e4m3", "e5m2", "int8", "int4", "nf4", "qsgd")
SCALES = ("tensor", "channel", "block")
BLOCK = 64
_LEVELS, _BUCKET = 127, 512


def values_stage(name: str, row: int = 0) -> Stage:
    """Return the stage that codes a list of values in the format ``name``.

    Args:
        name: one of ``VALUES``.
        row: values in a row where whole rows are sent, from two on: then eight-bit formats have a
            scale for each row. Otherwise they have one scale, and four-bit formats one for every
            64 values.

    Raises:
        UnknownNameError: no such format.
    """
    group = row if row > 1 else TENSOR
    match name:
        case "fp32":
            return Single()
        case "fp16":
            return Half()
        case "bf16":
            return Bfloat()
        case "e4m3" | "e5m2":
            return Float8(name, group)
        case "int8":
            return Integers(8, group)
        case "int4":
            return Integers(4, BLOCK)
        case "nf4":
            return Normal4(BLOCK)
        case "qsgd":
            return Qsgd(_LEVELS, _BUCKET)
    raise UnknownNameError("format of values", name, VALUES)


def grouping(scale: str, block: int = BLOCK) -> int:
    """Return the grouping that a user names: ``tensor``, ``channel``, or ``block``.

    Raises:
        UnknownNameError: none of these.
        ConfigError: a block of fewer than two values.
    """
    if scale not in SCALES:
        raise UnknownNameError("scale", scale, SCALES)
    if scale == "block":
        if block < 2:
            raise ConfigError(f"block is {block}; it must be 2 or more")
        return block
    return CHANNEL if scale == "channel" else TENSOR
