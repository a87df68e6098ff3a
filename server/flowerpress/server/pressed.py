"""The wrapping strategy: any Flower strategy inside, compressed bytes in both directions."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Result,
    Strategy,
)
from flwr.supercore import log
from numpy.typing import NDArray

from flowerpress.compression import (
    DEFAULT_LIMITS,
    ConfigError,
    Limits,
    Preset,
    WireError,
    preset,
)
from flowerpress.compression.rates.choice import choose
from flowerpress.protos import (
    RECORD,
    Carrier,
    Instruction,
    MessageCarrier,
    Receipt,
    Status,
    join_updates,
    to_numpy,
    to_record,
)
from flowerpress.server.aggregate import Aggregator, FlowerMean, StreamingMean, as_model
from flowerpress.server.broadcast import Broadcast, Packed
from flowerpress.server.intake import ClientRefusedError, Intake, Received, Rejection, weight_of
from flowerpress.server.meter import Meter
from flowerpress.server.rates import RateControl
from flowerpress.server.streaming import StreamingGrid

__all__ = ["Pressed"]

# Strategies that use nothing of the replies but their weighted mean. A subclass that brings its
# own aggregate_train is not among them, whatever it inherits.
_MEAN_IS_ENOUGH = tuple(
    strategy.aggregate_train for strategy in (FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi)
)


# What the SuperLink answers in place of a node that is gone or a reply that was lost on its way.
_NO_REPLY = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
)

# Of what a client says of its own failure; it is shown in reports.
LONGEST_REASON = 500


@dataclass(frozen=True)
class _Parcel:
    """The downlink of all clients that hold the same version, and the version it starts from."""

    start: int
    blob: bytes
    by_tensor: Mapping[str, int]

    @classmethod
    def of(cls, start: int, updates: Sequence[Packed]) -> _Parcel:
        sizes: Counter[str] = Counter()
        for update in updates:
            sizes.update(update.by_tensor)
        blobs = [update.blob for update in updates]
        return cls(start, join_updates(blobs) if blobs else b"", sizes)


@dataclass
class _Round:
    """What was sent in the phase (train or evaluate) under way."""

    number: int = 0
    key: str = ""
    model: dict[str, NDArray[Any]] = field(default_factory=dict)
    messages: dict[int, Message] = field(default_factory=dict)
    parcels: dict[int, _Parcel] = field(default_factory=dict)
    train: bool = True


class Pressed(Strategy):
    """Compresses what a strategy exchanges with clients that have the ``press()`` mod.

        strategy = Pressed(FedAdam(), uplink="stc", downlink="stc")
        strategy.start(grid, initial_arrays, num_rounds=10)

    The inner strategy sees models, as ever; so does each client's app. A client whose update is
    broken, replayed, of another model or not finite is left out of that round and listed in
    ``rejections``; the round goes on. For strategies that need no more than the weighted mean
    (FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi) updates are summed as they arrive,
    in the memory of one model; the others get every client's model, as in plain Flower.

    Args:
        inner: the strategy that samples clients and aggregates.
        uplink: the codec of client updates, such as ``"stc"`` or ``"topk(density=0.02)"``, or the
            path of a policy (``.toml``) or a plan (``.json``). A client may choose its own in
            ``press()``. A policy's plan is solved again from what clients measure, and its budget
            follows each client's uplink; see docs/tuning.md.
        downlink: the codec of model changes; None: like ``uplink``. Policies and plans are possible
            here, too; a budget is then solved on each change.
        first: the codec of the first model that a client gets; None: ``fp16``. What it loses is
            part of the next change. A lossless downlink sends every model itself, the first too.
        run_id: identity that binds updates to this run, from 0 to 2**64 - 1; None: random.
        seed: root of the generators of stochastic codecs, from 0 to 2**64 - 1; None: random.
        limits: the server's caps on what is received.

    Attributes:
        meter: bytes sent, by round, direction, client and tensor.
        rejections: who was left out of which round, and why.

    Raises:
        ConfigError: an unknown codec or parameter, or a number out of range.
    """

    def __init__(
        self,
        inner: Strategy,
        *,
        uplink: str | Path | Preset = "stc",
        downlink: str | Path | Preset | None = None,
        first: str | Path | Preset | None = None,
        run_id: int | None = None,
        seed: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.inner = inner
        self.uplink = _called(uplink)
        self.downlink = _called(downlink or uplink)
        self.meter = Meter()
        self.rejections: list[Rejection] = []
        self._up = choose(uplink)
        down = self._up if downlink is None else choose(downlink)
        self._rates = RateControl(self._up, self.uplink)
        for name, number in (("run_id", run_id), ("seed", seed)):
            if number is not None and not 0 <= number < 1 << 64:
                raise ConfigError(f"{name} is {number}; it must be from 0 to 2**64 - 1")
        self._seed = secrets.randbits(32) if seed is None else seed
        run = secrets.randbits(64) if run_id is None else run_id
        self._carrier: Carrier = MessageCarrier()
        self._broadcast = Broadcast(
            run,
            down,
            choose(first or "fp16"),
            preset("lossless"),
            self._seed,
            keep_change=self._up.uses_reference,
        )
        self._intake = Intake(run, self._carrier, limits)
        self._versions: dict[int, int] = {}
        self._round = _Round()
        self._grid: Grid | None = None
        self._timeout: float | None = None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run rounds as every Flower strategy does; see ``flwr.serverapp.strategy.Strategy``."""
        self._timeout = timeout
        self._rates.rounds = num_rounds
        return super().start(
            StreamingGrid(grid),
            initial_arrays,
            num_rounds,
            timeout,
            train_config,
            evaluate_config,
            evaluate_fn,
        )

    @property
    def plan_in_force(self) -> dict[str, str] | None:
        """The codec of each tensor of updates, or None where one preset codes them all."""
        return self._rates.plan_in_force

    @property
    def targets(self) -> dict[int, int]:
        """Bytes that each client may send in the round under way; empty without a budget."""
        return self._rates.targets

    def summary(self) -> None:
        """Log the codecs and the inner strategy's own summary."""
        log(INFO, "\t├──> Pressed: uplink %s | downlink %s", self.uplink, self.downlink)
        self.inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose clients, and give each the bytes that it lacks."""
        self._grid = grid
        messages = self.inner.configure_train(server_round, arrays, config, grid)
        return self._address(server_round, list(messages), train=True)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose clients, and give each the bytes that it lacks."""
        self._grid = grid
        messages = self.inner.configure_evaluate(server_round, arrays, config, grid)
        return self._address(server_round, list(messages), train=False)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check, decode and aggregate updates; None where no client's update counted."""
        aggregator = self._aggregator()
        weight_key: str | None = getattr(self.inner, "weighted_by_key", None)
        accepted, errors = [], []
        for reply in self._answers(replies):
            if reply.has_error():
                errors.append(reply)
                continue
            try:
                update, weight = self._receive(reply, weight_key)
                _drop_arrays(reply.content)
                if aggregator:
                    aggregator.accumulate(update, weight)
                else:
                    broadcast = self._broadcast
                    # A change counts from the server's model: what the downlink lost is not lost.
                    model = as_model(update, broadcast.manifest, self._round.model, broadcast.held)
                    reply.content[self._round.key] = to_record(model)
            except WireError as error:
                self._reject(reply, error)
                continue
            accepted.append(reply)
        self._note_silent()
        log(
            INFO,
            "flowerpress: %d updates taken, %d clients left out",
            len(accepted),
            self._left_out(),
        )
        accepted = self._alike(accepted, drop=aggregator is None)
        if not accepted:
            return None, None
        if not aggregator or weight_key is None:
            return self.inner.aggregate_train(server_round, [*accepted, *errors])
        inner: Any = self.inner
        contents = [reply.content for reply in accepted]
        aggregate_metrics = inner.train_metrics_aggr_fn
        metrics: MetricRecord = aggregate_metrics(contents, weight_key)
        model = aggregator.result()
        if not all(np.isfinite(array).all() for array in model.values()):
            log(WARNING, "flowerpress: the mean of the updates overflows; the model stays as it is")
            return None, metrics
        mean = _one_reply(accepted, self._round.key, model, weight_key)
        # The inner strategy would aggregate the metrics of the one reply that it is given.
        inner.train_metrics_aggr_fn = lambda *_: metrics
        try:
            return self.inner.aggregate_train(server_round, [mean, *errors])
        finally:
            inner.train_metrics_aggr_fn = aggregate_metrics

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pass on the replies of clients that could evaluate."""
        weight_key = getattr(self.inner, "weighted_by_key", None)
        accepted, errors = [], []
        for reply in self._answers(replies):
            if reply.has_error():
                errors.append(reply)
                continue
            try:
                self._rates.note(reply.metadata.src_node_id, self._check_receipt(reply))
                weight_of(reply, weight_key)
            except WireError as error:
                self._reject(reply, error)
                continue
            _drop_arrays(reply.content)
            accepted.append(reply)
        self._note_silent()
        accepted = self._alike(accepted, drop=True)
        return self.inner.aggregate_evaluate(server_round, [*accepted, *errors])

    # Down

    def _address(self, server_round: int, messages: list[Message], *, train: bool) -> list[Message]:
        """Replace the model in each message by what its client lacks."""
        self._round = _Round(server_round)
        if not messages:
            return []
        records = {id(r): (k, r) for m in messages for k, r in m.content.array_records.items()}
        if len(records) != 1:
            raise ConfigError(
                f"{type(self.inner).__name__} sends {len(records)} ArrayRecords a round; "
                "Pressed carries one model, the same for all clients"
            )
        ((key, record),) = records.values()
        model = to_numpy(record)
        self._broadcast.publish(server_round, model)
        self._round = _Round(server_round, key, model, train=train)
        self._rates.begin(server_round, self._broadcast.manifest, model)
        return [self._send(message) for message in messages]

    def _send(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        broadcast = self._broadcast
        known = self._versions.get(node, 0)
        # Clients that hold the same version are sent the same bytes object, not a copy each.
        if known not in self._round.parcels:
            self._round.parcels[known] = _Parcel.of(*broadcast.path(known))
        parcel = self._round.parcels[known]
        content = RecordDict({k: v for k, v in message.content.items() if k != self._round.key})
        if parcel.blob:
            self._carrier.attach(content, self._round.key, parcel.blob)
        terms = self._rates.terms(
            node, broadcast.manifest, afresh=not known, train=self._round.train
        )
        Instruction(
            run=broadcast.run,
            round=self._round.number,
            client=node,
            version=broadcast.version,
            held=parcel.start,
            digest=broadcast.digest,
            watermark=self._intake.watermarks.get(node, 0),
            arrays=self._round.key,
            carrier=self._carrier.name,
            seed=self._seed,
            **vars(terms),
        ).write(content)
        self.meter.of(self._round.number).downlink.record(
            node,
            len(parcel.blob) + terms.nbytes,
            broadcast.manifest.nbytes,
            parcel.by_tensor,
        )
        message.content = content
        self._round.messages[node] = message
        return message

    # Up

    def _answers(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield replies; a client that lost its copy of the model is sent a whole one, once."""
        again = []
        for reply in replies:
            node = reply.metadata.src_node_id
            asked = self._round.messages.pop(node, None)
            if asked is not None and _lost_its_model(reply):
                self._versions[node] = 0
                metadata = asked.metadata
                again.append(
                    self._send(
                        Message(
                            asked.content,
                            node,
                            metadata.message_type,
                            group_id=metadata.group_id,
                        )
                    )
                )
            else:
                self._note_error(reply)
                yield reply
        if again and self._grid is not None:
            for reply in self._grid.send_and_receive(again, timeout=self._timeout):
                self._round.messages.pop(reply.metadata.src_node_id, None)
                self._note_error(reply)
                yield reply

    def _receive(self, reply: Message, weight_key: str | None) -> tuple[Received, float]:
        """Return the decoded update of a reply and its weight.

        Whatever was sent is metered, also if it does not count in the end.
        """
        node = reply.metadata.src_node_id
        broadcast = self._broadcast
        receipt = self._check_receipt(reply)
        key = next(iter(reply.content.array_records), self._round.key)
        blob = self._intake.blob(reply, key, broadcast.manifest)
        meter = self.meter.of(self._round.number).uplink
        # What a client measured is sent beside its update, and is paid for like that.
        beside = len(receipt.points)
        meter.record(node, len(blob) + beside, broadcast.manifest.nbytes, {})
        self._rates.note(node, receipt)
        weight = weight_of(reply, weight_key)
        update = self._intake.open(
            blob, node, self._round.number, broadcast.digest, broadcast.manifest
        )
        received = self._intake.decode(update, node, broadcast.manifest, broadcast.change)
        meter.attribute(
            {broadcast.manifest.specs[f.tensor].name: len(f.body) for f in update.frames}
        )
        return received, weight

    def _check_receipt(self, reply: Message) -> Receipt:
        """Note the version that the client holds; raise what it says went wrong."""
        node = reply.metadata.src_node_id
        receipt = Receipt.read(reply.content)
        if receipt.version == self._broadcast.version and receipt.digest == self._broadcast.digest:
            self._versions[node] = receipt.version
        elif receipt.status is not Status.OK:
            # What it holds may not be what it was thought to hold: a whole model next time.
            self._versions.pop(node, None)
        if receipt.status is Status.NEED_MODEL:
            raise ClientRefusedError(
                receipt.status.name, "", "holds no model, although it was sent a whole one"
            )
        if receipt.status is not Status.OK:
            raise ClientRefusedError(
                receipt.error or receipt.status.name, receipt.field, receipt.message
            )
        return receipt

    def _aggregator(self) -> Aggregator | None:
        mean_is_enough = type(self.inner).aggregate_train in _MEAN_IS_ENOUGH
        if not (mean_is_enough and self._round.model):
            return None
        manifest = self._broadcast.manifest
        mean = FlowerMean if self._rates.lossless(manifest) else StreamingMean
        return mean(manifest, self._round.model, self._broadcast.held)

    def _alike(self, replies: list[Message], *, drop: bool) -> list[Message]:
        """Return the replies whose metrics have the most common names.

        Flower ends the whole run over one client with other metrics.
        """
        shapes = [_metric_names(reply) for reply in replies]
        if len(set(shapes)) <= 1:
            return replies
        common = Counter(shapes).most_common(1)[0][0]
        for reply, shape in zip(replies, shapes, strict=True):
            if shape != common and drop:
                self._note(
                    reply.metadata.src_node_id,
                    "FormatError",
                    "metrics",
                    "other metrics than most clients",
                )
        return [r for r, shape in zip(replies, shapes, strict=True) if shape == common]

    # Who was left out

    def _left_out(self) -> int:
        return len({r.node for r in self.rejections if r.round == self._round.number})

    def _reject(self, reply: Message, error: WireError) -> None:
        name = error.name if isinstance(error, ClientRefusedError) else type(error).__name__
        text = error.text if isinstance(error, ClientRefusedError) else str(error)
        self._note(reply.metadata.src_node_id, name, error.field, text)

    def _note_error(self, reply: Message) -> None:
        if reply.has_error():
            reason = (reply.error.reason or "no reason given").strip()
            name = "NoReply" if reply.error.code in _NO_REPLY else "ClientAppError"
            self._note(reply.metadata.src_node_id, name, "", reason[:LONGEST_REASON])

    def _note_silent(self) -> None:
        for node in self._round.messages:
            self._note(node, "NoReply", "", "no reply before the deadline")
        self._round.messages = {}

    def _note(self, node: int, error: str, field: str, message: str) -> None:
        log(
            WARNING,
            "flowerpress: node %d left out of round %d: %s",
            node,
            self._round.number,
            message,
        )
        self.rejections.append(Rejection(self._round.number, node, error, field, message))


