"""The file that a profile is: what was measured on one model's updates, for any later budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression import Manifest
from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.compression.rates.points import Points
from flowerpress.simulations.tuning.parts import Part, parts_named
from flowerpress.simulations.tuning.weights import normalised, slopes

__all__ = ["SENSITIVITIES", "Interaction", "Profile"]

SENSITIVITIES = ("none", "fisher", "loss")

_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Interaction:
    """Several tensors compressed at once: the loss change, and the sum of those of each alone."""

    tensors: tuple[str, ...]
    together: float
    apart: float


@dataclass(frozen=True, eq=False)
class Profile:
    """What was measured; T parts (floating-point tensors or blocks of their rows), S settings.

    Attributes:
        manifest: the whole model, tensors of integers included.
        points: by part, bytes and squared error of every setting, means over ``clients`` updates.
        menu: what the menu was called.
        fisher: (T,) mean squared gradient of an element; NaN for what is no parameter. Or None.
        loss_changes, loss_errors: (T, K) change of the loss, and the squared error that made it;
            NaN where it was not measured. Or None.
        interactions: how far the changes add up.
        class_weights: weight by class, of those that were given one.
        facts: counts and seconds by name, such as how many examples were used.
        skipped: what the time was too short for, in words.
        config: the configuration that clients were trained with.
    """

    manifest: Manifest
    points: Points
    menu: str
    fisher: NDArray[np.float64] | None = None
    loss_changes: NDArray[np.float64] | None = None
    loss_errors: NDArray[np.float64] | None = None
    interactions: tuple[Interaction, ...] = ()
    class_weights: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        self.parts  # noqa: B018 - refuses names that are not the model's

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What was measured by itself, in the order of ``points``."""
        return parts_named(self.manifest, self.points.names)

    @property
    def sizes(self) -> dict[str, int]:
        """Elements of each floating-point tensor."""
        return {spec.name: spec.size for spec in self.manifest.specs if spec.is_float}

    @property
    def energies(self) -> dict[str, float]:
        """Squared norm of each floating-point tensor's update."""
        return self._summed(self.points.energies)

    def by_tensor(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Return weights of parts (T,) as weights of tensors: the mean over blocks, by energy."""
        energies = self.energies
        own = self._summed(weights * self.points.energies)
        plain, counts = self._summed(weights), self._summed(np.ones(len(weights)))
        return {
            name: own[name] / energy if energy > 0 else plain[name] / counts[name]
            for name, energy in energies.items()
        }

    def _summed(self, values: NDArray[np.float64]) -> dict[str, float]:
        total: dict[str, float] = {}
        for part, value in zip(self.parts, values, strict=True):
            total[part.tensor] = total.get(part.tensor, 0.0) + float(value)
        return total

    def measured(self) -> tuple[str, ...]:
        """Return the sensitivities that can be asked for: of ``SENSITIVITIES``, "none" first."""
        have = {"fisher": self.fisher is not None, "loss": self.loss_changes is not None}
        return tuple(name for name in SENSITIVITIES if have.get(name, True))

    def weights(self, sensitivity: str) -> NDArray[np.float64]:
        """Return the weight of each part's squared error, (T,); ones for "none".

        Raises:
            UnknownNameError: no such sensitivity.
            ConfigError: one that was not measured.
        """
        if sensitivity not in SENSITIVITIES:
            raise UnknownNameError("sensitivity", sensitivity, SENSITIVITIES)
        if sensitivity not in self.measured():
            raise ConfigError(
                f"sensitivity {sensitivity!r} was not measured; this profile has "
                f"{', '.join(self.measured())}"
            )
        if sensitivity == "fisher" and self.fisher is not None:
            return normalised(self.fisher, self.points.energies)
        if self.loss_changes is not None and self.loss_errors is not None and sensitivity == "loss":
            return normalised(slopes(self.loss_changes, self.loss_errors), self.points.energies)
        return np.ones(len(self.points.names))

    def to_json(self) -> str:
        """Return the profile as JSON; ``from_json`` reads it back. What is infinite is null."""
        from flowerpress.simulations.tuning.profile_file import dumps

        return dumps(self)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "profile") -> Profile:
        """Read what ``to_json`` wrote; ``where`` begins every message.

        Raises:
            ConfigError: not a profile, or one that says what cannot be.
        """
        from flowerpress.simulations.tuning.profile_file import loads

        return loads(text, where)

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, is too large, or is no profile.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigError(f"{path}: is larger than any profile")
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.from_json(data, str(path))
