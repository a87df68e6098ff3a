"""Training the device's part of a cut network against a running split service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flowerpress.client.split.errors import RoundLostError
from flowerpress.client.split.link import SplitLink
from flowerpress.compression import ConfigError
from flowerpress.compression.bottleneck import Cut

__all__ = ["SplitResult", "train_split"]

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

_ATTEMPTS = 3


@dataclass(frozen=True)
class SplitResult:
    """What a round of training came to.

    ``loss`` is the mean over all examples as they were seen; ``examples`` counts them, one that
    was seen twice as two; ``bits`` is the mean rate of an example's latent under the prior, as it
    was estimated for the loss (0 without a prior).
    """

    loss: float
    examples: int
    bits: float


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of scores (B, K) or (B, T, K) and labels (B,) or (B, T)."""
    return functional.cross_entropy(scores.flatten(0, -2), labels.flatten())


def train_split(
    connect: Callable[[bool], SplitLink],
    cut: Cut,
    batches: Callable[[], Batches],
    optimizers: Callable[[Cut], Sequence[torch.optim.Optimizer]],
    *,
    beta: float = 0.0,
    generator: torch.Generator | None = None,
    loss: Loss = cross_entropy,
) -> SplitResult:
    """Train the device's side of ``cut`` for one round.

    A step sends the coded latent y, gets g = dLoss/dy of what the server decoded, and descends on
    <g, y> + beta * bits of an example: the rate term never leaves the device. Where ``cut.last`` is
    set (U-shaped), the labels stay, too: the server's output comes down, its gradient goes up.

    Args:
        connect: makes a link to the service; called again, with True, where the round begins anew.
        cut: its ``device`` and ``last`` modules are trained in place; ``tail`` is not touched.
        batches: makes the batches of one round, prepared inputs (B, ...) and int64 labels (B, ...);
            called again where the round begins anew, and then with the same batches.
        optimizers: makes the optimizers of the device's modules, new for each attempt.
        beta: loss for each bit of an example.
        generator: of the noise in the estimate of the rate.
        loss: of the U-shaped mode; otherwise the server's counts.

    Raises:
        RoundLostError: the service lost the round, and lost it again each time it was begun anew.
        SplitError: whatever else the link cannot mend.
        ConfigError: there was no batch.
    """
    modules = [cut.device] if cut.last is None else [cut.device, cut.last]
    start = [{k: v.clone() for k, v in module.state_dict().items()} for module in modules]
    noise = None if generator is None else generator.get_state()
    for attempt in range(1, _ATTEMPTS + 1):
        made = optimizers(cut)
        try:
            with connect(attempt > 1) as link:
                return _train(link, cut, batches(), made, beta, generator, loss)
        except RoundLostError:
            if attempt == _ATTEMPTS:
                raise
            for module, state in zip(modules, start, strict=True):
                module.load_state_dict(state)
            if generator is not None and noise is not None:
                generator.set_state(noise)
    raise AssertionError("the last attempt returns or raises")


def _train(
    link: SplitLink,
    cut: Cut,
    batches: Batches,
    optimizers: Sequence[torch.optim.Optimizer],
    beta: float,
    generator: torch.Generator | None,
    loss: Loss,
) -> SplitResult:
    total, bits, examples = 0.0, 0.0, 0
    for inputs, labels in batches:
        for optimizer in optimizers:
            optimizer.zero_grad()
        latent = cut.device(inputs)
        if cut.last is None:
            gradient, value = link.step(latent.detach().numpy(), labels.numpy())
        else:
            output = torch.from_numpy(link.forward(latent.detach().numpy())).requires_grad_()
            judged = loss(cut.last(output), labels)
            torch.autograd.backward(judged)
            value = float(judged.detach())
            assert output.grad is not None
            gradient = link.backward(output.grad.numpy())
        objective = (latent * torch.from_numpy(gradient)).sum()
        if beta:
            rate = cut.bottleneck.rate(latent, generator)
            objective = objective + beta / len(inputs) * rate
            bits += float(rate.detach())
        torch.autograd.backward(objective)
        for optimizer in optimizers:
            optimizer.step()
        total += value * len(inputs)
        examples += len(inputs)
    if not examples:
        raise ConfigError("there is no batch to train on; give this client some examples")
    return SplitResult(total / examples, examples, bits / examples)
