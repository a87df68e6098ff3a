"""Short training with a plan beside what costs no thought: uniform, by size, by phase, and none.

Where the plan's menu has ``rd`` in it, plain ``rd`` with the same bytes is there, too: one step for
all tensors, which is a good plan by itself. All of them get the same bytes for a message, and
differ in nothing but the uplink. The downlink is ``none`` everywhere: what is compared is how
clients' updates are coded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.rates.plan import RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.schedule import Schedule
from flowerpress.compression.rates.solve import solve
from flowerpress.compression.spelling import parse_call
from flowerpress.simulations.comparison.plan import Planned
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.tuning.folder import write_text
from flowerpress.simulations.tuning.profile import Profile
from flowerpress.simulations.tuning.solving import predicted

__all__ = ["common_bytes", "config_words", "plan_verification", "write_uplinks"]

REFERENCE = "none"

# What of a profile's configuration makes the training what it was.
_KEPT = ("task", "data", "clients", "fraction", "seed", "partition", "strategy")
_TABLES = ("strategy_options", "training")


def common_bytes(profile: Profile, plan: RatePlan) -> int:
    """Return the bytes of a message that the heuristics get: the plan's target, or what it takes.

    Raises:
        ConfigError: the plan is for another model than the profile, or has no target and codecs
            that the profile knows nothing of.
    """
    plan.check(profile.manifest)
    if plan.target_bytes is not None:
        return plan.target_bytes
    expected = predicted(profile, plan)
    if expected.unknown:
        raise ConfigError(
            "the plan has no target_bytes, and the profile does not know what "
            f"{', '.join(expected.unknown[:5])} take; solve it again with this profile"
        )
    return int(expected.bytes)


def write_uplinks(profile: Profile, plan: RatePlan, folder: Path) -> dict[str, str]:
    """Write a file for each way to code the uplink; return label -> path or codec, the plan last.

    Files are named after what is in them, so that a run with another plan of the same name is not
    taken for this one.

    Raises:
        ConfigError: the budget is too small for a heuristic, or a file cannot be written.
    """
    target = common_bytes(profile, plan)
    plans: dict[str, RatePlan] = {}
    for name in ("uniform", "by-size"):
        solved = solve(profile.manifest, profile.points, allocator=name, target_bytes=target)
        plans[name] = replace(solved, target_bytes=target)
    uplinks: dict[str, str] = {}
    for name, each in plans.items():
        uplinks[name] = str(_written(folder, name, each.to_json(), ".json"))
    phase = Policy(base=plans["uniform"], schedule=Schedule(kind="phase"))
    text = phase.to_toml(Path(uplinks["uniform"]).name)
    uplinks["by-phase"] = str(_written(folder, "by-phase", text, ".toml"))
    if any(parse_call(setting)[0] == "rd" for setting in profile.points.settings):
        uplinks["rd"] = f"rd(target_bytes={target})"
    label = f"plan ({plan.allocator})" if plan.allocator else "plan"
    uplinks[label] = str(_written(folder, "plan", plan.to_json(), ".json"))
    return uplinks


def plan_verification(
    base: SimulationConfig, uplinks: Mapping[str, str], seeds: int, folder: Path
) -> list[Planned]:
    """Return the runs: ``none`` first, which is what the others are behind, then each uplink.

    Args:
        base: what all runs share.
        uplinks: label -> what stands for the uplink.
        seeds: how many, from ``base.seed`` on.
        folder: gets ``<label>/seed-<n>/`` for each.
    """
    planned = []
    for label, uplink in {REFERENCE: REFERENCE, **uplinks}.items():
        slug = label.split(" ")[0]
        for seed in range(base.seed, base.seed + seeds):
            place = (folder / slug / f"seed-{seed}").absolute()
            change = {"uplink": uplink, "downlink": REFERENCE, "seed": seed, "out": place}
            planned.append(Planned(label, base.model_copy(update=change), place))
    return planned


def config_words(config: Mapping[str, Any]) -> list[str]:
    """Return the configuration of a profile's clients as ``key=value`` words.

    Rounds, engine and the like are left to whoever uses them: they are not part of the problem.
    """
    words = [f"{key}={json.dumps(config[key])}" for key in _KEPT if config.get(key) is not None]
    for key in _TABLES:
        table = config.get(key)
        if isinstance(table, Mapping):
            words += [
                f"{key}.{inner}={json.dumps(value)}"
                for inner, value in table.items()
                if value is not None
            ]
    return words


def _written(folder: Path, name: str, text: str, suffix: str) -> Path:
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    path = folder.absolute() / f"{name}-{mark}{suffix}"
    write_text(path, text)
    return path
