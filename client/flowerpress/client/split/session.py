"""A device's session with a split service: sends, waits, reconnects, repeats, and counts bytes."""

from __future__ import annotations

import random
import time
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from flowerpress.client.split.errors import (
    RoundLostError,
    SplitRefusedError,
    SplitUnreachableError,
)
from flowerpress.client.split.metered import LinkMeter
from flowerpress.client.stream import SILENCE, BrokenError, Stream
from flowerpress.compression import FormatError, WireError
from flowerpress.compression.features import FeatureCodec, TableCodec, Tables, feature_codec
from flowerpress.protos.split import (
    HELLO,
    METHOD,
    Code,
    Kind,
    SplitLimits,
    SplitMessage,
    channel_options,
    pack_split,
    unpack_split,
)

__all__ = ["Array", "Session"]

Array = NDArray[np.float32]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
# The service's mind may change about these; all others are final for the message at hand.
_AGAIN = (Code.CHECKSUM, Code.BUSY)
_MOST_AGAIN = 5
_TURN = "it is another client's turn"


class Session:
    """A connection to a split service; a context manager that opens and closes it.

    One that breaks is made anew and the message is sent again, until ``deadline`` seconds pass
    without an answer; the service applies a step once, however often it arrives.

    Args:
        address: ``host:port``.
        run: identity of the run.
        client: number of this client in it.
        round: of training; 0: for predictions only.
        token: that the service asks for.
        root_certificates: PEM of the authority of the service's certificate; None: no TLS.
        deadline: seconds to wait for an answer, attempts to reconnect included. A service that
            answers that it is another client's turn is waited for as long as it does so.
        seed: of stochastic codecs.
        restart: take back what this client did in this round so far.
        cut: what this device takes the cut for; a service that is cut elsewhere refuses. Empty:
            whatever the service says.
        limits: caps on what the service may send.

    Attributes:
        cut: the service's, once it is connected.
        codec: how features are coded, as the service asks.
        tables: the service's tables, or None.
        mode: ``vanilla`` or ``u``, the service's.
        meter: bytes both ways.
        acknowledged: the last step whose answer arrived.
    """

    def __init__(
        self,
        address: str,
        *,
        run: int,
        client: int,
        round: int = 0,  # noqa: A002 - the term of the field
        token: bytes = b"",
        root_certificates: bytes | None = None,
        deadline: float = 60.0,
        seed: int = 0,
        restart: bool = False,
        cut: str = "",
        limits: SplitLimits | None = None,
    ) -> None:
        self.address, self.run, self.client, self.round = address, run, client, round
        self.meter = LinkMeter()
        self.tables: Tables | None = None
        self.codec: FeatureCodec = feature_codec("none")
        self.mode = "vanilla"
        self.acknowledged = 0
        self._limits = limits or SplitLimits()
        self._token, self._deadline, self._seed = token, deadline, seed
        self._restart = restart
        self.cut, self._expected = cut, cut
        self._largest = 0
        self._gradients: FeatureCodec = self.codec
        self._key = b""
        self._stream: Stream | None = None
        options = channel_options(self._limits)
        self._channel = (
            grpc.insecure_channel(address, options)
            if root_certificates is None
            else grpc.secure_channel(
                address, grpc.ssl_channel_credentials(root_certificates), options
            )
        )

    def __enter__(self) -> Self:
        try:
            self._connected(time.monotonic() + self._deadline)
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self.round:
                self._exchange(SplitMessage(Kind.CLOSE, step=self.acknowledged))
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the connection without a word, as a device does that loses power."""
        self._drop()
        self._channel.close()

    def _exchange(self, message: SplitMessage, latent: Array | None = None) -> SplitMessage:
        """Send until there is an answer; the message is coded anew if the tables are new ones."""
        deadline = time.monotonic() + self._deadline
        refused = 0
        while True:
            stream = self._connected(deadline)
            ready = message if latent is None else self._coded(message, latent)
            answer = self._told(stream, ready, deadline)
            if answer is None:
                if time.monotonic() >= deadline:
                    raise self._unreachable(SILENCE)
                continue
            if answer.kind is not Kind.ERROR:
                return answer
            code, text = _code(answer), answer.text
            refused += 1
            if code is Code.UNKNOWN_STEP:
                raise RoundLostError(code, text)
            if refused >= _MOST_AGAIN or code not in (*_AGAIN, Code.STALE_TABLES):
                raise SplitRefusedError(code, text)
            self._drop()  # new tables come with a new session
            time.sleep(_FIRST_PAUSE)

    def _coded(self, message: SplitMessage, latent: Array) -> SplitMessage:
        rng = np.random.default_rng([self._seed, self.round, self.client, message.step])
        version, digest = (self.tables.version, self.tables.digest[:8]) if self.tables else (0, b"")
        values = {name: getattr(message, name) for name in ("kind", "step", "shape")}
        values |= {name: getattr(message, name) for name in ("label_shape", "classes", "labels")}
        payload = self.codec.encode(np.ascontiguousarray(latent, np.float32), rng)
        return SplitMessage(**values, payload=payload, tables_version=version, tables_digest=digest)

    def _told(self, stream: Stream, message: SplitMessage, deadline: float) -> SplitMessage | None:
        """Send once; None where the connection broke or what came back cannot be read."""
        data = pack_split(message, self._key)
        if len(data) > self._largest:
            raise SplitRefusedError(
                Code.LIMIT,
                f"a message of {len(data)} bytes, where the service takes {self._largest}; send "
                "smaller batches",
            )
        self.meter.up.record(message, len(data))
        try:
            body = stream.ask(data, self._attempt(deadline))
            answer = unpack_split(body, self._key, self._limits)
        except (BrokenError, WireError):
            self._drop()
            return None
        if answer.kind is not Kind.ERROR and answer.step != message.step:
            self._drop()
            return None
        self.meter.down.record(answer, len(body))
        return answer

    def _connected(self, deadline: float) -> Stream:
        pause = _FIRST_PAUSE
        problem = SILENCE
        while self._stream is None:
            found = self._open(deadline)
            if found is None:
                break
            # The last attempt may have had no time; what was heard before says more.
            problem = problem if found == SILENCE else found
            if problem == _TURN:  # the service is there, and had us wait already
                deadline, pause = time.monotonic() + self._deadline, _FIRST_PAUSE
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._unreachable(problem)
            time.sleep(min(pause * random.uniform(0.5, 1.0), left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        assert self._stream is not None
        return self._stream

    def _unreachable(self, problem: str) -> SplitUnreachableError:
        return SplitUnreachableError(
            f"no answer from {self.address} for {self._deadline:g} s ({problem}): is the service "
            "running there, and does it expect TLS as this device does?"
        )

    def _attempt(self, deadline: float) -> float:
        """Return when to give an attempt up: a lost answer leaves time for another attempt."""
        return min(deadline, time.monotonic() + self._deadline / 2)

    def _open(self, deadline: float) -> str | None:
        """Try once; return what stood in the way."""
        stream = Stream(self._channel, METHOD)
        opened = SplitMessage(
            Kind.OPEN,
            step=self.acknowledged,
            round=self.round,
            run=self.run,
            client=self.client,
            token=self._token,
            restart=self._restart,
            cut=self._expected,
            tables_version=self.tables.version if self.tables else 0,
            tables_digest=self.tables.digest[:8] if self.tables else b"",
            largest=self._limits.largest,
            patience=self._deadline,
        )
        try:
            data = pack_split(opened, HELLO)
            self.meter.up.record(opened, len(data))
            body = stream.ask(data, self._attempt(deadline))
            ack = unpack_split(body, HELLO, self._limits)
            self.meter.down.record(ack, len(body))
            if ack.kind is Kind.ERROR:
                stream.end()
                return self._refused(ack)
            self._accept(ack)
        except (BrokenError, WireError) as error:
            stream.end()
            return str(error)
        except BaseException:
            stream.end()
            raise
        self._stream = stream
        self._restart = False
        return None

    def _refused(self, answer: SplitMessage) -> str:
        code = _code(answer)
        if code is Code.UNKNOWN_STEP:
            raise RoundLostError(code, answer.text)
        if code not in (*_AGAIN, Code.TURN):
            raise SplitRefusedError(code, answer.text)
        return _TURN if code is Code.TURN else answer.text

    def _accept(self, ack: SplitMessage) -> None:
        if ack.kind is not Kind.ACK or not ack.session:
            raise FormatError("answer", "is not an ACK")
        if ack.tables:
            self.tables = Tables.from_bytes(ack.tables, max_channels=self._limits.channels)
        if ack.tables_version:
            if self.tables is None or self.tables.digest[:8] != ack.tables_digest:
                self.tables = None
                raise FormatError("answer.tables", "are not the ones that it names")
            self.codec = TableCodec(self.tables)
        else:
            self.tables, self.codec = None, feature_codec(ack.features)
        self._gradients = feature_codec(ack.gradients)
        self.mode, self.cut, self._key = ack.mode, ack.cut, ack.session
        self._largest = ack.largest

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.end()
            self._stream = None


def _code(answer: SplitMessage) -> Code:
    try:
        return Code(answer.code)
    except ValueError:
        raise FormatError("answer.code", f"is {answer.code}") from None
