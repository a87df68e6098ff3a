"""The codecs that a user names, such as ``none``, ``int8`` or ``stc(density=0.01)``.

A preset says which codec each tensor of a model gets. What it says never crosses the wire: the
frames name their codecs themselves.
"""

from __future__ import annotations

from flowerpress.compression.presets.base import Preset
from flowerpress.compression.presets.clustered import Centroids, FedZip
from flowerpress.compression.presets.exact import Lossless, NoCompression
from flowerpress.compression.presets.factored import PowerFactors, QuantizedLowRank
from flowerpress.compression.presets.formats import (
    Bf16,
    Fp8,
    Fp16,
    Int4,
    Int8PerChannel,
    IntN,
    Nf4,
)
from flowerpress.compression.presets.ratedistortion import RateDistortionBudget
from flowerpress.compression.presets.rotated import Drive, EdenLevels
from flowerpress.compression.presets.signs import ComPeft, EfSign, SparseLoCo
from flowerpress.compression.presets.sparse import (
    RandomSubset,
    RowSparse,
    SparseTernary,
    Structured,
    ThresholdValues,
    TopKValues,
)
from flowerpress.compression.presets.stochastic import QsgdLevels
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.spelling import build

__all__ = ["PRESETS", "Preset", "preset"]

PRESETS: dict[str, type[Preset]] = {
    "none": NoCompression,
    "rd": RateDistortionBudget,
    "lossless": Lossless,
    "fp16": Fp16,
    "int8": Int8PerChannel,
    "topk": TopKValues,
    "qsgd": QsgdLevels,
    "stc": SparseTernary,
    "fedzip": FedZip,
    "bf16": Bf16,
    "fp8": Fp8,
    "int4": Int4,
    "intn": IntN,
    "nf4": Nf4,
    "threshold": ThresholdValues,
    "randomk": RandomSubset,
    "rowsparse": RowSparse,
    "structured": Structured,
    "efsign": EfSign,
    "compeft": ComPeft,
    "sparseloco": SparseLoCo,
    "codebook": Centroids,
    "eden": EdenLevels,
    "drive": Drive,
    "powersgd": PowerFactors,
    "lowrank": QuantizedLowRank,
}


def preset(text: str) -> Preset:
    """Return the preset that ``text`` names, such as ``stc`` or ``stc(density=0.005)``.

    Raises:
        UnknownNameError: no such preset, parameter, coder or position mode.
        ConfigError: a parameter out of range.
    """
    choice = build("codec", text, PRESETS)
    choice.codec(TensorSpec("probe", (2, 2)))  # refuses bad parameters now, not in the first round
    return choice
