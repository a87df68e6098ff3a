"""Ten thousand mutants of a split exchange, most of them to a service that has other clients.

A mutant is damaged first and then given the checksum of a session that its sender really has:
nothing of it is caught for being damaged on its way.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from torch import nn

from flowerpress.client.split import SplitLink
from flowerpress.client.stream import Stream
from flowerpress.compression import FlowerpressError, WireError
from flowerpress.compression.features import TableCodec, Tables, feature_codec
from flowerpress.protos.split import (
    HELLO,
    Code,
    Kind,
    SplitLimits,
    SplitMessage,
    client_token,
    pack_labels,
    pack_split,
    unpack_split,
)
from flowerpress.server.split import Copies, SplitService
from tests.hostile.mutate import EXTREMES, damaged
from tests.wire.splitting import (
    RUN,
    SECRET,
    Raw,
    assert_same,
    batches,
    linked,
    network,
    plain,
    serving,
    train_u_shaped,
    train_vanilla,
)

LIMITS = SplitLimits(largest=1 << 16, elements=1 << 14, clients=8, channels=64)
DATA = batches(2)
LATENT = network()[0](DATA[0][0]).detach().numpy()
LABELS = DATA[0][1].numpy()
GRADIENTS = "int8(stochastic=true)"
STREAMS, MESSAGES, OPENS, ANSWERS = 4_000, 2_000, 500, 1_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that an invalid number got further than it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tables() -> Tables:
    channels = LATENT.shape[1]
    steps = np.full(channels, 0.05, np.float32)
    symbols = np.rint(LATENT.swapaxes(0, 1).reshape(channels, -1) / 0.05).astype(np.int32)
    return Tables.from_symbols(1, symbols, np.zeros(channels, np.float32), steps)


TABLES = tables()


def signed(body: bytes, key: bytes) -> bytes:
    """Return a message as docs/wire-format.md has it: eight bytes of keyed BLAKE2b in front."""
    return blake2b(body, digest_size=8, key=key).digest() + body


def odd(value: Any, rng: random.Random, most: int) -> Any:
    """Return another value of the same type, up to what protobuf has room for."""
    match value:
        case bool():
            return not value
        case Kind():
            return rng.choice(list(Kind))
        case int():
            return min(most, max(0, rng.choice([*EXTREMES, value - 1, value + 1])))
        case float():
            return rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 3.4e38])
        case str():
            return rng.choice(["u", "none", "topk(density=2)", "nothing()", "x" * 201, "\0"])
        case bytes():
            return rng.choice([b"", damaged(value, rng), damaged(value, rng), rng.randbytes(64)])
        case tuple():
            out = [odd(each, rng, most) if rng.random() < 0.5 else each for each in value]
            return tuple(rng.choice([out, out[1:], [*out, 1], [*out, 0], out[::-1], [1] * 9]))
    raise TypeError(value)


def another(message: SplitMessage, rng: random.Random) -> bytes:
    """Return a message with odd fields, or with a damaged protobuf, without its checksum."""
    if rng.random() < 0.4:
        body = pack_split(message, HELLO)[8:]
        while (mutant := damaged(body, rng)) == body:
            pass
        return mutant
    used = [
        each.name for each in fields(message) if getattr(message, each.name) not in (0, b"", "")
    ]
    every = [each.name for each in fields(message)]
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(used if rng.random() < 0.8 else every)
        wide = name in ("step", "run", "client", "tables_version")
        most = 2**64 - 1 if wide else 2**32 - 1
        message = replace(message, **{name: odd(getattr(message, name), rng, most)})
    return pack_split(message, HELLO)[8:]


def features(step: int, mode: str, kind: Kind = Kind.FEATURES) -> SplitMessage:
    message = SplitMessage(
        kind,
        step=step,
        shape=LATENT.shape,
        payload=TableCodec(TABLES).encode(LATENT),
        tables_version=TABLES.version,
        tables_digest=TABLES.digest[:8],
    )
    if mode == "u" or kind is Kind.INFER:
        return message
    packed = pack_labels(LABELS, 5)
    return replace(message, label_shape=LABELS.shape, classes=5, labels=packed)


def tail_gradient(step: int) -> SplitMessage:
    gradient = np.random.default_rng(1).normal(size=(8, 12)).astype(np.float32)
    payload = feature_codec(GRADIENTS).encode(gradient, np.random.default_rng(2))
    return SplitMessage(Kind.TAIL_GRADIENT, step=step, shape=gradient.shape, payload=payload)


def base(mode: str, done: int, shown: bool, rng: random.Random) -> SplitMessage:
    """Return a message that could be the next one of a client that is at step ``done``."""
    chance = rng.random()
    if chance < 0.1:
        return features(done, mode, Kind.INFER)
    if chance < 0.15:
        return SplitMessage(Kind.CLOSE, step=done)
    if shown and mode == "u" and chance < 0.6:
        return tail_gradient(done + 1)
    return features(done + 1, mode)


def opened(raw: Raw, client: int, restart: bool = True) -> SplitMessage:
    raw.key = HELLO
    return raw.open(client, restart=restart)


class Attacker:
    """Client 2, who is let in and then sends what nobody should."""

    def __init__(self, service: SplitService, mode: str, rng: random.Random) -> None:
        self.service, self.mode, self.rng = service, mode, rng
        self.ends: Counter[str] = Counter()
        self.raw: Raw | None = None
        self.done, self.shown, self.errors = 0, False, 0

    def send(self, message: bytes) -> None:
        if self.raw is None:
            self.raw = Raw(self.service)
            assert opened(self.raw, 2).kind is Kind.ACK
            self.done, self.shown, self.errors = 0, False, 0
        answer = self.raw.send(signed(message, self.raw.key))
        self.ends[answer.kind.name] += 1
        if answer.kind is Kind.ERROR:
            self.ends[Code(answer.code).name] += 1
            assert answer.text
            self.errors += 1
        else:
            self.errors = 0
        if answer.kind is Kind.TAIL_INPUT:
            self.shown = True
        if answer.kind is Kind.GRADIENT:
            assert answer.shape
            self.done, self.shown = answer.step, False
        # The service hangs up after 32 refusals; and a client that left takes no more steps.
        if self.errors == 32 or answer.kind is Kind.CLOSE or self.rng.random() < 0.002:
            self.leave()

    def leave(self) -> None:
        if self.raw is not None:
            self.raw.__exit__()
            self.raw = None


def train(mode: str, link: SplitLink, step: int) -> nn.Module:
    head, _, last = network(step)
    if mode == "u":
        train_u_shaped(link, head, last, DATA, plain([*head.parameters(), *last.parameters()]))
    else:
        train_vanilla(link, head, DATA, plain(head.parameters()))
    return head


def service_of(mode: str) -> tuple[Copies, dict[str, Any]]:
    _, tail, last = network()
    tails = Copies(tail if mode == "u" else nn.Sequential(tail, last), plain)
    return tails, {"mode": mode, "gradients": GRADIENTS, "limits": LIMITS, "seed": 3}


def alone(mode: str) -> list[nn.Module]:
    """Return tail and heads after two turns of training, with nobody else there."""
    tails, given = service_of(mode)
    with serving(tails, [1, 2], **given) as service:
        service.publish(TABLES)
        with linked(service, 1) as link:
            heads = [train(mode, link, turn) for turn in range(2)]
        service.end_round([1])
    return [tails.module, *heads]


@pytest.mark.parametrize("mode", ["vanilla", "u"])
def test_a_service_answers_every_mutant_and_its_other_client_notices_nothing(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    rng = random.Random(len(mode))
    tails, given = service_of(mode)
    threads = threading.active_count()
    with serving(tails, [1, 2], **given) as service:
        service.publish(TABLES)
        attacker = Attacker(service, mode, rng)
        with linked(service, 1) as link:
            heads = [train(mode, link, 0)]
            for _ in range(STREAMS):
                attacker.send(another(base(mode, attacker.done, attacker.shown, rng), rng))
            attacker.leave()
            heads.append(train(mode, link, 1))
        report = service.end_round([1])
        assert report.clients[1].steps == 2 * len(DATA)
        assert len(service._sessions) <= 2
    ends = attacker.ends
    assert sum(ends[kind.name] for kind in Kind) == STREAMS
    # Attacks that nothing survives would only test the first check.
    assert min(ends[kind] for kind in ("GRADIENT", "PREDICTION", "CLOSE")) > 10
    assert min(ends[code] for code in ("MALFORMED", "SHAPE", "LIMIT", "UNKNOWN_STEP")) > 10
    assert not ends["INTERNAL"]
    assert not caplog.records
    for module, twin in zip([tails.module, *heads], alone(mode), strict=True):
        assert_same(module, twin, 0.0)
    # gRPC's own threads end in their time.
    until = time.monotonic() + 10
    while threading.active_count() > threads + 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert threading.active_count() <= threads + 3, threading.enumerate()


def test_mutants_of_an_introduction_are_refused_or_let_in_as_what_they_are() -> None:
    rng = random.Random(4)
    tails, given = service_of("vanilla")
    ends: Counter[str] = Counter()
    with serving(tails, [1, 2], token=b"secret", **given) as service:
        service.publish(TABLES)
        token = client_token(SECRET, 2)
        message = SplitMessage(
            Kind.OPEN, round=1, run=RUN, client=2, token=token, largest=1 << 20, patience=8.0
        )
        for _ in range(OPENS):
            body = another(message, rng)
            with Raw(service) as raw:
                answer = raw.send(signed(body, HELLO))
                ends[answer.kind.name] += 1
                if answer.kind is Kind.ERROR:
                    assert Code(answer.code) is not Code.INTERNAL
                    assert raw.ended()
                    continue
                assert answer.kind is Kind.ACK
                as_read = unpack_split(signed(body, HELLO), HELLO, LIMITS)
                assert (as_read.run, as_read.round, as_read.token) == (RUN, 1, token)
                assert as_read.client == 2
    assert ends["ACK"] > 10
    assert ends["ERROR"] > 100


def test_mutants_are_read_or_refused() -> None:
    rng = random.Random(5)
    ends: Counter[str] = Counter()
    key = bytes(range(16))
    for turn in range(MESSAGES):
        mode = "u" if turn % 2 else "vanilla"
        body = another(base(mode, 3, True, rng), rng)
        try:
            message = unpack_split(signed(body, key), key, LIMITS)
            assert message.elements <= LIMITS.elements
            ends["read"] += 1
        except WireError as error:
            ends[type(error).__name__ if error.field else "nothing was named"] += 1
        with pytest.raises(WireError):  # without the key, or changed on its way
            unpack_split(damaged(signed(body, key), rng), bytes(16), LIMITS)
    assert min(ends[end] for end in ("read", "FormatError", "LimitError")) > 50
    assert not ends["nothing was named"]


@pytest.mark.parametrize("mode", ["vanilla", "u"])
def test_a_link_takes_an_answer_of_the_right_shape_or_says_what_is_wrong(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that sends mutants, in the place of one answer in two."""
    rng = random.Random(6)
    tails, given = service_of(mode)
    ends: Counter[str] = Counter()
    with serving(tails, [1], **given) as service:
        service.publish(TABLES)
        ask = Stream.ask
        key = b""

        def lying(stream: Stream, data: bytes, deadline: float) -> bytes:
            nonlocal key
            body = ask(stream, data, deadline)
            try:
                answer, used = unpack_split(body, HELLO, LIMITS), HELLO
                key = answer.session
            except WireError:
                answer, used = unpack_split(body, key, LIMITS), key
            return signed(another(answer, rng), used) if rng.random() < 0.5 else body

        monkeypatch.setattr("flowerpress.client.split.session._FIRST_PAUSE", 1e-4)
        for turn in range(ANSWERS // 2):
            if turn % 4 == 0:
                monkeypatch.setattr(Stream, "ask", lying)
            link = linked(service, deadline=3.0, restart=True, limits=LIMITS)
            try:
                with link:
                    for _ in range(4):
                        if mode == "u":
                            shown = link.forward(LATENT)
                            got = link.backward(np.ones_like(shown))
                        else:
                            got, _ = link.step(LATENT, LABELS, 5)
                        assert got.shape == LATENT.shape
                        assert got.dtype == np.float32
                        assert np.isfinite(got).all()
                        ends["sound"] += 1
            except FlowerpressError as error:
                ends[type(error).__name__] += 1
    assert ends["sound"] > 50
    assert sum(ends.values()) - ends["sound"] > 50
