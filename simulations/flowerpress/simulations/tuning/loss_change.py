"""What the loss does when one tensor's update is compressed and all others are exact."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flowerpress.compression import Manifest, TensorSpec, encode_frames, preset
from flowerpress.simulations.tasks import Samples, Task
from flowerpress.simulations.tuning.class_weights import example_weights
from flowerpress.simulations.tuning.updates import State, moved

__all__ = ["LossChange", "coding_error"]


class LossChange:
    """The mean loss of a model with some tensors moved, against that of the model itself.

    Judged on examples that no client trained on; the test set stays out of it, since a plan chosen
    by the test set would look better there than it is.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        state: State,
        samples: Samples,
        class_weights: NDArray[np.float64],
    ) -> None:
        """``state``: the model with every update exact. ``model`` is only used to compute with.

        Raises:
            ConfigError: weights of classes where examples have none.
        """
        self._task = task
        self._model = model
        self._state = state
        self._samples = samples
        self._weights = example_weights(samples, class_weights)
        self.examples = len(samples)
        self.loss = self._loss(state)

    def of(self, errors: Mapping[str, NDArray[np.float32]]) -> float:
        """Return by how much the loss grows when ``errors`` are added to the tensors they name.

        Infinite where the model then scores nothing that is finite.
        """
        change = self._loss(moved(self._state, errors)) - self.loss
        return change if np.isfinite(change) else np.inf

    def _loss(self, state: State) -> float:
        self._model.load_state_dict(state)
        losses = self._task.evaluate(self._model, self._samples).loss
        return float(np.dot(losses.astype(np.float64), self._weights) / len(self._samples))


def coding_error(
    spec: TensorSpec, values: NDArray[np.float32], setting: str, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return what a receiver decodes of ``values`` less ``values`` itself, in their shape.

    Raises:
        EncodeError: the setting cannot code this tensor.
    """
    manifest = Manifest((TensorSpec(spec.name, spec.shape),))
    plan = preset(setting).plan(manifest)
    _, (decoded,) = encode_frames(manifest, plan, {spec.name: values}, rng)
    received = np.asarray(decoded.dense(), np.float32).reshape(values.shape)
    difference: NDArray[np.float32] = received - values
    return difference
