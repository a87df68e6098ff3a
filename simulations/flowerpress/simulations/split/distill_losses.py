"""What a cut network is to come close to: the teacher's features, and its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut
from flowerpress.simulations.split.distill_settings import DistillSettings

__all__ = ["TeacherFeatures", "feature_loss", "score_loss"]

TeacherFeatures = Callable[[Tensor], Sequence[Tensor]]
"""Prepared inputs to what the teacher's parts put out, from where the bottleneck's decoder ends."""

_LEAST_ENERGY = 1e-9


def feature_loss(
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


def score_loss(
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
