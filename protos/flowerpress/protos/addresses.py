"""How an address is written: ``host:port``."""

from __future__ import annotations

from flowerpress.compression import ConfigError

__all__ = ["split_address"]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ConfigError: not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{address!r} is not an address; write host:port, as in 127.0.0.1:8000")
    return host.removeprefix("[").removesuffix("]"), int(port)
