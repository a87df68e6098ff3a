"""Flower's loop over rounds, which may begin at any of them and says when one is over.

The steps and their order are those of ``flwr.serverapp.strategy.Strategy.start``, which can only
begin at the first round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from flowerpress.protos.store import Snapshot
from flowerpress.server.snapshots import joined, pack_record, part, unpack_record

__all__ = ["Evaluate", "Progress", "run_rounds"]

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]

_METRICS = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        arrays: the global model.
        round: the last one that is over; 0: the first model was evaluated, -1: not even that.
        result: what Flower's loop collects.
    """

    arrays: ArrayRecord
    round: int = -1
    result: Result = field(default_factory=Result)

    def state(self) -> Snapshot:
        """Return it as a snapshot."""
        # As text: a metric may be infinite or no number, which strict JSON cannot say.
        facts: dict[str, Any] = {
            name: json.dumps([[n, dict(m)] for n, m in getattr(self.result, name).items()])
            for name in _METRICS
        }
        facts |= {"round": self.round, "aggregated": bool(self.result.arrays)}
        return joined({"own": Snapshot(facts), "arrays": pack_record(self.arrays)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        facts = part(snapshot, "own").facts
        self.arrays = unpack_record(part(snapshot, "arrays"))
        self.round = facts["round"]
        metrics: dict[str, Any] = {
            name: {n: MetricRecord(values) for n, values in json.loads(facts[name])}
            for name in _METRICS
        }
        self.result = Result(self.arrays if facts["aggregated"] else ArrayRecord(), **metrics)


def run_rounds(
    strategy: Strategy,
    grid: Grid,
    progress: Progress,
    num_rounds: int,
    *,
    timeout: float,
    train_config: ConfigRecord,
    evaluate_config: ConfigRecord,
    evaluate_fn: Evaluate | None,
    over: Callable[[Progress], None],
) -> Result:
    """Run the rounds that are left of ``num_rounds``; the arguments are those of ``start``.

    ``over`` is called when a round is, and before the first one once its model is evaluated.
    """
    started, result = time.monotonic(), progress.result
    if progress.round < 0:
        _evaluate(0, progress, evaluate_fn)
        progress.round = 0
        over(progress)
    for number in range(progress.round + 1, num_rounds + 1):
        log(INFO, "")
        log(INFO, "[ROUND %s/%s]", number, num_rounds)
        messages = strategy.configure_train(number, progress.arrays, train_config, grid)
        arrays, metrics = strategy.aggregate_train(
            number, grid.send_and_receive(messages, timeout=timeout)
        )
        if arrays is not None:
            result.arrays = progress.arrays = arrays
        if metrics is not None:
            log(INFO, "\t└──> Aggregated MetricRecord: %s", metrics)
            result.train_metrics_clientapp[number] = metrics

        messages = strategy.configure_evaluate(number, progress.arrays, evaluate_config, grid)
        metrics = strategy.aggregate_evaluate(
            number, grid.send_and_receive(messages, timeout=timeout)
        )
        if metrics is not None:
            log(INFO, "\t└──> Aggregated MetricRecord: %s", metrics)
            result.evaluate_metrics_clientapp[number] = metrics
        _evaluate(number, progress, evaluate_fn)
        progress.round = number
        over(progress)
    log(INFO, "")
    log(INFO, "%d rounds are over after %.2f s", num_rounds, time.monotonic() - started)
    for line in str(result).splitlines():
        log(INFO, "\t%s", line)
    return result


def _evaluate(number: int, progress: Progress, evaluate_fn: Evaluate | None) -> None:
    """Let the app judge the global model."""
    metrics = evaluate_fn(number, progress.arrays) if evaluate_fn else None
    if metrics is not None:
        log(INFO, "\t└──> Global evaluation: %s", metrics)
        progress.result.evaluate_metrics_serverapp[number] = metrics
