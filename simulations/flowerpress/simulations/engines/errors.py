"""What can go wrong in an engine, as opposed to in a client or in a message."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from flowerpress.compression.errors import FlowerpressError

__all__ = ["EngineError", "StoppedError"]


class EngineError(FlowerpressError):
    """A simulation engine cannot go on: a process died, or Flower's own run failed."""


class StoppedError(EngineError):
    """The user stopped a run (Ctrl-C). ``folder`` has the rounds that were finished by then.

    ``can_go_on`` says whether it kept what it needs to go on.
    """

    def __init__(self, folder: Path, *, can_go_on: bool = False) -> None:
        self.folder = folder
        words = f"stopped; the rounds until then are in {folder / 'rounds.jsonl'}"
        if can_go_on:
            words += f"; it goes on with: flowerpress simulate --resume --out {quote(str(folder))}"
        super().__init__(words)
