"""Whatever can be wrong with a run, found before anything of it is written or started."""

from __future__ import annotations

from flowerpress.simulations.codecs import check_codecs
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.loaded import Loaded, load
from flowerpress.simulations.strategies import check_strategy

__all__ = ["check_run"]


def check_run(config: SimulationConfig) -> Loaded:
    """Return what a run works on, if all of its configuration can be used.

    Raises:
        ConfigError: what cannot, and why.
    """
    check_codecs(config)
    loaded = load(config)
    check_strategy(config, len(loaded.partition))
    if config.split is not None:
        from flowerpress.simulations.split.training import check_split

        check_split(loaded)
    if config.engine == "ray":
        from flowerpress.simulations.engines.ray import check_ray

        check_ray()
    return loaded
