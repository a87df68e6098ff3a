"""Signals that a command handles, for as long as it runs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

from click import get_current_context

__all__ = ["handle"]


def handle(number: signal.Signals, handler: Callable[..., None]) -> None:
    """Let ``handler`` take a signal until the command under way ends."""
    before = signal.signal(number, handler)
    get_current_context().call_on_close(partial(signal.signal, number, before))
