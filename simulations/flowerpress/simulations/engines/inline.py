"""The embedded engine: every client runs in this process, when its reply is pulled.

``push_messages`` only stores instructions; pulling one reply runs exactly one client. So the
memory for replies is what the caller holds, however many clients there are, and the order of
events is the order of the pulls: nothing depends on threads or timing.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from flowerpress.simulations.engines.grid import LocalGrid, answer, node_context

__all__ = ["InlineGrid"]


class InlineGrid(LocalGrid):
    """Flower's grid over one ``ClientApp`` in this process.

    Each node has one ``Context``, kept for as long as the grid.
    """

    def __init__(self, app: ClientApp, clients: int, run_id: int = 1) -> None:
        super().__init__(clients, run_id)
        self._app = app
        self._waiting: dict[str, Message] = {}
        self._contexts: dict[int, Context] = {}

    def _accept(self, message: Message) -> None:
        self._waiting[message.metadata.message_id] = message

    def _reply(self, message_id: str, patience: float | None) -> Message | None:
        message = self._waiting.pop(message_id)
        node_id = message.metadata.dst_node_id
        context = self._contexts.get(node_id)
        if context is None:
            context = node_context(node_id, len(self._node_ids), self._run.run_id)
            self._contexts[node_id] = context
        return answer(self._app, message, context)
