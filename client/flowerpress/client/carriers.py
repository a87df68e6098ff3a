"""Which carrier a server asks for, and how this device takes part in it."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from flowerpress.compression import ConfigError
from flowerpress.protos import Carrier, Instruction, MessageCarrier
from flowerpress.protos.carrier import EXCHANGE

__all__ = ["carrier_for"]

_ROOT = "exchange-root-certificates"


def carrier_for(instruction: Instruction, context: Context) -> Carrier:
    """Return the carrier of an instruction.

    A server whose exchange has a certificate of an authority that devices know sends none; then
    ``exchange-root-certificates`` of the node's configuration is the path of the authority's PEM.

    Raises:
        ConfigError: the server asks for a carrier that does not exist, or the file cannot be read.
        WireError: the instruction lacks what the carrier needs.
    """
    if instruction.carrier == MessageCarrier.name:
        return MessageCarrier()
    if instruction.carrier != EXCHANGE:
        raise ConfigError(
            f"the server sends over the carrier {instruction.carrier[:32]!r}, "
            f"this client knows {MessageCarrier.name}, {EXCHANGE}; upgrade flowerpress here"
        )
    # gRPC is loaded by devices that use it.
    from flowerpress.client.exchange.carrier import ExchangeCarrier

    path = context.node_config.get(_ROOT)
    try:
        root = None if path is None else Path(str(path)).read_bytes()
    except OSError as error:
        raise ConfigError(f"{_ROOT} of this node cannot be read: {error}") from error
    return ExchangeCarrier(instruction, root)
