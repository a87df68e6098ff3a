"""A defence at work: aggregators built around each other, round by round, and what they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any

from numpy.typing import NDArray

from flowerpress.compression import Manifest
from flowerpress.protos.store import Snapshot
from flowerpress.server.aggregate import Aggregator, StreamingMean
from flowerpress.server.defences.base import Claim, Treatment
from flowerpress.server.defences.clipping import Clipped
from flowerpress.server.defences.examples import Capped
from flowerpress.server.defences.named import Defence
from flowerpress.server.defences.robust import TrimmedMean
from flowerpress.server.defences.updates import as_change
from flowerpress.server.defences.waiting import Waiting
from flowerpress.server.intake import Received
from flowerpress.server.snapshots import as_blob, from_blob

__all__ = ["Guard", "Guarded"]

Arrays = Mapping[str, NDArray[Any]]


class Guarded:
    """The aggregator of one round: a cap around clipping around the mean, as far as asked for.

    Updates are taken as they come, in the memory of one model, where all bounds are known before
    the round. Otherwise, and for trimmed means and medians, they wait on disk.

    Args:
        defence: what is asked for.
        manifest: the model's tensors.
        model: the server's model.
        held: the model that clients trained from.
        bound: on norms, from earlier rounds; None: there were none.

    Attributes:
        bound: the one that was used, once there is a result.
    """

    def __init__(
        self, defence: Defence, manifest: Manifest, model: Arrays, held: Arrays, bound: float | None
    ) -> None:
        self.bound = bound
        self._defence = defence
        self._manifest = manifest
        self._held = held
        self._taken: list[tuple[int, float]] = []
        self._model: dict[str, NDArray[Any]] | None = None
        self._capped: Capped | None = None
        self._clipped: Clipped | None = None
        self._trimmed: TrimmedMean | None = None
        self._mean: Aggregator
        if defence.centre:
            self._mean = self._trimmed = TrimmedMean(manifest, model, defence.centre)
        else:
            self._mean = StreamingMean(manifest, model, held)
        examples, clip = defence.examples, defence.clip
        waits = (examples and examples.most is None) or (clip and bound is None)
        self._outer = Waiting(self._chain, manifest) if waits else self._chain(())

    def accumulate(self, update: Received, weight: float) -> None:
        """Take one update."""
        self._outer.accumulate(as_change(update, self._manifest, self._held), weight)
        self._taken.append((update.sequence, weight))

    def result(self) -> dict[str, NDArray[Any]]:
        """Return the model.

        Raises:
            ZeroDivisionError: there was no update, or none that was not left out.
        """
        if self._model is None:
            self._model = self._outer.result()
        return self._model

    @property
    def norms(self) -> list[float]:
        """Of all changes, in the order in which they came; empty without clipping."""
        return self._clipped.norms if self._clipped else []

    def treatments(self, server_round: int, nodes: Sequence[int]) -> list[Treatment]:
        """Return what became of each update, once there is a result; ``nodes`` in their order."""
        taken, ones = self._taken, [1.0] * len(self._taken)
        factors = self._clipped.factors if self._clipped else ones
        masses = self._clipped.masses if self._clipped else [0.0] * len(taken)
        counted = self._capped.counted if self._capped else [weight for _, weight in taken]
        # Those that were rejected did not get as far as the trimmed mean.
        shares = iter(self._trimmed.shares if self._trimmed else ones)
        return [
            Treatment(
                round=server_round,
                node=node,
                sequence=sequence,
                factor=factor,
                claimed=claimed,
                counted=weight if factor else 0.0,
                mass=mass,
                share=next(shares, 0.0) if factor else 0.0,
            )
            for node, (sequence, claimed), factor, weight, mass in zip(
                nodes, taken, factors, counted, masses, strict=True
            )
        ]

    def _chain(self, claims: Sequence[Claim]) -> Aggregator:
        chain, clip = self._mean, self._defence.clip
        if clip:
            if self.bound is None:
                self.bound = clip.first(claims)
            chain = self._clipped = Clipped(chain, self._manifest, self.bound, clip.zero)
        if self._defence.examples:
            chain = self._capped = Capped(chain, self._defence.examples.cap(claims))
        return chain


class Guard:
    """A defence over the rounds of a run.

    Attributes:
        defence: what was asked for.
        treatments: what became of each update, in the order in which they came.
    """

    def __init__(self, defence: Defence) -> None:
        self.treatments: list[Treatment] = []
        self.defence = defence
        self._bound: float | None = None

    def begin(self, manifest: Manifest, model: Arrays, held: Arrays) -> Guarded:
        """Return the aggregator of the next round."""
        return Guarded(self.defence, manifest, model, held, self._bound)

    def settle(self, server_round: int, nodes: Sequence[int], guarded: Guarded) -> list[Treatment]:
        """End a round: aggregate, note what became of whom, and move the bound.

        Args:
            server_round: its number.
            nodes: whose updates ``guarded`` took, in that order.
            guarded: the round's aggregator.

        Returns:
            What became of each, in the same order.
        """
        with suppress(ZeroDivisionError):  # everybody was rejected, or nobody came
            guarded.result()
        if self.defence.clip and guarded.bound is not None:
            self._bound = self.defence.clip.follow(guarded.bound, guarded.norms)
        done = guarded.treatments(server_round, nodes)
        self.treatments += done
        return done

    def forget(self, before: int) -> None:
        """Forget what became of updates in rounds before ``before``."""
        self.treatments = [each for each in self.treatments if each.round >= before]

    def state(self) -> Snapshot:
        """Return the bound and what was done so far."""
        done = [list(astuple(treatment)) for treatment in self.treatments]
        return Snapshot({"bound": self._bound}, blobs={"treatments": as_blob(done)})

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what ``state()`` returned."""
        self._bound = snapshot.facts["bound"]
        done = from_blob(snapshot.blobs["treatments"])
        self.treatments = [Treatment(*each) for each in done]
