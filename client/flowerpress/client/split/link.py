"""What a device asks of a split service: steps of training, and predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.client.split.session import Array, Session
from flowerpress.compression import FormatError
from flowerpress.compression.features import FeatureCodec, feature_codec
from flowerpress.protos.split import Kind, SplitMessage, pack_labels

__all__ = ["SplitLink"]

_EXACT = feature_codec("none")


class SplitLink(Session):
    """A session in which a device trains, or asks for predictions.

        with SplitLink("host:7070", run=1, client=3, round=1, token=token) as link:
            gradient, loss = link.step(latent, labels)

    Arguments and attributes are those of ``Session``.
    """

    # The step whose gradient is still to be sent (U-shaped), and the shape of its latent.
    _half: tuple[int, tuple[int, ...]] = (0, ())

    def step(
        self, latent: Array, labels: NDArray[np.int64], classes: int = 0
    ) -> tuple[Array, float]:
        """Train the server's part on a batch.

        Args:
            latent: float32 (B, C, ...).
            labels: int64 (B, ...), from 0 up.
            classes: how many there are, if it is known; they decide the bits of a label.

        Returns:
            The gradient of the loss for what the server decoded, float32 like ``latent``, and the
            loss.

        Raises:
            EncodeError: a latent that cannot be coded (NaN, infinity).
            RoundLostError: the service no longer knows the round's steps.
            SplitError: no answer in time, or a refusal.
        """
        labels = np.asarray(labels, np.int64)
        classes = classes or int(labels.max(initial=0)) + 1
        message = SplitMessage(
            Kind.FEATURES,
            step=self.acknowledged + 1,
            shape=latent.shape,
            label_shape=labels.shape,
            classes=classes,
            labels=pack_labels(labels, classes),
        )
        answer = self._exchange(message, latent)
        return self._array(answer, Kind.GRADIENT, self._gradients, latent.shape), answer.loss

    def forward(self, latent: Array) -> Array:
        """Send the latent of a batch (U-shaped); return what the last layers take.

        Raises: as ``step``.
        """
        message = SplitMessage(Kind.FEATURES, step=self.acknowledged + 1, shape=latent.shape)
        answer = self._exchange(message, latent)
        self._half = (message.step, message.shape)
        return self._array(answer, Kind.TAIL_INPUT, self._gradients, None)

    def backward(self, gradient: Array) -> Array:
        """Send the gradient of what ``forward`` returned; return that of its latent.

        Raises: as ``step``.
        """
        step, shape = self._half
        rng = np.random.default_rng([self._seed, self.round, self.client, step, 1])
        message = SplitMessage(
            Kind.TAIL_GRADIENT,
            step=step,
            shape=gradient.shape,
            payload=self._gradients.encode(gradient, rng),
        )
        answer = self._exchange(message)
        return self._array(answer, Kind.GRADIENT, self._gradients, shape)

    def infer(self, latent: Array) -> Array:
        """Return the service's scores for the latent of a batch (B, C, ...).

        Raises: as ``step``.
        """
        message = SplitMessage(Kind.INFER, step=self.acknowledged, shape=latent.shape)
        answer = self._exchange(message, latent)
        return self._array(answer, Kind.PREDICTION, _EXACT, None)

    def _array(
        self,
        answer: SplitMessage,
        kind: Kind,
        codec: FeatureCodec,
        shape: tuple[int, ...] | None,
    ) -> Array:
        if answer.kind is not kind or (shape is not None and answer.shape != tuple(shape)):
            raise FormatError("answer", f"{answer.kind.name} of shape {answer.shape}")
        if len(answer.shape) < 2:
            raise FormatError("answer.shape", f"is {answer.shape}")
        values = codec.decode(answer.payload, answer.shape)
        if kind is Kind.GRADIENT:
            self.acknowledged = answer.step
        return values
