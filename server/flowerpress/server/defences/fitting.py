"""Whether a defence and a codec go together, found out before a run."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import Strategy

from flowerpress.compression import ConfigError, Manifest, Preset, encode_frames
from flowerpress.server.defences.named import Defence, read_defence
from flowerpress.server.means import takes_means

__all__ = ["fitting"]

_SHAPE = (64, 64)


def fitting(defence: str | Defence, inner: Strategy, codec: Preset, name: str) -> Defence:
    """Return the defence, unless it is of no use with this strategy and codec.

    A defence takes the place of the mean, and needs a strategy that wants one. Medians are of no
    use where ``codec`` leaves most of an update at zero: clients choose other coordinates each, so
    that at most coordinates most of them say nothing, and the median of that is nothing. A policy
    or plan that is for one model only cannot be tried here; the defence warns in the first round.

    Raises:
        ConfigError: not a defence, or one that learns nothing with this codec.
    """
    if not takes_means(inner):
        raise ConfigError(
            f"{type(inner).__name__} aggregates in a way of its own, and a defence works on the "
            "mean; use one of them: a strategy like FedAvg, or no defence"
        )
    chosen = read_defence(defence) if isinstance(defence, str) else defence
    if chosen.centre and _zeros(codec) > 0.5:
        raise ConfigError(
            f"the uplink {name} sends few coordinates of an update, others from each client; the "
            "median or trimmed mean of the rest is zero, and nothing would be learned. Use a "
            "dense uplink such as int8, or clip and examples, which work with every codec"
        )
    return chosen


def _zeros(codec: Preset) -> float:
    """Return the share of a random tensor that the codec decodes to zero; 0 if it cannot tell."""
    rng = np.random.default_rng(0)
    probe = {"weight": rng.standard_normal(_SHAPE, np.float32)}
    manifest = Manifest.of(probe)
    try:
        plan = codec.plan(manifest)
    except ConfigError:
        return 0.0
    _, (decoded,) = encode_frames(manifest, plan, probe, rng)
    return 1.0 - np.count_nonzero(decoded.dense()) / probe["weight"].size
