"""How good the global model is: one forward pass over the test set, seen in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
from torch import nn

from flowerpress.simulations.loaded import Loaded
from flowerpress.simulations.record import WorstClient

__all__ = ["Judgement", "judge"]


@dataclass(frozen=True)
class Judgement:
    """Accuracies and recalls are fractions of 1; None where there was no example.

    ``client_accuracy``: the global model on each client's own test examples.
    """

    accuracy: float
    loss: float
    recall: tuple[float | None, ...]
    client_accuracy: tuple[float | None, ...]
    worst_client: WorstClient | None


def judge(loaded: Loaded, model: nn.Module) -> Judgement:
    """Evaluate ``model`` once on the whole test set and derive everything from that."""
    result = loaded.task.evaluate(model, loaded.data.test)
    clients: list[float | None] = []
    for indices in loaded.partition.test:
        own = result.correct[np.asarray(indices, np.int64)]
        clients.append(float(own.mean(dtype=np.float64)) if own.size else None)
    judged = [(accuracy, client) for client, accuracy in enumerate(clients) if accuracy is not None]
    worst = min(judged, default=None)
    return Judgement(
        accuracy=result.accuracy,
        loss=result.mean_loss,
        recall=tuple(None if isnan(value) else float(value) for value in result.recall),
        client_accuracy=tuple(clients),
        worst_client=WorstClient(worst[1], worst[0]) if worst else None,
    )