def _called(codec: str | Path | Preset) -> str:
    return str(codec) if isinstance(codec, str | Path) else type(codec).__name__


def _lost_its_model(reply: Message) -> bool:
    if not reply.has_content():
        return False
    try:
        return Receipt.read(reply.content).status is Status.NEED_MODEL
    except WireError:
        return False


def _drop_arrays(content: RecordDict) -> None:
    """Leave the app's own records but for arrays, which only a decoded update may bring in.

    In place: Flower's records refer to themselves, and one that is replaced keeps its arrays in
    memory until the garbage collector comes by.
    """
    for key in [k for k, v in content.items() if k == RECORD or isinstance(v, ArrayRecord)]:
        del content[key]


def _metric_names(reply: Message) -> tuple[Any, ...]:
    return tuple(
        (key, name, len(value) if isinstance(value, list) else None)
        for key, record in sorted(reply.content.metric_records.items())
        for name, value in sorted(record.items())
    )


def _one_reply(
    replies: list[Message], key: str, mean: dict[str, NDArray[Any]], weight_key: str
) -> Message:
    """Return a reply that stands for all: their mean with the sum of their weights.

    A weighted mean of one is that one, to the bit, so the inner strategy's own averaging changes
    nothing and its server optimizer sees what it would have computed.
    """
    records = [next(iter(reply.content.metric_records.values())) for reply in replies]
    name = next(iter(replies[0].content.metric_records))
    weights = [record[weight_key] for record in records]
    metrics = MetricRecord({**records[0], weight_key: sum(weights)})  # type: ignore[arg-type]
    replies[0].content = RecordDict({key: to_record(mean), name: metrics})
    return replies[0]
