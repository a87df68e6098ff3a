"""The settings of a run that goes on: those that it was begun with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flowerpress.compression.errors import ConfigError

if TYPE_CHECKING:
    from flowerpress.simulations.config import SimulationConfig

__all__ = ["resumed"]


def resumed(given: SimulationConfig) -> SimulationConfig:
    """Return the configuration kept in the folder ``given.out``.

    What was given beside the folder must agree with it, but for how the run is computed (engine,
    workers, threads, the place of the data), which may be another now.

    Raises:
        ConfigError: no folder, no run in it that can go on, or other settings.
    """
    from flowerpress.simulations.config import SimulationConfig
    from flowerpress.simulations.record import is_finished
    from flowerpress.simulations.resuming import FREE, stored_config

    if given.out is None:
        raise ConfigError("--resume needs the run's folder: --out FOLDER")
    if is_finished(given.out):
        raise ConfigError(f"{given.out}: the run is finished; there is nothing to go on with")
    kept = stored_config(given.out)
    here, there, usual = (json.loads(each.to_json()) for each in (given, kept, SimulationConfig()))
    asked = {key: value for key, value in here.items() if value != usual[key]}
    changed = sorted(key for key in asked if key not in FREE and asked[key] != there[key])
    if changed:
        raise ConfigError(
            f"{given.out}: holds an unfinished run with another {', '.join(changed)}; leave that "
            "out to go on, or begin anew in another --out or with --overwrite"
        )
    free = {key: getattr(given, key) for key in asked if key in FREE}
    return kept.model_copy(update=free)
