"""Teaching a cut network what a whole one knows, in two stages or three.

Matsubara et al., "Supervised Compression for Resource-Constrained Edge Computing Systems" (WACV
2022), section 3.3. First the bottleneck learns to put out the teacher's features at few bits,
while the teacher's own tail judges them; then encoder and prior stay as they are, and the server's
side learns to make the best of what is really decoded. A third stage, not of that paper, lets both
sides learn on together: bits that matter to the features and not to the scores are given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.distill_losses import (
    TeacherFeatures,
    feature_loss,
    score_loss,
)
from flowerpress.simulations.split.distill_settings import STAGES, DistillSettings
from flowerpress.simulations.split.distill_state import Place, keep, restore, resume

__all__ = [
    "Tick",
    "distill",
    "generator_of",
    "learning",
    "make_optimizer",
    "run_stage",
]

Tick = Callable[[str, int, int, float], None]
"""Called after each epoch: which stage, how many epochs are done and due, the mean loss."""

_PRIOR_RATE = 10.0
_SEEN_TO_CALIBRATE = 2048


def distill(
    cut: Cut,
    teacher: nn.Module,
    teacher_features: TeacherFeatures,
    data: Batches,
    settings: DistillSettings,
    seed: int,
    progress: Tick | None = None,
    checkpoint: Path | None = None,
) -> Cut:
    """Train ``cut`` in place, in all stages, and return it, ready to be judged and coded.

    Its head and tail should hold the teacher's weights: they are not touched in the first stage.

    Args:
        cut: the student.
        teacher: prepared inputs to scores, as the student's.
        teacher_features: prepared inputs to what the teacher has where the student has the output
            of the bottleneck, of each module of the tail (an ``nn.Sequential``; otherwise it is
            one module), and of ``last``: as many of these as are to be compared.
        data: what to learn from.
        settings: how.
        seed: of order, augmentation and noise.
        progress: told of each epoch.
        checkpoint: a folder for the state after each epoch. Where it holds one, the training goes
            on from there, to the same bits.

    Raises:
        ConfigError: features of other shapes than the student's, a loss that is not finite, or a
            checkpoint of another training.
    """
    at = Place(1, 0)
    kept = resume(checkpoint, cut, settings, seed)
    moments = None
    if kept is None:
        _calibrate(cut, data, seed)
    else:
        at, moments = kept
    for stage in STAGES:
        due = settings.epochs(stage)
        if at.stage > stage:
            continue
        first = at.epoch if at.stage == stage else 0
        if first < due:
            with learning(cut, stage) as trained:
                if not trained:
                    continue  # principal axes, for one, are measured and not learned
                optimizer = _optimizer(cut, trained, settings, moments)
                for epoch in range(first, due):
                    generator = generator_of(seed, stage, epoch)
                    loss = run_stage(
                        cut,
                        teacher,
                        teacher_features,
                        data,
                        settings,
                        stage,
                        optimizer,
                        generator,
                        span=(epoch / due, (epoch + 1) / due),
                    )
                    if epoch + 1 == due and stage != 2:
                        _calibrate(cut, data, seed)
                    keep(checkpoint, cut, optimizer, settings, seed, Place(stage, epoch + 1))
                    if progress is not None:
                        progress(STAGES[stage], epoch + 1, due, loss)
        moments = None
    for part in cut.parts():
        part.eval()
    return cut


def run_stage(
    cut: Cut,
    teacher: nn.Module,
    teacher_features: TeacherFeatures,
    data: Batches,
    settings: DistillSettings,
    stage: int,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    span: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Train one epoch of a stage; return the mean loss of an example.

    Args:
        cut, teacher, teacher_features, data, settings: as for ``distill``.
        stage: 1, 2 or 3.
        optimizer: of what ``learning`` yields.
        generator: of order, augmentation and noise.
        span: which part of the stage this epoch is, as shares of it: sets the learning rate.

    Raises:
        ConfigError: as ``distill``.
    """
    teacher.eval()
    total, seen = 0.0, 0
    for index, (inputs, labels) in enumerate(data.epoch(generator)):
        along = span[0] + (span[1] - span[0]) * index / len(data)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(stage, along) * group["faster"]
        if stage == 1:
            loss = feature_loss(cut, teacher_features, inputs, settings, generator)
        else:
            beta = settings.beta if stage == 3 else None
            loss = score_loss(cut, teacher, inputs, labels, beta, generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError("the loss is no longer finite: distill with a smaller lr")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += value * len(inputs)
        seen += len(inputs)
    return total / seen


@contextmanager
def learning(cut: Cut, stage: int) -> Iterator[list[nn.Parameter]]:
    """Let only what a stage trains take gradients; yield its parameters.

    Stage 1: the bottleneck. Stage 2: its decoder, the tail and the last layers. Stage 3: all these.
    """
    modules: list[nn.Module] = [cut.bottleneck]
    if stage > 1:
        modules = [cut.server] if stage == 2 else [cut.bottleneck, cut.tail]
        if cut.last is not None:
            modules.append(cut.last)
    trained = [parameter for module in modules for parameter in module.parameters()]
    everything = [parameter for part in cut.parts() for parameter in part.parameters()]
    before = [parameter.requires_grad for parameter in everything]
    for part in cut.parts():
        part.eval()
        part.requires_grad_(False)
    for module in modules:
        module.train()
        module.requires_grad_()
    try:
        yield trained
    finally:
        for parameter, flag in zip(everything, before, strict=True):
            parameter.requires_grad_(flag)


def make_optimizer(
    cut: Cut, trained: Sequence[nn.Parameter], settings: DistillSettings
) -> torch.optim.Adam:
    """Return Adam for ``trained``, the prior's parameters at a rate of their own."""
    prior = {id(parameter) for parameter in cut.bottleneck.prior_parameters()}
    groups = [
        {"params": [p for p in trained if id(p) not in prior], "faster": 1.0},
        {"params": [p for p in trained if id(p) in prior], "faster": _PRIOR_RATE},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]], lr=settings.lr)


def _optimizer(
    cut: Cut,
    trained: Sequence[nn.Parameter],
    settings: DistillSettings,
    moments: dict[str, Tensor] | None,
) -> torch.optim.Adam:
    made = make_optimizer(cut, trained, settings)
    if moments:
        restore(made, moments)
    return made


@torch.no_grad()
def _calibrate(cut: Cut, data: Batches, seed: int) -> None:
    """Measure what is measured, on some of the examples as the head sees them."""
    parts: list[Tensor] = []
    for inputs, _ in data.epoch(generator_of(seed, 0, 0)):
        parts.append(cut.head(inputs))
        if sum(map(len, parts)) >= _SEEN_TO_CALIBRATE:
            break
    cut.bottleneck.calibrate(torch.cat(parts))


def generator_of(*numbers: int) -> torch.Generator:
    """Return the generator of an epoch (seed, stage, epoch): begun anew, it draws the same."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)
