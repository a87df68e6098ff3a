"""What became of each client's updates: what the next instruction says, and what was dropped.

Mass is the sum of absolute values of what an update's floating-point tensors decode to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from flowerpress.compression.mass import LARGEST_MASS
from flowerpress.protos import UNDECIDED, Outcome, Receipt, Verdict

__all__ = ["Account", "Verdicts"]


@dataclass
class Account:
    """One client's updates.

    Attributes:
        applied: how many are in the model, clipped ones too.
        sequence: the number of the last one of those.
        dropped: mass that the server clipped or rejected.
        dropped_updates: of how many.
        owed: mass of the client's residual, as its last receipt says.
        orphaned: mass that the client gave up, since nobody can tell whether it was applied.
        last_round: in which it answered last.
    """

    applied: int = 0
    sequence: int = 0
    dropped: float = 0.0
    dropped_updates: int = 0
    owed: float = 0.0
    orphaned: float = 0.0
    last_round: int = 0


class Verdicts:
    """The accounts of all clients of a run, and the last verdict on each.

    Attributes:
        accounts: by node.
    """

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}
        self._last: dict[int, Verdict] = {}

    def of(self, client: int) -> Verdict:
        """Return the verdict on the client's last update."""
        return self._last.get(client, UNDECIDED)

    def give(self, client: int, sequence: int, verdict: Verdict, mass: float = 0.0) -> None:
        """Note what became of an update for good: the model that holds it, or not, was taken.

        Args:
            client: the node.
            sequence: the update's number.
            verdict: on it.
            mass: of the whole update; needed where a part of it was dropped.
        """
        self._last[client] = verdict
        account = self.accounts.setdefault(client, Account())
        if verdict.outcome in (Outcome.APPLIED, Outcome.CLIPPED):
            account.applied += 1
            account.sequence = sequence
        if verdict.lost:
            account.dropped += verdict.lost * min(mass, LARGEST_MASS)
            account.dropped_updates += 1

    def not_counted(self, client: int, reason: str) -> None:
        """Note that an update did not count, if there was one, and will be sent again.

        A verdict that costs something stays: the client may not have heard it yet. That an update
        after it did not count, the watermark says.
        """
        if not self.of(client).lost:
            self._last[client] = Verdict(Outcome.NOT_COUNTED, reason=reason)

    def note(self, client: int, receipt: Receipt, server_round: int) -> None:
        """Note what a client says of its own books."""
        account = self.accounts.setdefault(client, Account())
        account.owed = min(receipt.owed, LARGEST_MASS)
        account.orphaned = min(receipt.orphaned, LARGEST_MASS)
        account.last_round = server_round

    def orphaned(self, present: Iterable[int]) -> float:
        """Return the mass that nobody will send: given up by clients, or owed by absent ones.

        An upper bound: a device that came back as another node has its residual with it.

        Args:
            present: the nodes that can still be asked.
        """
        here = set(present)
        return sum(
            account.orphaned + (0.0 if client in here else account.owed)
            for client, account in self.accounts.items()
        )

    @property
    def owed(self) -> float:
        """Mass that clients hold back in their residuals, as their last receipts say."""
        return sum(account.owed for account in self.accounts.values())

    @property
    def dropped(self) -> float:
        """Mass that was clipped or rejected in the whole run."""
        return sum(account.dropped for account in self.accounts.values())

    def summary(self, present: Iterable[int]) -> str:
        """Return the run's books in a line.

        Args:
            present: the nodes that can still be asked.
        """
        applied = sum(account.applied for account in self.accounts.values())
        return (
            f"{applied} updates in the model; mass {self.dropped:.4g} dropped on purpose, "
            f"{self.orphaned(present):.4g} orphaned, {self.owed:.4g} in residuals"
        )

    def facts(self) -> dict[str, Any]:
        """Return what ``restore`` takes, as JSON can say it."""
        last = {str(client): [*asdict(verdict).values()] for client, verdict in self._last.items()}
        accounts = {str(client): asdict(account) for client, account in self.accounts.items()}
        return {"last": last, "accounts": accounts}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from ``facts``."""
        self._last = {
            int(client): Verdict(Outcome(outcome), factor, reason)
            for client, (outcome, factor, reason) in facts["last"].items()
        }
        self.accounts = {int(c): Account(**account) for c, account in facts["accounts"].items()}
