"""The one app that every engine runs: a ServerApp and a ClientApp made from a configuration.

Both are ordinary Flower apps. The client is wrapped in ``press()``, the strategy in ``Pressed``.
What a client draws at random depends on seed, round and partition, on nothing else: neither on
the process it runs in nor on what ran there before.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from torch import nn

from flowerpress.client import press
from flowerpress.server import Checkpoint, Pressed
from flowerpress.simulations.attacks import attacking
from flowerpress.simulations.client_states import keeping
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.linked import LinkedGrid
from flowerpress.simulations.engines.ordering import ordered
from flowerpress.simulations.loaded import Loaded, load
from flowerpress.simulations.record import RoundRecord, RunWriter
from flowerpress.simulations.recording import Recorder, TrainLoss, save_model
from flowerpress.simulations.resuming import (
    clients_folder,
    finished,
    recorded,
    server_folder,
)
from flowerpress.simulations.side import Side
from flowerpress.simulations.strategies import make_strategy

__all__ = ["Surroundings", "client_app_from_json", "make_client_app", "make_server_app", "serve"]

OnRecord = Callable[[RoundRecord], None]

# Whole days: a simulated round takes as long as it takes, there is no client to give up on.
_TIMEOUT = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Surroundings:
    """What a run has around it, as opposed to what it is; the default is a simulation.

    ``run_id`` binds updates to the run; None makes it of the configuration. ``timeout``: seconds
    after which a round goes on without who has not answered. ``sync``: whether the server's state
    and the records are to outlast a loss of power, too. ``options``: more of ``Pressed``.
    """

    run_id: int | None = None
    timeout: float = _TIMEOUT
    sync: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


_SIMULATION = Surroundings()


def client_app_from_json(text: str) -> ClientApp:
    """Make the ClientApp of ``SimulationConfig.to_json()``'s text."""
    return make_client_app(SimulationConfig.from_json(text))


def make_client_app(config: SimulationConfig) -> ClientApp:
    """Return a ClientApp that trains on its node's partition, and tells which one that is."""
    mods = [press(uplink_rate=_uplink_rate(config))]
    if config.attack is not None:
        # Inside press(): a hostile client compresses what it made up like everybody else.
        mods.append(attacking(config))
    if config.checkpoint and config.out is not None:
        mods.insert(0, keeping(clients_folder(config.out)))
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        loaded = load(config)
        partition = int(context.node_config["partition-id"])
        settings = message.content.config_records["config"]
        generator = _seed(config.seed, int(str(settings["server-round"])), partition)
        torch.set_num_threads(config.threads)
        if config.split is not None:
            from flowerpress.simulations.split.training import train_client

            return train_client(loaded, message, partition, generator)
        model = loaded.task.build()
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        # FedProx is half a client's business: its server part only sends the weight of the term.
        with _drawn_back(model, float(str(settings.get("proximal-mu", 0.0)))):
            result = loaded.task.train(model, loaded.samples(partition), loaded.training, generator)
        metrics = MetricRecord({"num-examples": result.examples, "train-loss": result.loss})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        partition = MetricRecord({"partition-id": int(context.node_config["partition-id"])})
        return Message(RecordDict({"partition": partition}), reply_to=message)

    return app


def _uplink_rate(config: SimulationConfig) -> Callable[[Context], float] | None:
    if config.links is None:
        return None

    def rate(context: Context) -> float:
        links = load(config).links
        return 0.0 if links is None else links.rate(int(context.node_config["partition-id"]))

    return rate


