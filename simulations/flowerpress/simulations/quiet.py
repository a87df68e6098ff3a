"""Keeps Flower's own log from the terminal, where the display of a run says the same better."""

from __future__ import annotations

import logging

__all__ = ["hush_flower"]


def hush_flower() -> None:
    """Let only errors of Flower's logger through, for the rest of this process.

    A filter, not a level: Flower sets the level when it is imported, which may come later.
    """
    logger = logging.getLogger("flwr")
    if _only_errors not in logger.filters:
        logger.addFilter(_only_errors)


def _only_errors(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
