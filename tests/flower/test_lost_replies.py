"""Where a node is gone, Flower's SuperLink answers in its own name: whose reply it was is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp.strategy import FedAvg, Result

from flowerpress.client import press
from flowerpress.server import Pressed, Rejection
from flowerpress.simulations.engines.grid import FIRST_NODE
from flowerpress.simulations.engines.inline import InlineGrid

Start = Callable[..., Result]
ThirdParty = Callable[[list[Mod]], ClientApp]

GONE = FIRST_NODE + 1
REASON = "Error: Node Unavailable"


class Patchy(InlineGrid):
    """A grid on which ``GONE`` does not answer the messages with these numbers, sent to it."""

    def __init__(self, app: ClientApp, lost: set[int]) -> None:
        super().__init__(app, clients=4)
        self.lost = lost
        self.sent = 0
        self.gone: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            (message_id,) = super().push_messages([message])
            ids.append(message_id)
            if message.metadata.dst_node_id == GONE:
                self.sent += 1
                if self.sent in self.lost:
                    self.gone.add(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for reply in super().pull_messages(message_ids):
            if reply.metadata.message_id.removeprefix("reply-") not in self.gone:
                yield reply
                continue
            lost = Message(Error(ErrorCode.NODE_UNAVAILABLE, REASON), reply_to=reply)
            # As in flwr.server.superlink.linkstate.utils.create_message_error_unavailable_*.
            lost.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
            yield lost


def test_a_node_that_is_gone_is_named_once_and_may_come_back(
    start: Start, third_party: ThirdParty
) -> None:
    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="stc", downlink="int8")
    grid = Patchy(third_party([press()]), lost={2})
    start(strategy, rounds=4, grid=grid)
    assert strategy.rejections == [Rejection(2, GONE, "NoReply", "", REASON)]
    for number in (1, 3, 4):
        assert GONE in strategy.meter.of(number).uplink.by_client
    assert GONE not in strategy.meter.of(2).uplink.by_client


def test_a_node_that_is_gone_after_it_asked_for_a_model_is_named_too(
    start: Start, third_party: ThirdParty
) -> None:
    asked: list[int] = []

    def forget(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if context.node_id == GONE:
            asked.append(int(str(message.content.config_records["config"]["server-round"])))
            if asked == [1, 2]:
                context.state = RecordDict()
        return call_next(message, context)

    strategy = Pressed(FedAvg(fraction_evaluate=0.0), uplink="stc", downlink="int8")
    grid = Patchy(third_party([forget, press()]), lost={3})
    start(strategy, rounds=3, grid=grid)
    assert asked == [1, 2, 2, 3]
    assert strategy.rejections == [Rejection(2, GONE, "NoReply", "", REASON)]
    assert GONE in strategy.meter.of(3).uplink.by_client
