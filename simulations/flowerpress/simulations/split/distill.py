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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.simulations.split.batches import Batches
from flowerpress.simulations.split.distill_state import Place, keep, restore, resume

__all__ = [
    "STAGES",
    "DistillSettings",
    "Tick",
    "distill",
    "generator_of",
    "learning",
    "make_optimizer",
    "run_stage",
]

TeacherFeatures = Callable[[Tensor], Sequence[Tensor]]
"""Prepared inputs to what the teacher's parts put out, from where the bottleneck's decoder ends."""

Tick = Callable[[str, int, int, float], None]
"""Called after each epoch: which stage, how many epochs are done and due, the mean loss."""

STAGES = {1: "features", 2: "tail", 3: "all"}
"""What is met or trained in each stage."""

_RATES = {1: 1.0, 2: 0.2, 3: 0.5}
_PRIOR_RATE = 10.0
_LEAST_ENERGY = 1e-9
_SEEN_TO_CALIBRATE = 2048


@dataclass(frozen=True)
class DistillSettings:
    """How a cut network is distilled.

    ``beta``: squared error that a bit of an example is worth; in the third stage, of the loss in
    nats. ``lr``: of Adam in the first stage, the second has a fifth and the third half of it; each
    falls to zero along a cosine. ``rounding``: what the first stage has in place of rounding, noise
    as wide as a step or rounding itself with gradients straight through. ``relative``: each error
    counts in shares of the square of the teacher's features, so that late ones, which are few and
    matter most, weigh as much as early ones.

    Raises:
        ConfigError: a number out of range.
    """

    beta: float = 3e-4
    epochs_stage1: int = 8
    epochs_stage2: int = 4
    lr: float = 3e-3
    batch_size: int = 64
    rounding: Literal["noise", "straight-through"] = "noise"
    relative: bool = True
    epochs_stage3: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta >= 0):
            raise ConfigError(f"beta is {self.beta}; it must be a number from 0 up")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ConfigError(f"lr is {self.lr}; it must be a number above 0")
        if min(map(self.epochs, STAGES)) < 0 or self.batch_size < 1:
            raise ConfigError("epochs must be at least 0, and batch_size at least 1")
        if self.rounding not in ("noise", "straight-through"):
            raise ConfigError(f"rounding is {self.rounding!r}; it is noise or straight-through")

    def epochs(self, stage: int) -> int:
        """Return the epochs of stage 1, 2 or 3."""
        return (self.epochs_stage1, self.epochs_stage2, self.epochs_stage3)[stage - 1]

    def rate(self, stage: int, along: float) -> float:
        """Return the learning rate where a share ``along`` of a stage is over."""
        first = self.lr * _RATES[stage]
        return first * 0.5 * (1 + math.cos(math.pi * along))


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
            loss = _feature_loss(cut, teacher_features, inputs, settings, generator)
        else:
            beta = settings.beta if stage == 3 else None
            loss = _score_loss(cut, teacher, inputs, labels, beta, generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError("the loss is no longer finite: distill with a smaller lr")
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += value * len(inputs)
        seen += len(inputs)
    return total / seen


def _feature_loss(
    cut: Cut,
    teacher_features: TeacherFeatures,
    inputs: Tensor,
    settings: DistillSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return squared errors of all stages and beta times the bits, both of an example."""
    with torch.no_grad():
        targets = teacher_features(inputs)
        entering = cut.head(inputs)
    features, bits = cut.bottleneck.relaxed(entering, generator, noise=settings.rounding == "noise")
    loss = settings.beta * bits
    for target, made in zip(targets, _stages(cut, features), strict=False):
        if target.shape != made.shape:
            raise ConfigError(
                f"the teacher's features have shape {tuple(target.shape)} where the student's have "
                f"{tuple(made.shape)}: compare the same parts of both"
            )
        error = (made - target).square().sum()
        if settings.relative:
            error = error * (len(inputs) / target.square().sum().clamp(min=_LEAST_ENERGY))
        loss = loss + error
    return loss / len(inputs)


def _stages(cut: Cut, features: Tensor) -> Iterator[Tensor]:
    yield features
    parts = list(cut.tail) if isinstance(cut.tail, nn.Sequential) else [cut.tail]
    for part in [*parts, *([] if cut.last is None else [cut.last])]:
        features = part(features)
        yield features


def _score_loss(
    cut: Cut,
    teacher: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    beta: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Return half the cross entropy with the labels and half the divergence from the teacher.

    With ``beta`` the encoder learns too, and so many times the bits of an example are added.
    """
    with torch.no_grad():
        hoped = functional.log_softmax(teacher(inputs).flatten(0, -2), -1)
        entering = cut.head(inputs)
        if beta is None:
            latent = cut.bottleneck.rounded(cut.bottleneck.encoder(entering))
    if beta is None:
        scores, price = cut.server(latent), entering.new_zeros(())
    else:
        features, bits = cut.bottleneck.relaxed(entering, generator, noise=False)
        scores, price = cut.tail(features), beta / len(inputs) * bits
    scores = (scores if cut.last is None else cut.last(scores)).flatten(0, -2)
    own = functional.log_softmax(scores, -1)
    divergence = functional.kl_div(own, hoped, reduction="batchmean", log_target=True)
    loss: Tensor = 0.5 * functional.nll_loss(own, labels.flatten()) + 0.5 * divergence + price
    return loss


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
