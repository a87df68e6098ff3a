"""Engines: three ways to run the same app on one machine.

``inline``: one process, deterministic, starts at once; with ``workers`` above 1, several
processes and the same results. ``ray``: Flower's own Simulation Engine. ``run`` is all that a
caller needs; it imports torch and Flower only when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.engines.errors import EngineError, StoppedError

if TYPE_CHECKING:
    from flowerpress.simulations.config import SimulationConfig
    from flowerpress.simulations.record import RoundRecord

__all__ = ["EngineError", "StoppedError", "run"]


def run(
    config: SimulationConfig,
    on_record: Callable[[RoundRecord], None] | None = None,
    *,
    resume: bool = False,
) -> Path:
    """Run a simulation to its end and return its folder.

    ``on_record`` is called with each round's record, round 0 (the initial model) included, as
    soon as it is written. Without ``config.out`` the folder is a new one,
    ``runs/<task>-<uplink>-seed<seed>``, with a number behind it where that exists. With ``resume``
    the unfinished run in ``config.out`` goes on, and ``on_record`` gets the rounds it had, too;
    otherwise what is left of one is removed.

    Raises:
        ConfigError: something in the configuration cannot be used, the folder holds a finished
            run, or none that can go on. Found before anything is started or written.
        StorageError: the state of the run that is to go on cannot be read.
        EngineError: the run failed.
        StoppedError: Ctrl-C; the rounds that were finished can be read in the folder.
    """
    from flowerpress.simulations.checking import check_run
    from flowerpress.simulations.codecs import with_absolute_codecs
    from flowerpress.simulations.links import absolute
    from flowerpress.simulations.record import is_finished
    from flowerpress.simulations.resuming import begin, can_go_on, go_on

    if config.data is not None:
        config = config.model_copy(update={"data": config.data.expanduser().absolute()})
    config = with_absolute_codecs(config)
    if config.links is not None:
        config = config.model_copy(update={"links": absolute(config.links)})
    if config.out is not None and is_finished(config.out):
        raise ConfigError(f"{config.out}: holds a finished run; name another folder (out=...)")
    clients = len(check_run(config).partition)
    folder = (config.out or _new_folder(config)).expanduser().absolute()
    config = config.model_copy(update={"out": folder})
    before = go_on(config) if resume else begin(config)
    # Of a run that goes on, what began it decided that its state is kept.
    config = config.model_copy(update={"checkpoint": config.checkpoint or resume})
    if on_record is not None:
        for record in before:
            on_record(record)
    try:
        if config.engine == "ray":
            from flowerpress.simulations.engines.ray import run_ray

            run_ray(config, clients, on_record)
        else:
            from flowerpress.simulations.engines.embedded import run_embedded

            run_embedded(config, clients, on_record)
    except KeyboardInterrupt:
        raise StoppedError(folder, can_go_on=can_go_on(folder)) from None
    return folder


def _new_folder(config: SimulationConfig) -> Path:
    from flowerpress.simulations.codecs import codec_name

    task = re.sub(r"^.*/|\.py\b", "", config.task)
    name = re.sub(r"[^\w.=-]+", "-", f"{task}-{codec_name(config.uplink)}").strip("-")
    name = f"{name}-seed{config.seed}"
    for number in range(1, 10_000):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            # Making it claims it: of two runs started at once, each gets its own.
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot make the folder {folder}: {error.strerror}") from error
        return folder
    raise ConfigError(f"there are too many folders like runs/{name}; give one with out=...")
