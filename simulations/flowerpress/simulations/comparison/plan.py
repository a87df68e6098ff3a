"""Which runs a comparison has: every configuration with every seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig

__all__ = ["Planned", "codec_variants", "plan_comparison", "plan_variants"]


@dataclass(frozen=True)
class Planned:
    """One run of a comparison: its label, and a configuration that names its folder."""

    label: str
    config: SimulationConfig
    folder: Path


def codec_variants(base: SimulationConfig, codecs: str) -> list[tuple[str, SimulationConfig]]:
    """Return ``base`` with each of some codecs, labelled by their names.

    Args:
        base: what all share.
        codecs: separated by commas outside parentheses; ``a/b`` is ``a`` up and ``b`` down; ``a``
            alone goes with the downlink of ``base``.

    Raises:
        ConfigError: no codec.
    """
    from flowerpress.simulations.codecs import absolute_codec, codec_name, up_and_down

    labels = [label.strip() for label in re.split(r",(?![^(]*\))", codecs) if label.strip()]
    if not labels:
        raise ConfigError("no codec to compare; name some, such as none,stc")
    variants = []
    for label in labels:
        up, down = up_and_down(label)
        codecs_of = {
            "uplink": absolute_codec(up),
            "downlink": absolute_codec(down) if down else base.downlink,
        }
        label = codec_name(up) + (f"/{codec_name(down)}" if down else "")
        variants.append((label, base.model_copy(update=codecs_of)))
    return variants


def plan_comparison(base: SimulationConfig, codecs: str, seeds: int, folder: Path) -> list[Planned]:
    """Return the runs of ``codec_variants`` with every seed; see ``plan_variants``."""
    return plan_variants(codec_variants(base, codecs), seeds, folder)


def plan_variants(
    variants: Sequence[tuple[str, SimulationConfig]], seeds: int, folder: Path
) -> list[Planned]:
    """Return the runs of every labelled configuration with every seed.

    Each goes to ``folder/<label>/seed-<n>``, ``seeds`` of them from the configuration's own on.

    Raises:
        ConfigError: a codec or cut that cannot be used, or a label given twice.
    """
    from flowerpress.simulations.codecs import check_codecs

    planned: list[Planned] = []
    for label, config in variants:
        check_codecs(config)
        slug = re.sub(r"[^\w.=-]+", "-", label).strip("-")
        for seed in range(config.seed, config.seed + seeds):
            place = (folder / slug / f"seed-{seed}").absolute()
            if any(p.folder == place for p in planned):
                raise ConfigError(f"{label!r} is given twice")
            change = {"seed": seed, "out": place}
            planned.append(Planned(label, config.model_copy(update=change), place))
    return planned
