"""The wrapping strategy: any Flower strategy inside, compressed bytes in both directions."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from flowerpress.compression import (
    DEFAULT_LIMITS,
    ConfigError,
    Limits,
    Preset,
    preset,
)
from flowerpress.compression.rates.choice import choose
from flowerpress.protos import Carriers, MessageCarrier, to_record
from flowerpress.server.aggregate import Aggregator, FlowerMean, StreamingMean, as_model
from flowerpress.server.broadcast import Broadcast
from flowerpress.server.checkpoint import Checkpoint, Keeper
from flowerpress.server.defences import Defence, Guard, Guarded, Treatment
from flowerpress.server.defences.fitting import fitting
from flowerpress.server.downlink import Downlink
from flowerpress.server.generators import Generators
from flowerpress.server.inner_state import InnerState, settings_of
from flowerpress.server.intake import Intake, Rejection, weight_of
from flowerpress.server.left_out import LeftOut
from flowerpress.server.means import aggregate_mean, takes_means
from flowerpress.server.meter import Meter
from flowerpress.server.quorum import Closing, Quorum
from flowerpress.server.rates import RateControl
from flowerpress.server.replies import drop_arrays
from flowerpress.server.rounds import Evaluate, Progress, run_rounds
from flowerpress.server.secure_aggregation import (
    refuse_masked_messages,
    refuse_secure_aggregation,
)
from flowerpress.server.snapshots import Stateful
from flowerpress.server.streaming import StreamingGrid
from flowerpress.server.terms import codec_term, start_terms
from flowerpress.server.traffic import Traffic
from flowerpress.server.uplink import Uplink
from flowerpress.server.verdicts import Verdicts

__all__ = ["Pressed"]


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
        defence: what stands between updates and the mean, such as ``"examples"``, ``"clip"``,
            ``"clip+trimmed(share=0.2)"`` or ``"median"``; only for strategies that need no more
            than the mean. None: nothing but the checks of each update. See docs/security.md.
        run_id: identity that binds updates to this run, from 0 to 2**64 - 1; None: random.
        seed: root of the generators of stochastic codecs, from 0 to 2**64 - 1; None: random.
        limits: the server's caps on what is received.
        decay: by what clients multiply, each round, what their codecs have not sent yet; above 0,
            1 keeps all of it. See docs/journal.md.
        checkpoint: the folder in which the state of this run is kept after each round, or a
            ``Checkpoint``; ``start`` goes on from what is there. See docs/resume.md.
        carrier: how blobs travel: an ``ExchangeService`` that serves, for a connection of their own
            beside Flower's; None: in Flower's messages. Bytes and models are the same.
        deadline: seconds of a round of training; who has not answered by then is left out of it.
            None: ``timeout`` of ``start``.
        quorum: how many updates a round needs to change anything: a count, or a share of the
            clients that were asked, as a float up to 1.0. With fewer, nobody's is applied, and
            clients send that mass again.

    Attributes:
        meter: bytes sent, by round, direction, client and tensor.

    Raises:
        ConfigError: an unknown codec or parameter, a number out of range, a defence that does not
            go with the strategy or the codec, or secure aggregation.
    """

    def __init__(
        self,
        inner: Strategy,
        *,
        uplink: str | Path | Preset = "stc",
        downlink: str | Path | Preset | None = None,
        first: str | Path | Preset | None = None,
        defence: str | Defence | None = None,
        run_id: int | None = None,
        seed: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        decay: float = 1.0,
        checkpoint: str | Path | Checkpoint | None = None,
        carrier: Carriers | None = None,
        deadline: float | None = None,
        quorum: int | float = 1,
    ) -> None:
        refuse_secure_aggregation(inner)
        self.inner = inner
        self.uplink = _called(uplink)
        self.downlink = _called(downlink or uplink)
        self.meter = Meter()
        up = choose(uplink)
        down = up if downlink is None else choose(downlink)
        start = choose(first or "fp16")
        run, root = _number("run_id", run_id, bits=64), _number("seed", seed, bits=32)
        self._rates = RateControl(up, self.uplink)
        self._guard = None if defence is None else Guard(fitting(defence, inner, up, self.uplink))
        self._closing = Closing(deadline)
        self._quorum = Quorum(quorum)
        self._broadcast = Broadcast(
            run, down, start, preset("lossless"), root, keep_change=up.uses_reference
        )
        self._intake = Intake(run, limits)
        self._carriers: Carriers = MessageCarrier() if carrier is None else carrier
        self._downlink = Downlink(
            self._broadcast, self._rates, self._carriers, self.meter, root, self._intake, decay
        )
        self._left_out = LeftOut()
        self._uplink = Uplink(
            self._broadcast, self._intake, self._rates, self._downlink, self._left_out, self.meter
        )
        self._grid: Grid | None = None
        self._timeout: float | None = None
        if isinstance(checkpoint, str | Path):
            checkpoint = Checkpoint(checkpoint)
        self._checkpoint = checkpoint
        self._terms = {
            "run_id": run_id,
            "seed": seed,
            "uplink": codec_term(up),
            "downlink": codec_term(down),
            "first": codec_term(start),
            "decay": decay,
            "defence": repr(self._guard.defence) if self._guard else "none",
        }
        self._parts: dict[str, Stateful] = {
            "broadcast": self._broadcast,
            "downlink": self._downlink,
            "intake": self._intake,
            "rates": self._rates,
            "meter": self.meter,
            "left out": self._left_out,
            "generators": Generators(),
        }
        if self._guard:
            self._parts["defence"] = self._guard
        if checkpoint is not None:
            self._parts["strategy"] = InnerState(inner)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        """Run rounds as every Flower strategy does; see ``flwr.serverapp.strategy.Strategy``.

        With a checkpoint, from the first one on that is not in it.

        Raises:
            ConfigError: the checkpoint is of another run.
            StorageError: the checkpoint cannot be written, or nothing in it is what was written.
        """
        self._timeout = timeout
        self._rates.rounds = num_rounds
        train, evaluate = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        terms = settings_of(self.inner) | start_terms(initial_arrays, train, evaluate)
        progress = Progress(initial_arrays)
        log(INFO, "Starting %s strategy: %d rounds", type(self).__name__, num_rounds)
        self.summary()
        with Keeper(self._checkpoint, {**self._terms, **terms}, self._parts) as keeper:
            keeper.resume(progress)
            result = run_rounds(
                self,
                StreamingGrid(grid, self._closing.deadline),
                progress,
                num_rounds,
                timeout=timeout,
                train_config=train,
                evaluate_config=evaluate,
                evaluate_fn=evaluate_fn,
                over=keeper.commit,
            )
        log(INFO, "flowerpress: %s", self.verdicts.summary(grid.get_node_ids()))
        return result

    @property
    def rejections(self) -> list[Rejection]:
        """Who was left out of which round, and why."""
        return self._left_out.rejections

    @property
    def verdicts(self) -> Verdicts:
        """What became of each client's updates, and what they still owe."""
        return self._intake.verdicts

    @property
    def treatments(self) -> list[Treatment]:
        """What the defence made of each update; empty without one."""
        return self._guard.treatments if self._guard else []

    @property
    def plan_in_force(self) -> dict[str, str] | None:
        """The codec of each tensor of updates, or None where one preset codes them all."""
        return self._rates.plan_in_force

    def traffic(self, server_round: int) -> Mapping[int, Traffic]:
        """Return what each client moved in a round on a connection of its own; empty without."""
        return self._carriers.traffic(server_round)

    def forget(self, before: int) -> None:
        """Forget what is known of rounds before ``before`` and written down elsewhere.

        Of a run of many rounds, ``meter``, ``rejections``, ``treatments`` and traffic would
        otherwise fill the memory, and each round's checkpoint.
        """
        self.meter.forget(before)
        self._left_out.forget(before)
        self._carriers.forget(before)
        if self._guard:
            self._guard.forget(before)

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
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        refuse_masked_messages(messages)
        self._closing.begin(train=True)
        seconds = self._closing.deadline
        return self._downlink.address(server_round, messages, train=True, seconds=seconds)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the inner strategy choose clients, and give each the bytes that it lacks."""
        self._grid = grid
        messages = self.inner.configure_evaluate(server_round, arrays, config, grid)
        self._closing.begin(train=False)
        return self._downlink.address(server_round, list(messages), train=False)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Check, decode and aggregate updates; None where no client's update counted."""
        self._intake.begin()
        arrays, metrics = self._aggregate(server_round, replies)
        for node, reason in self._left_out.reasons(server_round).items():
            self._intake.verdicts.not_counted(node, reason)
        if arrays is None:
            self._intake.discard()
        else:
            self._intake.commit()
        return arrays, metrics

    def _aggregate(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stage updates and let the inner strategy make a model of them, or none."""
        aggregator, phase = self._aggregator(), self._downlink.phase

        def take(reply: Message) -> None:
            update, weight = self._uplink.receive(reply, self._weight_key)
            drop_arrays(reply.content)
            if aggregator:
                aggregator.accumulate(update, weight)
            else:
                broadcast = self._broadcast
                # A change counts from the server's model: what the downlink lost is not lost.
                model = as_model(update, broadcast.manifest, phase.model, broadcast.held)
                reply.content[phase.key] = to_record(model)
            self._intake.stage(reply.metadata.src_node_id, update.sequence)

        accepted, errors = self._uplink.collect(replies, self._ask_again, take)
        if self._guard and isinstance(aggregator, Guarded):
            nodes = [reply.metadata.src_node_id for reply in accepted]
            treatments = self._guard.settle(server_round, nodes, aggregator)
            accepted = self._uplink.treated(accepted, treatments, self._weight_key)
        taken, left_out = len(accepted), self._left_out.count(server_round)
        log(INFO, "flowerpress: %d updates taken, %d clients left out", taken, left_out)
        # What is in a sum stays there; its metrics alone are left out.
        accepted = self._uplink.alike(accepted, note=aggregator is None)
        needed = self._quorum.needed(len(phase.carriers))
        if len(accepted) < needed:
            if accepted:
                words = "flowerpress: %d updates, and %d are needed; the model stays as it is"
                log(WARNING, words, len(accepted), needed)
            return None, None
        if aggregator:
            return aggregate_mean(self.inner, server_round, phase.key, aggregator, accepted, errors)
        return self.inner.aggregate_train(server_round, [*accepted, *errors])

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pass on the replies of clients that could evaluate."""

        def take(reply: Message) -> None:
            self._uplink.acknowledge(reply)
            weight_of(reply, self._weight_key)
            drop_arrays(reply.content)

        accepted, errors = self._uplink.collect(replies, self._ask_again, take)
        accepted = self._uplink.alike(accepted, note=True)
        return self.inner.aggregate_evaluate(server_round, [*accepted, *errors])

    @property
    def _weight_key(self) -> str | None:
        """The metric by which the inner strategy weighs clients."""
        return getattr(self.inner, "weighted_by_key", None)

    def _aggregator(self) -> Aggregator | None:
        model = self._downlink.phase.model
        if not (takes_means(self.inner) and model):
            return None
        manifest = self._broadcast.manifest
        if self._guard:
            return self._guard.begin(manifest, model, self._broadcast.held)
        mean = FlowerMean if self._rates.lossless(manifest) else StreamingMean
        return mean(manifest, model, self._broadcast.held)

    def _ask_again(self, messages: list[Message]) -> Iterable[Message]:
        if self._grid is None:
            return []
        return self._grid.send_and_receive(messages, timeout=self._closing.left(self._timeout))


def _number(name: str, given: int | None, *, bits: int) -> int:
    """Return what was given, or a random number of ``bits`` bits."""
    if given is None:
        return secrets.randbits(bits)
    if not 0 <= given < 1 << 64:
        raise ConfigError(f"{name} is {given}; it must be from 0 to 2**64 - 1")
    return given


def _called(codec: str | Path | Preset) -> str:
    return str(codec) if isinstance(codec, str | Path) else type(codec).__name__
