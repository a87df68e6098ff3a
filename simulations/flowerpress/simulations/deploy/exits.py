"""Exit codes of ``flowerpress server`` and ``flowerpress client``, for people and supervisors.

Those from 64 up are BSD's ``sysexits``, which systemd and others know by name.
"""

from __future__ import annotations

from enum import IntEnum

from flowerpress.compression.errors import FlowerpressError

__all__ = ["DeploymentError", "Exit"]


class Exit(IntEnum):
    """How a command of a deployment ended."""

    OK = 0
    """The run is finished; a client was asked to stop (SIGTERM)."""
    CONFIGURATION = 2
    """An option or a file cannot be used: starting again does not help."""
    UNAVAILABLE = 69
    """Nobody answers at the server's address, for longer than ``--patience``."""
    FAILED = 70
    """The run itself failed; its log says why."""
    TEMPORARY = 75
    """A process of Flower's ended without need: starting again may help."""
    REFUSED = 77
    """A certificate or a key is not accepted; the message says which and what to do."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """A server was stopped (SIGTERM) before its run was finished."""


class DeploymentError(FlowerpressError):
    """A server or a device cannot go on; ``code`` is what the command ends with."""

    def __init__(self, code: Exit, message: str) -> None:
        self.code = code
        super().__init__(message)
