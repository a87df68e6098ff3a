"""The stages that pipelines are made of, by wire tag.

A tag is never reused. The registry is checked at import: two stages with one tag or name stop the
program here, not at the thousandth round.
"""

from __future__ import annotations

from flowerpress.compression.errors import FormatError
from flowerpress.compression.stages.base import Form, Levels, Opened, Stage
from flowerpress.compression.stages.bfloat import Bfloat
from flowerpress.compression.stages.channel import Int8
from flowerpress.compression.stages.chosen import ChunkTopK, Picked, Threshold
from flowerpress.compression.stages.codebook import Codebook, GroupCodebook
from flowerpress.compression.stages.eden import Eden
from flowerpress.compression.stages.exact import Exact
from flowerpress.compression.stages.float8 import Float8
from flowerpress.compression.stages.half import Half
from flowerpress.compression.stages.integers import Integers
from flowerpress.compression.stages.normal4 import Normal4
from flowerpress.compression.stages.prune import Prune
from flowerpress.compression.stages.qsgd import Qsgd
from flowerpress.compression.stages.randomk import RandomK
from flowerpress.compression.stages.rows import LargestRows, Rows
from flowerpress.compression.stages.single import Single
from flowerpress.compression.stages.ternary import Ternary
from flowerpress.compression.stages.topk import TopK
from flowerpress.compression.stages.uniform import Uniform

__all__ = [
    "STAGES",
    "Bfloat",
    "ChunkTopK",
    "Codebook",
    "Eden",
    "Exact",
    "Float8",
    "Form",
    "GroupCodebook",
    "Half",
    "Int8",
    "Integers",
    "LargestRows",
    "Levels",
    "Normal4",
    "Opened",
    "Picked",
    "Prune",
    "Qsgd",
    "RandomK",
    "Rows",
    "Single",
    "Stage",
    "Ternary",
    "Threshold",
    "TopK",
    "Uniform",
    "stage_class",
]

STAGES: tuple[type[Stage], ...] = (
    Exact,
    Half,
    Int8,
    TopK,
    Prune,
    Ternary,
    Qsgd,
    Codebook,
    Bfloat,
    Float8,
    Integers,
    Normal4,
    Single,
    RandomK,
    Rows,
    Eden,
    GroupCodebook,
    Uniform,
)

_BY_TAG = {stage.tag: stage for stage in STAGES}
if len(_BY_TAG) != len(STAGES) or len({stage.name for stage in STAGES}) != len(STAGES):
    raise RuntimeError("two stages share a tag or a name")


def stage_class(tag: int, field: str) -> type[Stage]:
    """Return the stage with a wire tag.

    Raises:
        FormatError: no stage has it; ``field`` names where it was read.
    """
    if tag not in _BY_TAG:
        raise FormatError(field, f"unknown stage tag {tag}; the sender may be newer")
    return _BY_TAG[tag]
