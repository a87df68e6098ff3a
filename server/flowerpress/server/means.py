"""Which of Flower's strategies need no more of the replies than their mean, and how they get it."""

from __future__ import annotations

from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi, Strategy
from flwr.supercore import log

from flowerpress.server.aggregate import Aggregator
from flowerpress.server.replies import one_reply

__all__ = ["aggregate_mean", "takes_means"]

_METHODS = tuple(
    strategy.aggregate_train for strategy in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
)


def takes_means(strategy: Strategy) -> bool:
    """Return whether the strategy uses nothing of the replies but their weighted mean.

    A subclass that brings its own ``aggregate_train`` does not, whatever it inherits.
    """
    return type(strategy).aggregate_train in _METHODS


def aggregate_mean(
    strategy: Strategy,
    server_round: int,
    key: str,
    aggregator: Aggregator,
    replies: list[Message],
    errors: list[Message],
) -> tuple[ArrayRecord | None, MetricRecord | None]:
    """Let a strategy that takes means aggregate one reply, which holds the mean of all.

    Args:
        strategy: one that takes means.
        server_round: from 1.
        key: the record name of the model.
        aggregator: what took the updates of the round.
        replies: those whose metrics count; at least one.
        errors: replies that bring an error instead, which the strategy logs.

    Returns:
        The model, None where the mean is not finite, and the metrics.
    """
    inner: Any = strategy
    weight_key: str = inner.weighted_by_key
    aggregate_metrics = inner.train_metrics_aggr_fn
    metrics: MetricRecord = aggregate_metrics([reply.content for reply in replies], weight_key)
    model = aggregator.result()
    if not all(np.isfinite(array).all() for array in model.values()):
        log(WARNING, "flowerpress: the mean of the updates overflows; the model stays as it is")
        return None, metrics
    mean = one_reply(replies, key, model, weight_key)
    # The strategy would aggregate the metrics of the one reply that it is given.
    inner.train_metrics_aggr_fn = lambda *_: metrics
    try:
        return strategy.aggregate_train(server_round, [mean, *errors])
    finally:
        inner.train_metrics_aggr_fn = aggregate_metrics
