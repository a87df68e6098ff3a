"""A cut network of a folder at work: predictions by a service, and a device that asks for them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from flowerpress.client.split import SplitLink
from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.server.split import Shared, SplitLimits, SplitService
from flowerpress.simulations.links import Link
from flowerpress.simulations.split.estimates import Estimate, estimate, multiply_adds
from flowerpress.simulations.split.judged import hits
from flowerpress.simulations.split.networks import cut_task
from flowerpress.simulations.split.stored import (
    DEVICE,
    CutRecipe,
    load_cut,
    load_recipe,
    load_tables,
)
from flowerpress.simulations.tasks import Data, Task, load_task

__all__ = ["Asked", "Loaded", "ask", "cut_name", "estimated", "loaded_cut", "predictions"]

_LONGEST = 200
"""Characters of a cut's name that tell where it is."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A cut network with its weights (the server's only where asked for), its task and data."""

    cut: Cut
    recipe: CutRecipe
    task: Task
    data: Data


@dataclass(frozen=True)
class Asked:
    """What a device got for its test examples.

    ``sent`` and ``received``: bytes of all messages; ``payload``: of coded features alone.
    ``seconds``: of each question, from the input to the scores, float64 (N,).
    """

    accuracy: float
    samples: int
    payload: int
    sent: int
    received: int
    seconds: NDArray[np.float64]


def loaded_cut(
    folder: Path, data: Path | None = None, *, task: str | None = None, server: bool = True
) -> Loaded:
    """Build the network that a folder holds and load its weights.

    Args:
        folder: as ``save_cut`` writes it.
        data: where the task's data is, for the shape of an input.
        task: the task, where the folder's name for it is not that of a built-in one.
        server: whether the server's weights are loaded too.

    Raises:
        ConfigError: a file is missing or of another network, or the task is unknown.
    """
    recipe = load_recipe(folder)
    made = load_task(task or recipe.task, data)
    examples = made.load()
    cut = cut_task(made, examples, at=recipe.at, bottleneck=recipe.bottleneck, mode=recipe.mode)
    load_cut(cut, folder, server=server)
    for part in cut.parts():
        part.eval()
    return Loaded(cut, recipe, made, examples)


def predictions(
    folder: Path,
    loaded: Loaded,
    *,
    run: int = 1,
    token: bytes = b"",
    features: str = "none",
    limits: SplitLimits | None = None,
) -> SplitService:
    """Return a service, not yet listening, that answers with the server's part of ``loaded``.

    Args:
        folder: that ``loaded`` is from; its tables are published.
        loaded: with the server's weights.
        run: number that devices have to name.
        token: that devices have to know; empty: none.
        features: codec where the bottleneck has no tables.
        limits: caps on what devices may send.

    Raises:
        ConfigError: a file is missing.
        WireError: the tables are damaged.
        UnknownNameError: no such codec.
    """
    service = SplitService(
        Shared(loaded.cut.server, _never),
        run=run,
        token=token,
        features=features,
        mode="u" if loaded.cut.last is not None else "vanilla",
        limits=limits,
        cut=cut_name(folder, loaded.recipe),
    )
    tables = load_tables(folder)
    if tables is not None:
        service.publish(tables)
    return service


def cut_name(folder: Path, recipe: CutRecipe) -> str:
    """Return what tells one cut network from another: where it is cut, and the device's weights.

    Raises:
        ConfigError: the device's weights cannot be read.
    """
    try:
        body = (folder / DEVICE).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {folder / DEVICE}: {error.strerror}") from error
    where = f"{recipe.task} {recipe.at} {recipe.bottleneck} {recipe.mode}"
    return f"{where[:_LONGEST]} {hashlib.sha256(body).hexdigest()[:16]}"


def ask(
    folder: Path,
    loaded: Loaded,
    address: str,
    *,
    run: int = 1,
    batch: int = 1,
    samples: int | None = None,
    token: bytes = b"",
    root_certificates: bytes | None = None,
    deadline: float = 60.0,
) -> Asked:
    """Ask a service for predictions on test examples, and judge them.

    Args:
        folder: that ``loaded`` is from.
        loaded: with the device's weights.
        address: ``host:port``.
        run: the service's.
        batch: examples of a question.
        samples: at most so many of the test examples; None: all.
        token: the service's.
        root_certificates: PEM of the authority of its certificate; None: no TLS.
        deadline: seconds until an answer has to be there.

    Raises:
        SplitError: no answer, or a refusal, because the service has another network for one.
        ConfigError: a number out of range.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    test = loaded.data.test
    count = min(len(test), samples or len(test))
    found, seconds, payload = [], [], 0
    with (
        torch.inference_mode(),
        SplitLink(
            address,
            run=run,
            client=0,
            token=token,
            root_certificates=root_certificates,
            deadline=deadline,
            cut=cut_name(folder, loaded.recipe),
        ) as link,
    ):
        for start in range(0, count, batch):
            part = slice(start, min(start + batch, count))
            begun = time.perf_counter()
            latent = loaded.cut.device(loaded.task.prepare(test.inputs[part])).numpy()
            scores = torch.from_numpy(link.infer(latent))
            if loaded.cut.last is not None:
                scores = loaded.cut.last(scores)
            seconds.append(time.perf_counter() - begun)
            found.append(hits(scores, test.labels[part]))
        payload = link.meter.up.payload
        sent, received = link.meter.up.message, link.meter.down.message
    accuracy = float(np.concatenate(found).mean())
    return Asked(accuracy, count, payload, sent, received, np.array(seconds))


def estimated(loaded: Loaded, asked: Asked, link: Link) -> Estimate:
    """Return what one example would take a small device, see ``estimates``."""
    inputs = loaded.task.prepare(loaded.data.test.inputs[:1])
    with torch.no_grad():
        latent = loaded.cut.device(inputs)
    return estimate(
        link,
        device_macs=multiply_adds(loaded.cut.device, inputs),
        server_macs=multiply_adds(loaded.cut.server, latent),
        bytes_up=asked.sent / asked.samples,
        bytes_down=asked.received / asked.samples,
    )


def _never(parameters: object) -> torch.optim.Optimizer:
    # Nothing is trained: an optimizer without parameters does nothing.
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0)
