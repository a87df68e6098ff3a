"""Split training as a simulation: what one client does in a round, and the server beside it.

The same code runs under every engine: features and gradients cross a real connection to a service
in the server's process, whatever process the client is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from torch import Tensor, nn

from flowerpress.client.split import joining, train_split
from flowerpress.client.split.training import cross_entropy
from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut, VectorQuantized
from flowerpress.compression.features.tables import Tables
from flowerpress.server.split import Copies, Shared, SplitService
from flowerpress.server.split_training import SplitTraining
from flowerpress.simulations.config import SplitConfig
from flowerpress.simulations.loaded import Loaded
from flowerpress.simulations.side import Side
from flowerpress.simulations.split.networks import cut_task
from flowerpress.simulations.split.stored import (
    CutRecipe,
    device_module,
    load_cut,
    save_cut,
)
from flowerpress.simulations.tasks import Training

__all__ = ["check_split", "make_cut", "split_side", "train_client"]

# Adam moves each parameter of the prior by about so much a step, whatever the size of its gradient.
_PRIOR_RATE = 0.01


def make_cut(loaded: Loaded) -> Cut:
    """Return the cut network of a run, new or from ``split.start``.

    Its weights are drawn from torch's own generator, which the caller has seeded.

    Raises:
        ConfigError: the task cannot be cut like that, or the folder holds another network.
    """
    split = _settings(loaded)
    cut = cut_task(
        loaded.task, loaded.data, at=split.at, bottleneck=split.bottleneck, mode=split.mode
    )
    if split.start is not None:
        load_cut(cut, split.start)
    return cut


def train_client(
    loaded: Loaded, message: Message, partition: int, generator: torch.Generator
) -> Message:
    """Train the device's part for one round, against the service that the message names.

    Raises:
        ConfigError: the message comes from a server that does not split.
        SplitError: the service cannot be reached, or refused.
    """
    connect = joining(message.content)
    split = _settings(loaded)
    cut = make_cut(loaded)
    device = device_module(cut)
    device.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    samples = loaded.samples(partition)
    if len(samples) == 0:
        raise ConfigError(f"client {partition} has no examples to train on; use fewer clients")
    start = generator.get_state()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        generator.set_state(start)
        return loaded.task.batches(samples, loaded.training, generator)

    device.train()
    result = train_split(
        connect,
        cut,
        batches,
        partial(_optimizers, loaded.training),
        beta=split.beta,
        generator=torch.Generator().manual_seed(generator.initial_seed() ^ 1),
    )
    metrics = MetricRecord(
        {"num-examples": result.examples // loaded.training.epochs, "train-loss": result.loss}
    )
    content = RecordDict({"arrays": ArrayRecord(device.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)


def check_split(loaded: Loaded) -> None:
    """Refuse a cut, a folder to start from or codecs that a split run cannot use.

    Raises:
        ConfigError: what is wrong with which.
    """
    with torch.random.fork_rng(devices=[]):
        cut = make_cut(loaded)
    _has_tables(cut, _settings(loaded))
    _service(loaded, cut, run=0)


@contextmanager
def split_side(
    loaded: Loaded, inner: Strategy, partitions: Mapping[int, int], options: dict[str, Any]
) -> Iterator[Side]:
    """Yield what the server of a split run works with; its service runs for as long.

    Args:
        loaded: the task, and a configuration with a ``split`` table.
        inner: the strategy that samples clients and averages the device's weights.
        partitions: partition of each node.
        options: of ``Pressed``.
    """
    split = _settings(loaded)
    cut = make_cut(loaded)
    device = device_module(cut)
    service = _service(loaded, cut, options["run_id"])

    def tables(arrays: ArrayRecord, version: int) -> Tables | None:
        device.load_state_dict(arrays.to_torch_state_dict())
        return cut.bottleneck.tables(version)

    def whole(arrays: ArrayRecord) -> nn.Module:
        device.load_state_dict(arrays.to_torch_state_dict())
        cut.server.load_state_dict(service.tails.state_dict())
        return _Whole(cut)

    def save(folder: Path, arrays: ArrayRecord) -> None:
        whole(arrays)
        at = split.at or loaded.task.cut_at or ""
        recipe = CutRecipe(loaded.config.task, at, split.bottleneck, split.mode)
        save_cut(cut, recipe, folder / "cut")

    port = service.serve("127.0.0.1:0")
    try:
        pressed = SplitTraining(
            inner,
            service,
            address=f"127.0.0.1:{port}",
            tables=tables if _has_tables(cut, split) else None,
            numbers=partitions,
            patience=split.patience,
            **options,
        )
        yield Side(pressed, ArrayRecord(device.state_dict()), whole, save)
    finally:
        service.stop()


def _service(loaded: Loaded, cut: Cut, run: int) -> SplitService:
    """Return the service of a run, which does not listen yet."""
    split = _settings(loaded)
    optimizer = partial(_descent, loaded.training)
    tails = (
        Copies(cut.server, optimizer, loss=cross_entropy)
        if split.sharing == "v1"
        else Shared(cut.server, optimizer, loss=cross_entropy, idle=split.patience)
    )
    return SplitService(
        tails,
        run=run,
        features=split.features,
        gradients=split.gradients,
        mode="u" if split.mode == "u-shaped" else "vanilla",
        seed=loaded.config.seed,
        ttl=split.patience,
    )


def _has_tables(cut: Cut, split: SplitConfig) -> bool:
    """Return whether the cut's bottleneck has tables.

    Raises:
        ConfigError: it cannot be trained over the wire.
    """
    if isinstance(cut.bottleneck, VectorQuantized):
        raise ConfigError(
            "vq sends numbers of codes, which have no gradients: distill it "
            "(`flowerpress split distill`), or train with entropic"
        )
    try:
        return cut.bottleneck.tables(1) is not None
    except ConfigError as error:
        raise ConfigError(
            f"split.bottleneck = {split.bottleneck!r} is measured on features and not learned: "
            "start from a distilled cut (split.start=FOLDER), or use split.bottleneck=none with "
            f"split.features='int8(stochastic=true)' ({error})"
        ) from error


class _Whole(nn.Module):
    """A cut network as one, with what crosses the cut rounded as it is in the exchange."""

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.device, self.server = device_module(cut), cut.server
        self._cut = cut

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the scores of a batch."""
        scores: Tensor = self._cut.whole(inputs)
        return scores


def _descent(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
    return torch.optim.SGD(
        parameters, training.lr, training.momentum, weight_decay=training.weight_decay
    )


def _optimizers(training: Training, cut: Cut) -> list[torch.optim.Optimizer]:
    """Return the device's optimizers, all momentum new: the prior learns at its own pace."""
    prior = list(cut.bottleneck.prior_parameters())
    known = {id(parameter) for parameter in prior}
    modules = [cut.device] if cut.last is None else [cut.device, cut.last]
    others = [p for module in modules for p in module.parameters() if id(p) not in known]
    made: list[torch.optim.Optimizer] = [_descent(training, others)] if others else []
    return [*made, torch.optim.Adam(prior, _PRIOR_RATE)] if prior else made


def _settings(loaded: Loaded) -> SplitConfig:
    split = loaded.config.split
    if split is None:
        raise ValueError("the configuration has no table `split`")
    return split
