"""What the service answers to one message, from bytes to a step and back; no connection in sight.

A step is applied once: a repeated one gets the answer that is kept, and a message that cannot be
used changes nothing. All of a client's messages pass under the lock of its seat, so a step that was
cut off in the middle is finished before its repetition is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowerpress.compression import (
    ChecksumError,
    ConfigError,
    EncodeError,
    LimitError,
    NonFiniteError,
    UnknownNameError,
    WireError,
)
from flowerpress.compression.features import FeatureCodec, TableCodec, Tables, feature_codec
from flowerpress.protos.split import Code, Kind, SplitLimits, SplitMessage, unpack_labels
from flowerpress.server.split.sessions import Seat, Session
from flowerpress.server.split.tails import Part, Tails, TurnError

__all__ = ["MODES", "Desk", "Refusal", "refusal_of"]

T = TypeVar("T")

MODES = ("u", "vanilla")


class Refusal(Exception):  # noqa: N818 - it is an answer
    """Why a message is not used, as it goes to the client."""

    def __init__(self, code: Code, text: str) -> None:
        self.code, self.text = code, text
        super().__init__(text)


class Desk:
    """Answers messages; see ``SplitService`` for the arguments.

    Raises:
        ConfigError: an unknown codec or mode.
    """

    def __init__(
        self,
        tails: Tails,
        features: str,
        gradients: str,
        mode: str,
        limits: SplitLimits,
        seed: int,
        cut: str = "",
        ttl: float = 300.0,
    ) -> None:
        if mode not in MODES:
            raise UnknownNameError("mode", mode, MODES)
        self.tails = tails
        self._features, self._gradients, self._mode = features, gradients, mode
        self._limits, self._seed = limits, seed
        self._cut, self._ttl = cut, ttl
        self._plain = feature_codec(features)
        self._down = feature_codec(gradients)
        self._exact = feature_codec("none")
        self.tables: Tables | None = None

    def welcome(self, key: bytes, opened: SplitMessage, seat: Seat) -> SplitMessage:
        """Return the ACK of a session: codecs, and tables unless the client has them."""
        if opened.mode not in ("", self._mode):
            raise Refusal(Code.MODE, f"the service's mode is {self._mode!r}")
        if opened.cut not in ("", self._cut):
            raise Refusal(Code.MODE, f"the network is cut at {self._cut!r} here")
        tables = self.tables
        body = b""
        if tables is not None and opened.tables_digest != tables.digest[:8]:
            body = tables.to_bytes()
        return SplitMessage(
            Kind.ACK,
            step=seat.done,
            session=key,
            mode=self._mode,
            tables_version=tables.version if tables else 0,
            tables_digest=tables.digest[:8] if tables else b"",
            tables=body,
            features=self._features,
            gradients=self._gradients,
            largest=self._limits.largest,
            cut=self._cut,
            patience=self._ttl,
        )

    def answer(
        self, message: SplitMessage, seat: Seat, size: int, session: Session
    ) -> SplitMessage:
        """Return the answer to a checked message of ``size`` bytes from ``session``.

        Raises:
            Refusal, WireError, TurnError, FloatingPointError: it is not used; see ``refusal_of``.
        """
        with seat.lock:
            if seat.holder is not session:
                raise Refusal(Code.BUSY, "a newer stream of this client took over")
            seat.heard = time.monotonic()
            kind = {
                Kind.FEATURES: "features",
                Kind.TAIL_GRADIENT: "tail gradients",
                Kind.INFER: "features",
            }.get(message.kind, "others")
            seat.traffic.up.record(
                size,
                4 * message.elements,
                **{kind: len(message.payload), "labels": len(message.labels)},
            )
            match message.kind:
                case Kind.INFER:
                    return self._infer(message)
                case Kind.CLOSE:
                    if message.step != seat.done:
                        raise Refusal(Code.UNKNOWN_STEP, f"{seat.done} steps were taken")
                    if seat.round and not seat.closed:
                        self.tails.leave(seat.client)
                        seat.left = True
                    return SplitMessage(Kind.CLOSE, step=seat.done)
                case Kind.FEATURES | Kind.TAIL_GRADIENT if seat.round:
                    return self._step(message, seat)
        raise Refusal(Code.MALFORMED, f"{message.kind.name} is not for this session")

    def _infer(self, message: SplitMessage) -> SplitMessage:
        latent = torch.from_numpy(self._decoded(message))
        scores = _computed(lambda: self.tails.infer(latent))
        return self._sent(
            SplitMessage(Kind.PREDICTION, step=message.step), scores, self._exact, None
        )

    def _step(self, message: SplitMessage, seat: Seat) -> SplitMessage:
        if seat.closed:
            raise Refusal(Code.ROUND, "the round is over")
        features = message.kind is Kind.FEATURES
        known = self._known(message, seat)
        if known is not None:
            return known
        if message.step != seat.done + 1 or seat.left:
            raise Refusal(
                Code.UNKNOWN_STEP, f"step {message.step} where {seat.done + 1} is the next"
            )
        part = self.tails.part(seat.client)
        if features and self._mode == "u":
            return self._begun(message, seat, part)
        gradient, loss = (
            self._trained(message, part) if features else self._ended(message, seat, part)
        )
        # From here on the step is taken, whatever becomes of its answer.
        seat.done, seat.answer = message.step, None
        if features:
            seat.seen = _digest(message)
        _note(seat, len(gradient), loss)
        told = SplitMessage(Kind.GRADIENT, step=message.step, loss=loss if features else 0.0)
        seat.answer = self._sent(told, gradient, self._down, self._drawn(seat, message.step, 2))
        return seat.answer

    def _known(self, message: SplitMessage, seat: Seat) -> SplitMessage | None:
        """Return the answer that is kept for a repeated message, if there is one."""
        if message.kind is Kind.TAIL_GRADIENT:
            return seat.answer if message.step == seat.done else None
        kept = seat.shown if self._mode == "u" else seat.answer
        if kept is None or kept.step != message.step:
            return None
        if self._mode == "u" and seat.pending is None and message.step > seat.done:
            return None  # the graph is used up or swept away
        if seat.seen != _digest(message):
            # A device that began again under an old number, for one.
            raise Refusal(Code.UNKNOWN_STEP, f"step {message.step} was taken with other features")
        return kept

    def _trained(self, message: SplitMessage, part: Part) -> tuple[Tensor, float]:
        latent = torch.from_numpy(self._decoded(message))
        labels = unpack_labels(message.labels, message.label_shape, message.classes)
        if message.label_shape[:1] != message.shape[:1]:
            raise Refusal(Code.SHAPE, "labels and features are of different numbers of samples")
        return _computed(lambda: part.step(latent, torch.from_numpy(labels)))

    def _begun(self, message: SplitMessage, seat: Seat, part: Part) -> SplitMessage:
        latent = torch.from_numpy(self._decoded(message))
        seat.shown = seat.pending = None
        leaf, output = _computed(lambda: part.forward(latent))
        told = SplitMessage(Kind.TAIL_INPUT, step=message.step)
        shown = self._sent(told, output, self._down, self._drawn(seat, message.step, 3))
        seat.pending, seat.shown, seat.seen = (message.step, leaf, output), shown, _digest(message)
        return shown

    def _ended(self, message: SplitMessage, seat: Seat, part: Part) -> tuple[Tensor, float]:
        if seat.pending is None or seat.pending[0] != message.step:
            # Its features were seen by a service that is no more, or were swept away.
            raise Refusal(Code.UNKNOWN_STEP, "there are no features of this step")
        _, leaf, output = seat.pending
        if message.shape != tuple(output.shape):
            raise Refusal(Code.SHAPE, f"{message.shape} where {tuple(output.shape)} was sent")
        up = torch.from_numpy(self._down.decode(message.payload, message.shape))
        # A graph can be walked once, whatever comes of it.
        seat.pending = None
        return _computed(lambda: part.backward(leaf, output, up)), float("nan")

    def _drawn(self, seat: Seat, step: int, purpose: int) -> np.random.Generator:
        """Return the generator of one answer: what it draws does not depend on timing."""
        return np.random.default_rng([self._seed, seat.round, seat.client, step, purpose])

    def _decoded(self, message: SplitMessage) -> NDArray[np.float32]:
        if len(message.shape) < 2 or message.shape[0] < 1:
            raise Refusal(Code.SHAPE, f"{message.shape} is no batch of features")
        tables = self.tables
        codec: FeatureCodec = self._plain
        if tables is not None:
            same = message.tables_digest == tables.digest[:8]
            if message.tables_version != tables.version or not same:
                raise Refusal(
                    Code.STALE_TABLES,
                    f"coded with tables {message.tables_version}; {tables.version} are in force",
                )
            codec = TableCodec(tables)
        elif message.tables_version:
            raise Refusal(Code.STALE_TABLES, "this service has no tables")
        return codec.decode(message.payload, message.shape)

    def _sent(
        self,
        told: SplitMessage,
        values: Tensor,
        codec: FeatureCodec,
        rng: np.random.Generator | None,
    ) -> SplitMessage:
        array = values.detach().float().contiguous().numpy()
        return replace(told, shape=array.shape, payload=codec.encode(array, rng))


def refusal_of(error: Exception) -> Refusal:
    """Return what a client is told of an error."""
    match error:
        case Refusal():
            return error
        case TurnError():
            over = Code.DEADLINE if error.late else Code.ROUND
            return Refusal(over if error.over else Code.TURN, str(error))
        case ChecksumError():
            return Refusal(Code.CHECKSUM, str(error))
        case NonFiniteError() | FloatingPointError():
            return Refusal(Code.NOT_FINITE, str(error))
        case LimitError():
            return Refusal(Code.LIMIT, str(error))
        case WireError() | EncodeError() | ConfigError():
            return Refusal(Code.MALFORMED, str(error))
    # What went wrong inside is for the server's log.
    return Refusal(Code.INTERNAL, "the step failed on the server; its log says more")


def _computed(compute: Callable[[], T]) -> T:
    """Run the module; features that it cannot take are the sender's mistake, not ours."""
    try:
        return compute()
    except (RuntimeError, IndexError, ValueError) as error:
        raise Refusal(Code.SHAPE, f"the network refuses these features: {error}") from error


def _digest(message: SplitMessage) -> bytes:
    digest = blake2b(message.payload, digest_size=16)
    digest.update(repr((message.shape, message.label_shape, message.classes)).encode())
    digest.update(message.labels)
    return digest.digest()


def _note(seat: Seat, samples: int, loss: float) -> None:
    report = seat.report
    before = report.loss * report.samples if report.samples else 0.0
    report.steps += 1
    report.samples += samples
    report.loss = (before + loss * samples) / report.samples
