"""Small files that commands read as they are: tokens, keys, certificates."""

from __future__ import annotations

from pathlib import Path

__all__ = ["read_secret"]

_LARGEST = 1 << 20


def read_secret(path: Path) -> bytes:
    """Return what a file holds, without the end of its last line.

    Raises:
        ConfigError: it cannot be read, is empty, or too long for what it should be.
    """
    from flowerpress.compression import ConfigError

    try:
        with path.open("rb") as file:
            body = file.read(_LARGEST + 1).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not body or len(body) > _LARGEST:
        raise ConfigError(f"{path}: is empty, or longer than {_LARGEST} bytes")
    return body
