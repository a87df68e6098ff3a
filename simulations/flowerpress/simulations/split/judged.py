"""A cut network judged by what its server really decodes, and by the bytes of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowerpress.compression.bottleneck import Cut
from flowerpress.compression.features import FeatureCodec, TableCodec
from flowerpress.simulations.tasks import Samples, Task

__all__ = ["Coded", "codec_of", "hits", "judge_coded", "over_batches"]

T = TypeVar("T")


@dataclass(frozen=True)
class Coded:
    """What a cut network came to on some samples.

    ``accuracy``: of what was decoded. ``bytes_each``: of a sample where a batch is one stream.
    ``bytes_alone``: of a sample that is a stream of its own. ``elements``: of a sample's latent.
    """

    accuracy: float
    bytes_each: float
    bytes_alone: float
    elements: int


def codec_of(cut: Cut) -> FeatureCodec | None:
    """Return the codec with the bottleneck's own tables; None where it has none."""
    tables = cut.bottleneck.tables(1)
    return None if tables is None else TableCodec(tables)


def over_batches(
    task: Task, samples: Samples, batch: int, do: Callable[[Tensor, Tensor], T]
) -> list[T]:
    """Return what ``do`` returns for prepared inputs and labels of each batch, in order."""
    out = []
    with torch.inference_mode():
        for start in range(0, len(samples), batch):
            part = slice(start, start + batch)
            out.append(do(task.prepare(samples.inputs[part]), samples.labels[part]))
    return out


def hits(scores: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    """Return which labels, (B, ...), the scores, (B, ..., C), find; flat."""
    found: NDArray[np.bool_] = (scores.argmax(-1) == labels).flatten().numpy()
    return found


def judge_coded(
    cut: Cut, codec: FeatureCodec, task: Task, samples: Samples, batch: int, seed: int = 0
) -> Coded:
    """Code every latent, decode it, and judge what the server makes of that.

    Args:
        cut: device and server.
        codec: between them.
        task: prepares inputs.
        samples: to judge by; at least one.
        batch: samples that share a stream.
        seed: of codecs that round at random.
    """
    for part in cut.parts():
        part.eval()
    rng = np.random.default_rng(seed)

    def one(inputs: Tensor, labels: Tensor) -> tuple[NDArray[np.bool_], int, int, int]:
        latent = cut.device(inputs).numpy()
        body = codec.encode(latent, rng)
        alone = sum(len(codec.encode(latent[at : at + 1], rng)) for at in range(len(latent)))
        decoded = torch.from_numpy(codec.decode(body, latent.shape))
        scores = cut.server(decoded)
        scores = scores if cut.last is None else cut.last(scores)
        return hits(scores, labels), len(body), alone, latent[0].size

    found, together, alone, elements = zip(*over_batches(task, samples, batch, one), strict=True)
    return Coded(
        float(np.concatenate(found).mean()),
        sum(together) / len(samples),
        sum(alone) / len(samples),
        elements[0],
    )
