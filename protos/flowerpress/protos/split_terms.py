"""What a client must know to join a round of split training, in the message that asks for it.

One ``ConfigRecord`` in Flower's own, authenticated channel: where the split service is and the
token that opens it. Features and gradients then cross on a connection of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from flowerpress.compression import FormatError

__all__ = ["SPLIT_RECORD", "SplitTerms"]

SPLIT_RECORD = "flowerpress.split"
_LONGEST = {"address": 512, "token": 64, "certificate": 1 << 16, "run": 8}


@dataclass(frozen=True)
class SplitTerms:
    """Where and how a client joins a round.

    ``address`` is ``host:port``; ``run`` identifies the run (8 bytes), ``client`` this client;
    ``token`` admits to this round alone; ``certificate`` is the PEM text of the authority that the
    service's certificate is checked with (empty: no TLS); ``patience`` is how many seconds a
    client waits for an answer before it gives up.
    """

    address: str
    run: bytes
    round: int
    client: int
    token: bytes
    certificate: bytes
    patience: float
    seed: int

    def write(self, content: RecordDict) -> None:
        """Put the terms into the content of a message."""
        # Flower's integers have a sign.
        numbers = {name: getattr(self, name).to_bytes(8, "big") for name in ("client", "seed")}
        content[SPLIT_RECORD] = ConfigRecord({**vars(self), **numbers})

    @classmethod
    def read(cls, content: RecordDict) -> SplitTerms | None:
        """Return the terms in ``content``, or None where the server does not split.

        Raises:
            FormatError: a field is missing or has a value that no server writes.
        """
        record = content.config_records.get(SPLIT_RECORD)
        if record is None:
            return None
        values: dict[str, Any] = dict(record)
        kinds = {
            "address": str,
            "run": bytes,
            "round": int,
            "client": bytes,
            "token": bytes,
            "certificate": bytes,
            "patience": float,
            "seed": bytes,
        }
        for name, kind in kinds.items():
            value = values.get(name)
            if type(value) is not kind:
                raise FormatError(f"{SPLIT_RECORD}.{name}", f"is not {kind.__name__}")
            if isinstance(value, str | bytes) and len(value) > _LONGEST.get(name, 8):
                raise FormatError(f"{SPLIT_RECORD}.{name}", "is too long")
        if values["round"] < 0 or not (isfinite(values["patience"]) and values["patience"] > 0):
            raise FormatError(SPLIT_RECORD, "has a round or a patience that no server sends")
        for name in ("client", "seed"):
            values[name] = int.from_bytes(values[name], "big")
        return cls(**{name: values[name] for name in kinds})
