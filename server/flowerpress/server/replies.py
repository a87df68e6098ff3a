"""Replies as Flower's strategies want them: alike, without foreign arrays, or one for all."""

from __future__ import annotations

from collections import Counter
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from flowerpress.compression import WireError
from flowerpress.protos import RECORD, Receipt, Status, to_record

__all__ = ["drop_arrays", "lost_its_model", "odd_ones", "one_reply"]


def lost_its_model(reply: Message) -> bool:
    """Return whether the client says that it lacks the model that it was thought to hold."""
    if not reply.has_content():
        return False
    try:
        return Receipt.read(reply.content).status is Status.NEED_MODEL
    except WireError:
        return False


def drop_arrays(content: RecordDict) -> None:
    """Leave the app's own records but for arrays, which only a decoded update may bring in.

    In place: Flower's records refer to themselves, and one that is replaced keeps its arrays in
    memory until the garbage collector comes by.
    """
    for key in [k for k, v in content.items() if k == RECORD or isinstance(v, ArrayRecord)]:
        del content[key]


def odd_ones(replies: list[Message]) -> set[int]:
    """Return the nodes whose metrics have other names than most.

    Flower ends the whole run over one client with other metrics.
    """
    shapes = {reply.metadata.src_node_id: _metric_names(reply) for reply in replies}
    if len(set(shapes.values())) <= 1:
        return set()
    common = Counter(shapes.values()).most_common(1)[0][0]
    return {node for node, shape in shapes.items() if shape != common}


def _metric_names(reply: Message) -> tuple[Any, ...]:
    return tuple(
        (key, name, len(value) if isinstance(value, list) else None)
        for key, record in sorted(reply.content.metric_records.items())
        for name, value in sorted(record.items())
    )


def one_reply(
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
