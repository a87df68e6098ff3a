"""What crosses the cut of a split network, as bytes: integer tables, a coder, codecs. No torch.

Both ends of a cut code with the same integers (:class:`Tables`), which are made once, from a
learned prior or from histograms, and sent; neither end derives them from floats again.
"""

from __future__ import annotations

from flowerpress.compression.features.codec import (
    FeatureCodec,
    PresetCodec,
    TableCodec,
    feature_codec,
)
from flowerpress.compression.features.coder import decode, encode
from flowerpress.compression.features.tables import Tables

__all__ = [
    "FeatureCodec",
    "PresetCodec",
    "TableCodec",
    "Tables",
    "decode",
    "encode",
    "feature_codec",
]
