"""Presets that send the index of a centroid."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Codebook, Prune

__all__ = ["FedZip"]


@dataclass(frozen=True)
class FedZip(Preset):
    """``fedzip``: top-z, k-means over what remains and the zeros, the smallest of three encodings.

    Malekijoo et al., arXiv:2102.01593. Their code leaves biases (tensors with fewer than two axes)
    untouched, and so does this. Every byte that a decoder needs is counted; the paper's ratios
    leave out delimiters. The paper has no error feedback; here it gets some, as all biased codecs.
    """

    density: float = 0.2
    clusters: int = 3

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the FedZip pipeline."""
        if len(spec.shape) < 2:
            return RAW
        return Pipeline([Prune(self.density), Codebook(self.clusters)], "background")
