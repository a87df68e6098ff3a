"""Presets that send the index of a centroid."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.compression.codec import Codec
from flowerpress.compression.coders.background import Background
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.presets.base import RAW, Preset
from flowerpress.compression.spec import TensorSpec
from flowerpress.compression.stages import Codebook, GroupCodebook, Prune

__all__ = ["Centroids", "FedZip"]


@dataclass(frozen=True)
class Centroids(Preset):
    """``codebook``: the best one-dimensional k-means, indices entropy coded.

    Codebooks: Han et al., ICLR 2016, section 3; the best clusters: Wang and Song, The R Journal
    2011. ``group`` values in a row share a codebook; 0 is the whole tensor.
    """

    clusters: int = 16
    group: int = 0
    coder: str = "rans"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the codebook pipeline."""
        stage = (
            GroupCodebook(self.clusters, self.group)
            if self.group
            else Codebook(self.clusters, "optimal")
        )
        return Pipeline([stage], self.coder)


@dataclass(frozen=True)
class FedZip(Preset):
    """``fedzip``: top-z, k-means over what remains and the zeros, one of three encodings.

    Malekijoo et al., arXiv:2102.01593. Their code leaves biases (tensors with fewer than two axes)
    untouched, and so does this. Every byte that a decoder needs is counted; the paper's ratios
    leave out delimiters. The paper has no error feedback; here it gets some, as all biased codecs.
    """

    density: float = 0.2
    clusters: int = 3
    encoding: str = "smallest"

    def codec(self, spec: TensorSpec) -> Codec:
        """Return the FedZip pipeline."""
        codec = Pipeline([Prune(self.density), Codebook(self.clusters)], Background(self.encoding))
        return RAW if len(spec.shape) < 2 else codec
