"""What makes a run this run, in words: a checkpoint of other terms is not gone on from."""

from __future__ import annotations

import hashlib
from dataclasses import is_dataclass, replace
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord

from flowerpress.compression import Manifest, Preset
from flowerpress.compression.rates.policy import Policy
from flowerpress.protos import to_numpy

__all__ = ["codec_term", "start_terms"]

# Of a text that people can still compare; a longer one is told by its digest.
_LONGEST = 200


def codec_term(choice: Preset) -> str:
    """Return a text that two codecs, plans or policies share only if they do the same.

    Of one of somebody else's that is no dataclass, nothing is known but its class.
    """
    if isinstance(choice, Policy):
        choice = replace(choice, where="")
    text = repr(choice) if is_dataclass(choice) else type(choice).__qualname__
    if len(text) <= _LONGEST:
        return text
    return f"{type(choice).__name__} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def start_terms(
    arrays: ArrayRecord, train_config: ConfigRecord, evaluate_config: ConfigRecord
) -> dict[str, Any]:
    """Return what a strategy is started with: the model's tensors and the configurations."""
    manifest = Manifest.of(to_numpy(arrays))
    model = f"{len(manifest)} tensors of {manifest.nbytes} bytes ({manifest.digest.hex()})"
    configs = {"train_config": train_config, "evaluate_config": evaluate_config}
    named = {
        f"{kind} {name}": value.hex() if isinstance(value, bytes) else value
        for kind, config in configs.items()
        for name, value in config.items()
    }
    return {"model": model, **named}