def make_server_app(config: SimulationConfig, on_record: OnRecord | None = None) -> ServerApp:
    """Return a ServerApp that runs the whole simulation and writes ``config.out``.

    Every round's record is written and then handed to ``on_record``.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        serve(config, grid, on_record)

    return app


def serve(
    config: SimulationConfig,
    grid: Grid,
    on_record: OnRecord | None = None,
    surroundings: Surroundings = _SIMULATION,
) -> None:
    """Run all rounds of ``config`` over a grid and write ``config.out``: a ServerApp's main."""
    if config.out is None:
        raise ValueError("a server app needs a configuration with `out`")
    torch.set_num_threads(config.threads)
    loaded = load(config)
    nodes = ordered(grid, len(loaded.partition), config.seed)
    linked = None
    if loaded.links is not None:
        linked = LinkedGrid(nodes, loaded.links, nodes.partitions, config.deadline)
    _seed(config.seed)
    train_loss = TrainLoss()
    inner = make_strategy(config, len(loaded.partition), train_loss)
    checkpoint = None
    if config.checkpoint:
        checkpoint = Checkpoint(
            server_folder(config.out), sync=surroundings.sync, beside={"nodes": nodes}
        )
    options = {
        "uplink": config.uplink,
        "downlink": None if config.downlink == "same" else config.downlink,
        "defence": config.defence,
        "decay": config.decay,
        "seed": config.seed,
        "run_id": _run_id(config) if surroundings.run_id is None else surroundings.run_id,
        "checkpoint": checkpoint,
        **surroundings.options,
    }
    before = recorded(config.out)
    last = before[-1].round if before else None
    with (
        _side(loaded, inner, nodes.partitions, options) as side,
        RunWriter(config.out, after=last, sync=surroundings.sync) as writer,
    ):

        def emit(record: RoundRecord) -> None:
            writer.append(record)
            if on_record is not None:
                on_record(record)

        pressed = side.pressed
        recorder = Recorder(
            loaded, side.model, pressed, train_loss, nodes.partitions, emit, linked, before
        )
        if checkpoint is not None:
            checkpoint.beside["record"] = recorder
            if linked is not None:
                checkpoint.beside["links"] = linked
        result = pressed.start(
            linked or nodes, side.arrays, config.rounds, surroundings.timeout, evaluate_fn=recorder
        )
        arrays = result.arrays or side.arrays
        side.save(config.out, arrays)
        writer.finish(recorder.summary(arrays))
    finished(config.out)


@contextmanager
def _side(
    loaded: Loaded, inner: Strategy, partitions: Mapping[int, int], options: dict[str, Any]
) -> Iterator[Side]:
    """Return what the server of this run works with, for as long as it does."""
    if loaded.config.split is not None:
        from flowerpress.simulations.split.training import split_side

        with split_side(loaded, inner, partitions, options) as side:
            yield side
        return
    whole = loaded.task.build()

    def model(arrays: ArrayRecord) -> nn.Module:
        whole.load_state_dict(arrays.to_torch_state_dict())
        return whole

    def save(folder: Path, arrays: ArrayRecord) -> None:
        save_model(folder / "model.safetensors", arrays)

    yield Side(Pressed(inner, **options), ArrayRecord(whole.state_dict()), model, save)


def _seed(*numbers: int) -> torch.Generator:
    """Seed every global generator from ``numbers`` alone; return one more, for the training."""
    first, second, third, fourth = np.random.SeedSequence(numbers).generate_state(4)
    random.seed(int(first))
    np.random.seed(int(second))
    torch.manual_seed(int(third))
    return torch.Generator().manual_seed(int(fourth))


def _run_id(config: SimulationConfig) -> int:
    """Return the same 64-bit number for the same configuration, whatever engine runs it."""
    alike = config.model_copy(
        update={"engine": "inline", "workers": 1, "threads": 1, "out": None, "data": None}
    )
    text = alike.model_dump_json(exclude={"checkpoint"})
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@contextmanager
def _drawn_back(model: nn.Module, mu: float) -> Iterator[None]:
    """Add FedProx's term: the gradient of mu/2 |w - w0|^2, w0 being the weights on entry.

    Li et al., "Federated Optimization in Heterogeneous Networks" (2020), equation 2.
    """
    hooks = []
    if mu > 0:
        for parameter in model.parameters():
            if parameter.requires_grad:
                hook = _pull(parameter.detach().clone(), mu)
                register = parameter.register_post_accumulate_grad_hook
                hooks.append(register(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _pull(start: torch.Tensor, mu: float) -> Callable[[torch.Tensor], None]:
    def hook(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - start, alpha=mu)

    return hook
