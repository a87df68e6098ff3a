"""What comes back from clients: receipts checked, updates decoded, and who must be asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from flwr.app import Message

from flowerpress.compression import WireError
from flowerpress.protos import APPLIED, Receipt, Status
from flowerpress.server.broadcast import Broadcast
from flowerpress.server.defences import Treatment
from flowerpress.server.downlink import Downlink
from flowerpress.server.intake import ClientRefusedError, Intake, Received, weight_of
from flowerpress.server.left_out import LeftOut
from flowerpress.server.meter import Meter
from flowerpress.server.rates import RateControl
from flowerpress.server.replies import lost_its_model, odd_ones

__all__ = ["Uplink"]


class Uplink:
    """Reads the replies of the phase under way.

    Args:
        broadcast: the versions of the model that clients hold.
        intake: the checks of updates.
        rates: is told what clients measured and hold.
        downlink: what was sent, and to whom.
        left_out: where failures are noted.
        meter: counts what arrives.
    """

    def __init__(
        self,
        broadcast: Broadcast,
        intake: Intake,
        rates: RateControl,
        downlink: Downlink,
        left_out: LeftOut,
        meter: Meter,
    ) -> None:
        self._broadcast = broadcast
        self._intake = intake
        self._rates = rates
        self._downlink = downlink
        self._left_out = left_out
        self._meter = meter

    def collect(
        self,
        replies: Iterable[Message],
        ask: Callable[[list[Message]], Iterable[Message]],
        take: Callable[[Message], None],
    ) -> tuple[list[Message], list[Message]]:
        """Read the replies of the phase under way, one after the other, and end it.

        A client that lost its copy of the model is sent a whole one, once. Whoever cannot be
        taken, or says nothing in time, is left out.

        Args:
            replies: as they come.
            ask: sends messages and returns the replies to them.
            take: reads one reply; raises WireError where it does not pass.

        Returns:
            The replies that were taken, and those that bring an error instead.
        """
        accepted, errors = [], []
        for reply in self._answers(replies, ask):
            if reply.has_error():
                self._left_out.failed(self._downlink.phase.number, reply)
                errors.append(reply)
                continue
            try:
                take(reply)
            except WireError as error:
                number = self._downlink.phase.number
                self._left_out.refuse(number, reply.metadata.src_node_id, error)
                continue
            accepted.append(reply)
        self._downlink.finish()
        self._left_out.silent(self._downlink.phase.number, self._downlink.phase.messages)
        return accepted, errors

    def receive(self, reply: Message, weight_key: str | None) -> tuple[Received, float]:
        """Return the decoded update of a reply and its weight.

        Whatever was sent is metered, also if it does not count in the end.

        Raises:
            WireError: what a reply must pass, it did not; nothing of it counts.
        """
        node, phase = reply.metadata.src_node_id, self._downlink.phase
        manifest = self._broadcast.manifest
        receipt = self._check(reply)
        key = next(iter(reply.content.array_records), phase.key)
        carrier = phase.carriers[node]
        blob = self._intake.blob(carrier, reply, key, receipt.claim, manifest)
        meter = self._meter.of(phase.number).uplink
        # What a client measured is sent beside its update, and is paid for like that.
        meter.record(node, len(blob) + len(receipt.points), manifest.nbytes, {})
        self._rates.note(node, receipt)
        weight = weight_of(reply, weight_key)
        update = self._intake.open(blob, node, phase.number, self._broadcast.digest, manifest)
        received = self._intake.decode(update, manifest, self._broadcast.change)
        meter.attribute(node, {manifest.specs[f.tensor].name: len(f.body) for f in update.frames})
        return received, weight

    def acknowledge(self, reply: Message) -> None:
        """Note what a client holds that sent no update.

        Raises:
            WireError: what it says went wrong.
        """
        self._rates.note(reply.metadata.src_node_id, self._check(reply))

    def treated(
        self, replies: list[Message], treatments: Sequence[Treatment], weight_key: str | None
    ) -> list[Message]:
        """Return the replies that a defence did not reject, with the weights that it gave them.

        Args:
            replies: those whose updates are staged.
            treatments: of these replies, in their order.
            weight_key: of the metric that holds a reply's weight.
        """
        kept = []
        for reply, done in zip(replies, treatments, strict=True):
            if done.verdict is not APPLIED:
                self._intake.stage(done.node, done.sequence, done.verdict, done.mass)
            if done.rejected:
                number, words = self._downlink.phase.number, done.verdict.reason
                self._left_out.note(number, done.node, "Outlier", "update", words)
                continue
            if weight_key is not None and done.counted != done.claimed:
                (metrics,) = reply.content.metric_records.values()
                metrics[weight_key] = done.counted
            kept.append(reply)
        return kept

    def alike(self, replies: list[Message], *, note: bool) -> list[Message]:
        """Return the replies whose metrics have the most common names; ``note`` the others."""
        odd = odd_ones(replies)
        for node in odd if note else ():
            words = "other metrics than most clients"
            self._left_out.note(self._downlink.phase.number, node, "FormatError", "metrics", words)
            self._intake.unstage(node)
        return [reply for reply in replies if reply.metadata.src_node_id not in odd]

    def _answers(
        self, replies: Iterable[Message], ask: Callable[[list[Message]], Iterable[Message]]
    ) -> Iterator[Message]:
        """Yield replies, and in place of a lost model's the one to the message with a whole one."""
        phase, again = self._downlink.phase, []
        for reply in replies:
            asked = phase.messages.pop(reply.metadata.src_node_id, None)
            if asked is not None and lost_its_model(reply):
                again.append(self._downlink.send_whole(asked))
            else:
                yield reply
        for reply in ask(again) if again else ():
            phase.messages.pop(reply.metadata.src_node_id, None)
            yield reply

    def _check(self, reply: Message) -> Receipt:
        """Note the version that the client holds; raise what it says went wrong."""
        node, versions = reply.metadata.src_node_id, self._downlink.versions
        receipt = Receipt.read(reply.content)
        self._intake.verdicts.note(node, receipt, self._downlink.phase.number)
        if receipt.version == self._broadcast.version and receipt.digest == self._broadcast.digest:
            versions[node] = receipt.version
        elif receipt.status is not Status.OK:
            # What it holds may not be what it was thought to hold: a whole model next time.
            versions.pop(node, None)
        if receipt.status is Status.NEED_MODEL:
            raise ClientRefusedError(
                receipt.status.name, "", "holds no model, although it was sent a whole one"
            )
        if receipt.status is not Status.OK:
            raise ClientRefusedError(
                receipt.error or receipt.status.name, receipt.field, receipt.message
            )
        return receipt
