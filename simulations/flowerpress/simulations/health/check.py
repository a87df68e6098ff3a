"""What a check is, and how one that breaks is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

__all__ = ["FREE_BYTES", "INSTALL", "Check", "Status", "tried"]

FREE_BYTES = 1 << 30
INSTALL = "pip install 'flowerpress[simulation]' -c constraints.txt"


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found."""

    status: Status
    subject: str
    finding: str


def tried(subject: str, check: Callable[[], Check]) -> Iterator[Check]:
    """Whatever a broken installation raises is a finding, not the end of the checks."""
    try:
        yield check()
    except Exception as error:  # noqa: BLE001
        finding = f"{type(error).__name__}: {error}; reinstall: {INSTALL}"
        yield Check(Status.FAILED, subject, finding)
