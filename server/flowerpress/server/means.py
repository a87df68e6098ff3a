"""Which of Flower's strategies need no more of the replies than their mean."""

from __future__ import annotations

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy

__all__ = ["takes_means"]

_METHODS = tuple(
    strategy.aggregate_train for strategy in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
)


def takes_means(strategy: Strategy) -> bool:
    """Return whether the strategy uses nothing of the replies but their weighted mean.

    A subclass that brings its own ``aggregate_train`` does not, whatever it inherits.
    """
    return type(strategy).aggregate_train in _METHODS
