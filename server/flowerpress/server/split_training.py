"""Split training under Flower: device weights as ever, features on streams beside them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flowerpress.compression.features.tables import Tables
from flowerpress.protos.split_terms import SplitTerms
from flowerpress.protos.store import Snapshot
from flowerpress.server.pressed import Pressed
from flowerpress.server.split import RoundReport, SplitService

__all__ = ["SplitTraining"]


class SplitTraining(Pressed):
    """``Pressed`` for the device's part of a cut network, beside a service for the server's part.

        service = SplitService(Copies(cut.server, optimizer), run=run, ...)
        strategy = SplitTraining(FedAvg(), service, address=f"host:{service.serve()}")
        strategy.start(grid, ArrayRecord(cut.device.state_dict()), num_rounds=10)

    Flower chooses the clients of a round. Each is told where the service is and its token for
    the round, trains over a stream of its own, and answers with the device's weights through the
    update codec. Then the server's part is settled (SplitFed V1: copies are averaged, by the
    examples that they saw), and the tables of the entropy coder are built anew from the prior that
    came back, versioned, for the next round. What the service moved counts in ``meter`` beside the
    weights, under names in brackets.

    Thapa et al., "SplitFed: When Federated Learning Meets Split Learning" (AAAI 2022), algorithms
    1 to 3.

    Args:
        inner: the strategy that samples clients and aggregates the device's weights.
        service: the server's part; its life is the caller's.
        address: ``host:port`` of the service, as clients reach it.
        tables: what the coder's tables are for the device's weights and a version, or None where
            features are not coded with tables.
        certificate: PEM text of the authority that clients check the service with; None: no TLS.
        numbers: number of each node, for what is drawn at random on its behalf; None: its id.
        patience: seconds that a client waits for an answer before it gives up.
        pressed: everything else, as in ``Pressed``.

    Attributes:
        reports: what the service says of each round.
    """

    def __init__(
        self,
        inner: Strategy,
        service: SplitService,
        *,
        address: str,
        tables: Callable[[ArrayRecord, int], Tables | None] | None = None,
        certificate: bytes | None = None,
        numbers: Mapping[int, int] | None = None,
        patience: float = 120.0,
        **pressed: Any,
    ) -> None:
        super().__init__(inner, **pressed)
        self.service = service
        self.reports: dict[int, RoundReport] = {}
        self._address_of_service = address
        self._tables = tables
        self._certificate = certificate or b""
        self._numbers = numbers
        self._patience = patience
        self._version = 0
        self._published = False
        self._asked: dict[int, int] = {}
        self._parts |= {"tails": service.tails, "split": self}

    def state(self) -> Snapshot:
        """Return the version of the coder's tables, and the reports."""
        # As text: a loss may be no number, which strict JSON cannot say.
        reports = json.dumps([[n, report.facts()] for n, report in self.reports.items()])
        return Snapshot({"version": self._version, "reports": reports})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self._version, self._published = snapshot.facts["version"], False
        reports = json.loads(snapshot.facts["reports"])
        self.reports = {number: RoundReport.of(facts) for number, facts in reports}

    def forget(self, before: int) -> None:
        """Forget what is known of rounds before ``before``, the service's reports, too."""
        super().forget(before)
        self.reports = {n: report for n, report in self.reports.items() if n >= before}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Open the service's round to the clients that the inner strategy chose."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if not self._published:
            # Of a run that goes on, the tables are made again as they were.
            self._publish(arrays, self._version or 1)
        nodes = [message.metadata.dst_node_id for message in messages]
        self._asked = {node: self._number(node) for node in nodes}
        clients = list(self._asked.values())
        tokens = self.service.begin_round(server_round, clients, secrets.token_bytes(32))
        for message in messages:
            client = self._asked[message.metadata.dst_node_id]
            SplitTerms(
                address=self._address_of_service,
                run=self.service.run.to_bytes(8, "big"),
                round=server_round,
                client=client,
                token=tokens[client],
                certificate=self._certificate,
                patience=float(self._patience),
                seed=self._downlink.seed,
            ).write(message.content)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the device's weights, then settle the server's part with the same clients."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        left_out = {r.node for r in self.rejections if r.round == server_round}
        counted = [number for node, number in self._asked.items() if node not in left_out]
        # Halves that were trained together stay together: who is left out is so on both sides.
        report = self.service.end_round(counted if arrays is not None else [])
        self.reports[server_round] = report
        self._count(server_round, report)
        if arrays is not None:
            self._publish(arrays, self._version + 1)
        return arrays, metrics

    def _number(self, node: int) -> int:
        return node if self._numbers is None else self._numbers[node]

    def _publish(self, arrays: ArrayRecord, version: int) -> None:
        self._version, self._published = version, True
        tables = self._tables(arrays, version) if self._tables else None
        if tables is not None:
            self.service.publish(tables)

    def _count(self, server_round: int, report: RoundReport) -> None:
        nodes = {number: node for node, number in self._asked.items()}
        moved = self.meter.of(server_round)
        for client, traffic in report.traffic.items():
            for direction, counts in ((moved.uplink, traffic.up), (moved.downlink, traffic.down)):
                direction.record(
                    nodes[client],
                    counts.message,
                    counts.raw,
                    {f"({kind})": count for kind, count in counts.by_kind.items()},
                )
