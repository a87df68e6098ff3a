"""Distillation on the clients' own examples: a Flower app beside ``distill``'s central loop.

Each stage is a run of its own: what it trains is averaged as any model is, compressed both ways;
what it leaves alone (the teacher, and in the second stage the encoder) lies in a file that every
client holds. No label and no feature leaves a client.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import nn

from flowerpress.client import press
from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.server import Pressed
from flowerpress.simulations.checkpoints.atomic import written_whole
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.engines.errors import EngineError
from flowerpress.simulations.engines.grid import LocalGrid, generators_kept, server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from flowerpress.simulations.engines.workers import WorkerGrid
from flowerpress.simulations.loaded import load
from flowerpress.simulations.recording import TrainLoss
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.distill import (
    Tick,
    generator_of,
    learning,
    make_optimizer,
    run_stage,
)
from flowerpress.simulations.split.distill_settings import STAGES, DistillSettings
from flowerpress.simulations.split.distill_state import Place, keep, resume
from flowerpress.simulations.split.lesson import Lesson, lesson
from flowerpress.simulations.split.stored import CutRecipe
from flowerpress.simulations.strategies import make_strategy

__all__ = ["Federation", "Traffic", "client_app_from_json", "distill_federated"]

_FACTORY = "flowerpress.simulations.split.federated:client_app_from_json"
_TIMEOUT = 30 * 24 * 3600.0


@dataclass(frozen=True)
class Federation:
    """What server and clients agree on before the first round.

    ``config`` says which clients there are, what they hold and how updates are coded. The epochs
    of ``settings`` are rounds; in each, a client passes over its examples once.
    """

    config: SimulationConfig
    recipe: CutRecipe
    settings: DistillSettings = field(default_factory=DistillSettings)

    @property
    def digest(self) -> str:
        """What tells this training from all others, wherever it runs."""
        alike = {"workers": 1, "threads": 1, "out": None, "data": None}
        own = replace(self, config=self.config.model_copy(update=alike))
        return hashlib.sha256(own.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return it as text; ``from_json`` reads it back."""
        return json.dumps(
            {
                "config": self.config.to_json(),
                "recipe": asdict(self.recipe),
                "settings": asdict(self.settings),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Federation:
        """Read what ``to_json`` wrote."""
        given = json.loads(text)
        return cls(
            SimulationConfig.from_json(given["config"]),
            CutRecipe(**given["recipe"]),
            DistillSettings(**given["settings"]),
        )


@dataclass
class Traffic:
    """Payload bytes of all clients and rounds."""

    up: int = 0
    down: int = 0


def distill_federated(
    federation: Federation,
    taught: Lesson,
    folder: Path,
    progress: Tick | None = None,
) -> Traffic:
    """Train ``taught.cut`` in place on all clients' examples, in all stages.

    A training that was stopped goes on behind its last round. What clients had not sent yet of
    earlier rounds (error feedback) is then lost, so its result is not the same to the bit.

    Args:
        federation: who learns what, how.
        taught: the student and its teacher.
        folder: for the file that clients hold, one for each stage, and the state of the training.
        progress: told of each round.

    Returns:
        The bytes that crossed, of this call's rounds.

    Raises:
        ConfigError: the bottleneck has to be measured on examples, which the server does not have,
            or the folder holds another training.
        EngineError: in some round no client at all could do its part.
    """
    cut, settings = taught.cut, federation.settings
    if not any(True for _ in cut.bottleneck.prior_parameters()):
        raise ConfigError(
            f"{federation.recipe.bottleneck!r} is measured on examples, and the server has none: "
            "distill entropic(...) with clients, or this one without"
        )
    seed, of = federation.config.seed, federation.digest
    kept = resume(folder, cut, settings, seed, of)
    at = Place(1, 0) if kept is None else kept[0]
    moved = Traffic()
    for stage in STAGES:
        done = at.epoch if at.stage == stage else 0
        if at.stage > stage or done == settings.epochs(stage):
            continue

        def tick(name: str, number: int, due: int, loss: float, stage: int = stage) -> None:
            keep(folder, cut, None, settings, seed, Place(stage, number), of)
            if progress is not None:
                progress(name, number, due, loss)

        _run(federation, taught, folder, stage, done, moved, tick)
    for part in cut.parts():
        part.eval()
    return moved


def _run(
    federation: Federation,
    taught: Lesson,
    folder: Path,
    stage: int,
    done: int,
    moved: Traffic,
    tick: Tick,
) -> None:
    """Run the rounds of a stage that are left."""
    config, due = federation.config, federation.settings.epochs(stage)
    clients = len(load(config).partition)
    path = folder / f"stage{stage}.safetensors"
    digest = _write(path, taught)
    trained = _trained(taught.cut, stage)
    loss = TrainLoss()
    pressed = Pressed(
        make_strategy(config, clients, loss),
        uplink=config.uplink,
        downlink=None if config.downlink == "same" else config.downlink,
        seed=config.seed,
        run_id=stage,
    )

    def evaluate(number: int, arrays: ArrayRecord) -> None:
        if not number:
            return
        value = loss.take()
        if value is None:
            why = next((f": {r.message}" for r in reversed(pressed.rejections)), "")
            raise EngineError(f"round {done + number}: no client could do its part{why}")
        trained.load_state_dict(arrays.to_torch_state_dict())
        tick(STAGES[stage], done + number, due, value)

    told = ConfigRecord({"stage": stage, "done": done, "file": str(path), "sha256": digest})
    with generators_kept(), server_identity(stage), _engine(federation, clients, stage) as grid:
        random.seed(f"{config.seed}/{stage}/{done}")
        pressed.start(
            grid,
            ArrayRecord(trained.state_dict()),
            due - done,
            _TIMEOUT,
            told,
            evaluate_fn=evaluate,
        )
    moved.up += pressed.meter.up
    moved.down += pressed.meter.down


@contextmanager
def _engine(federation: Federation, clients: int, run_id: int) -> Iterator[LocalGrid]:
    if federation.config.workers == 1:
        yield InlineGrid(_client_app(federation), clients, run_id)
        return
    text, workers = federation.to_json(), federation.config.workers
    with WorkerGrid(_FACTORY, text, clients, workers, run_id) as grid:
        yield grid


def client_app_from_json(text: str) -> ClientApp:
    """Make the ClientApp of ``Federation.to_json()``'s text."""
    return _client_app(Federation.from_json(text))


def _client_app(federation: Federation) -> ClientApp:
    app = ClientApp(mods=[press()])
    text = federation.to_json()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config, settings = federation.config, federation.settings
        told = message.content.config_records["config"]
        stage, number = (
            int(str(told["stage"])),
            int(str(told["done"])) + int(str(told["server-round"])),
        )
        partition = int(context.node_config["partition-id"])
        generator = generator_of(config.seed, stage, number, partition + 1)
        torch.set_num_threads(config.threads)
        loaded = load(config)
        taught = _read(text, Path(str(told["file"])), str(told["sha256"]))
        module = _trained(taught.cut, stage)
        module.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        samples = loaded.samples(partition)
        batches = Batches(loaded.task, samples, settings.batch_size)
        due = settings.epochs(stage)
        with learning(taught.cut, stage) as trained:
            loss = run_stage(
                taught.cut,
                taught.teacher,
                taught.features,
                batches,
                settings,
                stage,
                make_optimizer(taught.cut, trained, settings),
                generator,
                span=((number - 1) / due, number / due),
            )
        metrics = MetricRecord({"num-examples": len(samples), "train-loss": loss})
        content = RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def _trained(cut: Cut, stage: int) -> nn.Module:
    """Return what clients train in a stage, and what is averaged."""
    if stage == 1:
        return cut.bottleneck
    modules = [cut.server] if stage == 2 else [cut.bottleneck, cut.tail]
    return nn.ModuleList([*modules, *([] if cut.last is None else [cut.last])])


def _whole(taught: Lesson) -> nn.ModuleDict:
    return nn.ModuleDict({"teacher": taught.teacher, "student": nn.ModuleList(taught.cut.parts())})


def _write(path: Path, taught: Lesson) -> str:
    """Write all weights to ``path``; return the SHA-256 of the file."""
    tensors = {name: v.detach().clone() for name, v in _whole(taught).state_dict().items()}
    body = save(tensors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    with written_whole(path, force=True) as stream:
        stream.write(body)
    return hashlib.sha256(body).hexdigest()


@lru_cache(maxsize=1)
def _read(text: str, path: Path, digest: str) -> Lesson:
    """Return student and teacher with the weights that the server wrote; made once a process.

    Raises:
        ConfigError: it cannot be read, or is not the file that the server wrote.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(body).hexdigest() != digest:
        raise ConfigError(f"{path}: is not the file that the server wrote; copy it again")
    federation = Federation.from_json(text)
    loaded, recipe = load(federation.config), federation.recipe
    model = loaded.task.build()
    taught = lesson(loaded.task, loaded.data, model, recipe.at, recipe.bottleneck, recipe.mode)
    _whole(taught).load_state_dict(load_tensors(body))
    return taught
