"""All that a tuning folder holds, read for its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.simulations.comparison.folder import runs_in
from flowerpress.simulations.record import Run
from flowerpress.simulations.tuning.folder import TuningFolder
from flowerpress.simulations.tuning.front import FrontPoint, front, read_csv
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.solving import Predicted, predicted

__all__ = ["Tuning", "gathered"]

T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """What a report shows; None and empty for what was not done yet.

    ``sensitivity``: whose weights the plan was solved with. ``verified``: the runs' common budget,
    in words. ``notes``: files that could not be read.
    """

    profile: Profile | None = None
    plan: RatePlan | None = None
    front: Sequence[FrontPoint] = ()
    runs: Sequence[Run] = ()
    sensitivity: str = "none"
    verified: str = ""
    commands: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    def expected(self) -> Predicted | None:
        """Return what the plan is expected to take and lose; None without profile or plan."""
        if self.profile is None or self.plan is None:
            return None
        return predicted(self.profile, self.plan, self.sensitivity)


def gathered(folder: TuningFolder) -> Tuning:
    """Read all parts of a folder; one that cannot be read becomes a note.

    A plan and a front are only shown beside the profile of the same model.
    """
    notes: list[str] = []

    def part(name: str, read: Callable[[Path], T]) -> T | None:
        path = folder.path(name)
        if path is None:
            return None
        try:
            return read(path)
        except ConfigError as error:
            notes.append(str(error))
            return None

    profile: Profile | None = part("profile", Profile.read)
    plan: RatePlan | None = part("plan", RatePlan.read)
    if profile and plan and plan.manifest != profile.manifest.digest.hex():
        notes.append("the plan is for another model than the profile, and is left out here")
        plan = None
    of_curve = folder.settings.get("curve", "none")
    sensitivity = of_curve if plan is None else folder.settings.get("sensitivity", "none")
    if profile is None or sensitivity not in profile.measured():
        sensitivity = "none"
    points: list[FrontPoint] = part("curve", read_csv) or []
    # A plan belongs on the front of its own weights.
    if profile is not None and plan is not None and (not points or sensitivity != of_curve):
        points = front(profile, sensitivity=sensitivity)
    return Tuning(
        profile=profile,
        plan=plan,
        front=points,
        runs=part("verify", runs_in) or [],
        sensitivity=sensitivity,
        verified=folder.settings.get("verified", ""),
        commands=folder.commands,
        notes=tuple(notes),
    )
