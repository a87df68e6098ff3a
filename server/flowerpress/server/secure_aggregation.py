"""Secure aggregation and compression exclude each other: said before a run and not in its middle.

Flower's SecAgg and SecAgg+ (``flwr.server.workflow``, ``secaggplus_mod``) add masks to vectors that
cancel in their sum. That needs the same numbers at the same positions from every client, as
integers modulo a number that all share. A compressed update has positions, steps and a length of
its own, and the server has to decode it before it can add it: there would be nothing to mask, or
nothing to decode.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message

from flowerpress.compression import ConfigError

__all__ = ["REFUSAL", "refuse_masked_messages", "refuse_secure_aggregation"]

REFUSAL = (
    "secure aggregation cannot be combined with compressed updates: masks cancel only in a sum of "
    "vectors with the same positions, and what a client sends here has positions and steps of its "
    "own; use either plain Flower with its SecAgg+ workflow, or flowerpress with TLS and node keys"
)

# By name: importing Flower's workflows would load its older API for nothing.
_WORKFLOWS = frozenset({"SecAggWorkflow", "SecAggPlusWorkflow"})
_CONFIGS = "secaggplus_configs"  # flwr.common.secure_aggregation.secaggplus_constants


def refuse_secure_aggregation(inner: object) -> None:
    """Refuse to wrap a secure aggregation workflow, or something that runs its rounds with one.

    Raises:
        ConfigError: with the reason.
    """
    for part in (inner, *getattr(inner, "__dict__", {}).values()):
        if any(cls.__name__ in _WORKFLOWS for cls in type(part).__mro__):
            raise ConfigError(REFUSAL)


def refuse_masked_messages(messages: Iterable[Message]) -> None:
    """Refuse messages of a strategy that asks clients for masked vectors.

    Raises:
        ConfigError: with the reason.
    """
    if any(_CONFIGS in message.content.config_records for message in messages):
        raise ConfigError(REFUSAL)
