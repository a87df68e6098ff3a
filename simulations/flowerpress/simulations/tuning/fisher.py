"""The diagonal of the empirical Fisher information, summed up tensor by tensor in one pass.

The squared gradient of each example's own loss says how much the loss minds an error in a weight,
to second order: the same measure as in elastic weight consolidation (Kirkpatrick et al. 2017,
"Overcoming catastrophic forgetting in neural networks", section 2). It is the *empirical* Fisher:
the labels are those of the data, not drawn from the model; Kunstner et al. 2019, "Limitations of
the empirical Fisher approximation for natural gradient descent", say where the two differ.

It is about a model at rest. An update in the middle of training is not a disturbance of one: what
is lost of it is progress, to first order, and costs about as much in one layer as in another. The
direct measure (``loss_change``) sees that, with weights near 1; this one gives most to the last
layer. On digits with 600 bytes a message, 8 rounds and 3 seeds, plans with weights none, loss and
fisher ended at 89.1%, 88.5% and 76.2%.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.simulations.tasks import Samples, Task
from flowerpress.simulations.tuning.parts import Part

__all__ = ["Fisher"]


class Fisher:
    """Adds up squared gradients, one example at a time.

    One example, not a batch: the square of a batch's mean gradient is mostly about what its
    examples agree on, and would change with the size of the batch. Nothing is lost by it on a CPU,
    where a backward pass vectorised over examples (``torch.func``) takes as long for each.
    The model is in evaluation mode, so that no batch statistics tie examples together.
    """

    def __init__(self, task: Task, model: nn.Module, parts: Sequence[Part]) -> None:
        """``model``: its weights stay as they are; it is put into evaluation mode.

        ``parts``: tensors of the model, or blocks of them; those that are no parameters that take
        gradients (running means) are left out of all results.
        """
        self._task = task
        self._model = model.eval()
        self._device = next(model.parameters()).device
        own = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._parts = [part for part in parts if part.tensor in own]
        self._places = {name: at for at, name in enumerate(own)}
        self._parameters = list(own.values())
        self._sums = np.zeros(len(self._parts))
        self._total = 0.0
        self.examples = 0

    def add(self, sample: Samples, weight: float = 1.0) -> None:
        """Add one example's squared gradients, times ``weight``.

        The second derivative of a weighted mean of losses is the weighted mean of theirs, so the
        weight of a class goes in as it is and not squared.
        """
        scores = self._model(self._task.prepare(sample.inputs).to(self._device))
        labels = sample.labels.to(self._device)
        loss = functional.cross_entropy(scores.flatten(0, -2), labels.flatten())
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        squares = [self._square(part, found[self._places[part.tensor]]) for part in self._parts]
        if np.isfinite(squares).all():
            self._sums += weight * np.array(squares)
            self._total += weight
            self.examples += 1

    def squared_gradients(self) -> dict[str, float]:
        """Return the mean squared gradient of an element of each part; none without examples."""
        if not self._total:
            return {}
        means = self._sums / self._total
        return {
            part.name: float(mean) / part.spec.size
            for part, mean in zip(self._parts, means, strict=True)
            if part.spec.size
        }

    @staticmethod
    def _square(part: Part, gradient: Tensor | None) -> float:
        if gradient is None:  # the model does not use it
            return 0.0
        own = gradient if part.rows is None else gradient[part.rows[0] : part.rows[1]]
        return float(own.double().square().sum())
