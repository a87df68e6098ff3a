"""The order-0 entropy of what a codec codes: the least that coding symbols one by one can reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Context, EncodeError, Frame, Pipeline, Sparse, TensorSpec
from flowerpress.compression.entropy import entropy, gap_entropy, subset_bits
from flowerpress.compression.stages import Levels, TopK
from flowerpress.compression.wire import Writer

__all__ = ["ideal_bits"]

_FEWEST_GAPS = 1000


def ideal_bits(frame: Frame, spec: TensorSpec, x: NDArray[Any], seed: int) -> float | None:
    """Return the order-0 entropy of what a frame codes, in bits, plus its side information.

    Symbols at their empirical entropy. Positions at that of their gaps or, where few gaps make
    this meaningless, at the logarithm of the number of subsets, whichever is larger. Scales and
    centroids at their own size. None for codecs that are no pipeline that ends in symbols: models
    that adapt or look around have no order-0 entropy to be held against.
    """
    codec = frame.codec
    if not isinstance(codec, Pipeline):
        return None
    signal: NDArray[Any] | Levels = x.reshape(-1)
    bits, selects = 0.0, False
    for stage in codec.stages:
        if isinstance(signal, Levels):
            return None
        side = Writer()
        try:
            signal = stage.encode(signal, spec, Context(np.random.default_rng(seed)), side)
        except EncodeError:  # it was told what to do once, for all tensors together
            return None
        if isinstance(stage, TopK):
            selects = True
        else:
            bits += 8 * len(side)
    if not isinstance(signal, Levels):
        return None
    decoded = codec.decode(memoryview(frame.body), spec)
    if selects and isinstance(decoded, Sparse):
        k = decoded.positions.size
        gaps = k * gap_entropy(decoded.positions)
        # Below a thousand or so, the histogram of the gaps would itself be most of the cost.
        bits += gaps if k >= _FEWEST_GAPS else subset_bits(k, spec.size)
    return bits + signal.symbols.size * entropy(signal.symbols)
