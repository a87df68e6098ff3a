"""Running the app on the embedded engine: in this process, or on worker processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from flwr.app import Context, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID

from flowerpress.simulations.app import make_client_app, make_server_app
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.grid import LocalGrid, generators_kept, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.workers import WorkerGrid
from flowerpress.simulations.record import RoundRecord

__all__ = ["run_embedded"]

_RUN_ID = 1  # one grid is one run: nobody compares these
_FACTORY = "flowerpress.simulations.app:client_app_from_json"


def run_embedded(
    config: SimulationConfig, clients: int, on_record: Callable[[RoundRecord], None] | None
) -> None:
    """Run to the end. The caller's generators, threads and logging are afterwards as before.

    Raises:
        EngineError: a worker process died, or no client could do its part.
    """
    server = make_server_app(config, on_record)
    context = Context(_RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), {})

    def serve(grid: LocalGrid) -> None:
        with server_identity(_RUN_ID), generators_kept(), _quiet():
            server(grid, context)

    threads = torch.get_num_threads()
    try:
        if config.workers == 1:
            serve(InlineGrid(make_client_app(config), clients, _RUN_ID))
        else:
            with WorkerGrid(_FACTORY, config.to_json(), clients, config.workers, _RUN_ID) as grid:
                serve(grid)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Flower from logging every round: the display does that, and left-out clients too."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
