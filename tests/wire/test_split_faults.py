"""Whatever happens to a connection, a step is taken once, and nobody waits without end."""

from __future__ import annotations

import copy
import gc
import resource
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowerpress.client.split import (
    RoundLostError,
    SplitLink,
    SplitRefusedError,
    SplitUnreachableError,
)
from flowerpress.client.stream import BrokenError, Stream
from flowerpress.compression import EncodeError
from flowerpress.compression.features import Tables, feature_codec
from flowerpress.protos import split_pb2
from flowerpress.protos.split import (
    Code,
    Kind,
    SplitLimits,
    SplitMessage,
    client_token,
    pack_labels,
    pack_split,
)
from flowerpress.server.split import Copies, Shared, SplitService
from tests.wire.splitting import (
    SECRET,
    Batch,
    Proxy,
    Raw,
    assert_same,
    batches,
    certificate,
    copies_of,
    elsewhere,
    linked,
    momentum,
    network,
    part_of,
    plain,
    port_of,
    serving,
    tails_of,
    train_u_shaped,
    train_vanilla,
)

EXACT = feature_codec("none")
DATA = batches(3)


def trained(mode: str, sharing: str, through: Any) -> tuple[list[nn.Module], int]:
    """Train three steps and predict once; return all modules and the steps that were taken."""
    head, tail, last = network()
    tails = tails_of(tail if mode == "u" else nn.Sequential(tail, last), sharing)
    with serving(tails, mode=mode, gradients="int8(stochastic=true)") as service:
        with through(service) as link:
            if mode == "u":
                both = momentum([*head.parameters(), *last.parameters()])
                train_u_shaped(link, head, last, DATA, both)
            else:
                train_vanilla(link, head, DATA, momentum(head.parameters()))
            link.infer(head(DATA[0][0]).detach().numpy())
        report = service.end_round()
    return [head, tails.module, last], report.clients[1].steps


class Breaking:
    """Breaks the connection at the second message of a kind: before, within or after it."""

    def __init__(
        self, proxy: Proxy, kind: Kind, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.proxy, self.kind, self.when = proxy, kind, when
        self.seen = 0
        ask = Stream.ask

        def broken(stream: Stream, data: bytes, deadline: float) -> bytes:
            if split_pb2.Split.FromString(data[8:]).kind != self.kind:
                return ask(stream, data, deadline)
            self.seen += 1
            if self.seen != (2 if self.kind in (Kind.FEATURES, Kind.TAIL_GRADIENT) else 1):
                return ask(stream, data, deadline)
            if self.when == "before":
                self.proxy.cut()
            elif self.when == "within":
                self.proxy.allowed = 30
            answer = ask(stream, data, deadline)
            if self.when == "after":
                self.proxy.cut()
                raise BrokenError("lost")
            return answer

        monkeypatch.setattr(Stream, "ask", broken)


@pytest.fixture(scope="module")
def unbroken() -> dict[tuple[str, str], tuple[list[nn.Module], int]]:
    return {
        (mode, sharing): trained(mode, sharing, linked)
        for mode in ("vanilla", "u")
        for sharing in ("copies", "shared")
    }


@pytest.mark.parametrize("sharing", ["copies", "shared"])
@pytest.mark.parametrize("when", ["before", "within", "after"])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("vanilla", Kind.OPEN),
        ("vanilla", Kind.FEATURES),
        ("vanilla", Kind.CLOSE),
        ("vanilla", Kind.INFER),
        ("u", Kind.FEATURES),
        ("u", Kind.TAIL_GRADIENT),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_cut_at_any_message_changes_nothing(
    mode: str,
    kind: Kind,
    when: str,
    sharing: str,
    monkeypatch: pytest.MonkeyPatch,
    unbroken: dict[tuple[str, str], tuple[list[nn.Module], int]],
) -> None:
    with_proxy: list[Proxy] = []

    def through(service: SplitService) -> SplitLink:
        proxy = Proxy(service)
        with_proxy.append(proxy)
        Breaking(proxy, kind, when, monkeypatch)
        return linked(proxy)

    modules, steps = trained(mode, sharing, through)
    assert with_proxy[0].cuts == 1
    with_proxy[0].__exit__()
    twins, taken = unbroken[mode, sharing]
    assert steps == taken == len(DATA)
    for module, twin in zip(modules, twins, strict=True):
        assert_same(module, twin, 0.0)


# What a stream is told that does not behave


def features(step: int, batch: Batch, **given: Any) -> SplitMessage:
    head, _, _ = network()
    latent = head(batch[0]).detach().numpy()
    labels = batch[1].numpy()
    values = {
        "shape": latent.shape,
        "payload": EXACT.encode(latent),
        "label_shape": labels.shape,
        "classes": 5,
        "labels": pack_labels(labels, 5),
    }
    return SplitMessage(Kind.FEATURES, step=step, **{**values, **given})


def served(sharing: str = "copies") -> Any:
    _, tail, last = network()
    return tails_of(nn.Sequential(tail, nn.BatchNorm1d(12), last), sharing)


def state_of(tails: Any) -> dict[str, Any]:
    return copy.deepcopy(part_of(tails).state())


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(v, other["module"][k]) for k, v in one["module"].items()) and str(
        one["optimizer"]
    ) == str(other["optimizer"])


@pytest.mark.parametrize("sharing", ["copies", "shared"])
def test_a_repeated_step_is_answered_and_not_taken(sharing: str) -> None:
    tails = served(sharing)
    with serving(tails) as service, Raw(service) as raw:
        raw.open()
        first = raw.ask(features(1, DATA[0]))
        after = state_of(tails)
        assert first.kind is Kind.GRADIENT
        assert raw.ask(features(1, DATA[0])) == first
        assert same(state_of(tails), after)
        other = raw.ask(features(1, DATA[1]))
        assert (other.kind, other.code) == (Kind.ERROR, Code.UNKNOWN_STEP)
        assert same(state_of(tails), after)


@pytest.mark.parametrize("sharing", ["copies", "shared"])
def test_steps_out_of_order_are_refused(sharing: str) -> None:
    tails = served(sharing)
    with serving(tails) as service, Raw(service) as raw:
        raw.open()
        for step in (0, 2, 3, 2**64 - 1):
            assert raw.ask(features(step, DATA[0])).code == Code.UNKNOWN_STEP
        for step in (1, 2):
            assert raw.ask(features(step, DATA[step])).kind is Kind.GRADIENT
        after = state_of(tails)
        assert raw.ask(features(1, DATA[1])).code == Code.UNKNOWN_STEP
        assert raw.ask(SplitMessage(Kind.CLOSE, step=1)).code == Code.UNKNOWN_STEP
        assert raw.ask(SplitMessage(Kind.CLOSE, step=2)).kind is Kind.CLOSE
        assert raw.ask(features(3, DATA[0])).code == Code.UNKNOWN_STEP
        assert same(state_of(tails), after)


NAN = np.full((8, 4, 3, 3), np.nan, np.float32)
BAD: list[tuple[Code, dict[str, Any]]] = [
    (Code.SHAPE, {"shape": (8, 4, 2, 2), "payload": EXACT.encode(np.ones((8, 4, 2, 2), "f4"))}),
    (Code.SHAPE, {"shape": (4, 4, 3, 3), "payload": EXACT.encode(np.ones((4, 4, 3, 3), "f4"))}),
    (Code.SHAPE, {"shape": (0, 4, 3, 3)}),
    (Code.SHAPE, {"shape": (288,)}),
    (Code.SHAPE, {"label_shape": (8, 2), "labels": pack_labels(np.zeros(16, np.int64), 5)}),
    (Code.SHAPE, {"labels": pack_labels(np.full(8, 6), 7), "classes": 7}),
    (Code.MALFORMED, {"classes": 0}),
    (Code.MALFORMED, {"labels": b""}),
    (Code.MALFORMED, {"labels": b"\xff\xff\xff"}),
    (Code.MALFORMED, {"payload": b""}),
    (Code.MALFORMED, {"payload": b"\x05"}),
    (Code.LIMIT, {"shape": (1 << 31, 1 << 31)}),
    (Code.LIMIT, {"shape": (1,) * 9}),
    (Code.STALE_TABLES, {"tables_version": 3}),
]


@pytest.mark.parametrize(("code", "change"), BAD, ids=lambda value: getattr(value, "name", ""))
def test_a_message_that_cannot_be_used_changes_nothing(code: Code, change: dict[str, Any]) -> None:
    tails = served()
    with serving(tails) as service, Raw(service) as raw:
        raw.open()
        before = state_of(tails)
        answer = raw.ask(features(1, DATA[0], **change))
        assert (answer.kind, Code(answer.code), answer.step > 1) == (Kind.ERROR, code, False)
        assert same(state_of(tails), before)
        assert raw.ask(features(1, DATA[0])).kind is Kind.GRADIENT


def test_what_is_not_finite_is_refused_on_both_ends() -> None:
    tails = served()
    huge = np.full((8, 4, 3, 3), 3e38, np.float32)
    with serving(tails) as service, linked(service) as link:
        before = state_of(tails)
        with pytest.raises(EncodeError):
            link.step(NAN, DATA[0][1].numpy())
        with pytest.raises(SplitRefusedError) as caught:
            link.step(huge, DATA[0][1].numpy())
        assert caught.value.code is Code.NOT_FINITE
        assert same(state_of(tails), before)
        train_vanilla(link, network()[0], DATA[:1], plain(network()[0].parameters()))


def test_a_gradient_that_is_not_finite_takes_no_step() -> None:
    head, tail, _ = network()
    tails = Copies(tail, momentum)
    with serving(tails, mode="u") as service, linked(service) as link:
        before = state_of(tails)
        out = link.forward(head(DATA[0][0]).detach().numpy())
        with pytest.raises(SplitRefusedError) as caught:
            link.backward(np.full_like(out, 3e38))
        assert caught.value.code is Code.NOT_FINITE
        assert same(state_of(tails), before)
        # The graph is used up; the step can be taken from its beginning.
        with pytest.raises(RoundLostError):
            link.backward(np.ones_like(out))
        out = link.forward(head(DATA[0][0]).detach().numpy())
        link.backward(np.ones_like(out))
        assert service.end_round().clients[1].steps == 1


def test_new_tables_in_the_middle_of_a_round() -> None:
    def tables(version: int) -> Tables:
        symbols = np.random.default_rng(version).integers(-9, 9, (4, 500)).astype(np.int32)
        return Tables.from_symbols(
            version, symbols, np.zeros(4, np.float32), np.full(4, 0.1 * version, np.float32)
        )

    head, tail, last = network()
    tails = Copies(nn.Sequential(tail, last), plain)
    with serving(tails) as service:
        service.publish(tables(1))
        with linked(service) as link:
            train_vanilla(link, head, DATA[:1], plain(head.parameters()))
            service.publish(tables(2))
            train_vanilla(link, head, DATA[1:], plain(head.parameters()))
            assert link.tables is not None
            assert link.tables.version == 2
        with Raw(service) as raw:
            raw.open(restart=True)
            old = tables(1)
            stale = features(1, DATA[0], tables_version=1, tables_digest=old.digest[:8])
            assert raw.ask(stale).code == Code.STALE_TABLES
            forged = features(1, DATA[0], tables_version=2, tables_digest=old.digest[:8])
            assert raw.ask(forged).code == Code.STALE_TABLES
        assert service.end_round().clients[1].steps == 0


def test_a_message_of_another_session_is_refused() -> None:
    tails = served()
    with serving(tails, [1, 2]) as service, Raw(service) as one, Raw(service) as other:
        one.open(1)
        other.open(2)
        stolen = pack_split(features(1, DATA[0]), one.key)
        assert other.send(stolen).code == Code.CHECKSUM
        assert not tails._parts[2].optimizer.state_dict()["state"]
        assert one.send(stolen).kind is Kind.GRADIENT


def test_a_second_stream_of_a_client_ends_the_first() -> None:
    tails = served()
    with serving(tails) as service, Raw(service) as one, Raw(service) as other:
        one.open()
        assert one.ask(features(1, DATA[0])).kind is Kind.GRADIENT
        assert other.open(step=1).kind is Kind.ACK
        assert one.ended()
        assert other.ask(features(2, DATA[1])).kind is Kind.GRADIENT


def test_a_device_that_begins_again_does_not_get_its_old_answers() -> None:
    tails = served()
    with serving(tails) as service:
        link = linked(service).__enter__()
        train_vanilla(link, network()[0], DATA[:1], plain(network()[0].parameters()))
        link.abandon()
        with pytest.raises(RoundLostError), linked(service) as again:
            train_vanilla(again, network()[0], DATA[1:], plain(network()[0].parameters()))
        with linked(service, restart=True) as again:
            train_vanilla(again, network()[0], DATA[1:], plain(network()[0].parameters()))
        assert service.end_round().clients[1].steps == 2


# Who may come in


@pytest.mark.parametrize(
    ("code", "given"),
    [
        (Code.TOKEN, {"token": b"wrong"}),
        (Code.TOKEN, {"token": b""}),
        (Code.TOKEN, {"round": 0}),
        (Code.ROUND, {"round": 2}),
        (Code.ROUND, {"client": 3}),
        (Code.MODE, {"cut": "elsewhere"}),
    ],
)
def test_strangers_are_refused_by_name(code: Code, given: dict[str, Any]) -> None:
    with serving(served(), token=b"fixed", cut="here") as service:
        with pytest.raises(SplitRefusedError) as caught, linked(service, **given):
            pass
        assert caught.value.code is code
        with linked(service, round=0, token=b"fixed", cut="here") as link:
            assert link.cut == "here"
            with pytest.raises(SplitRefusedError, match="not for this session"):
                link.step(np.ones((8, 4, 3, 3), np.float32), DATA[0][1].numpy())


def test_tls() -> None:
    key, chain = certificate()
    _, other = certificate()
    with serving(served(), certificates=(key, chain)) as service:
        with linked(service, root_certificates=chain) as link:
            train_vanilla(link, network()[0], DATA[:1], plain(network()[0].parameters()))
        for wrong in (None, other):
            begun = time.monotonic()
            with (
                pytest.raises(SplitUnreachableError, match="TLS"),
                linked(service, root_certificates=wrong, deadline=0.5),
            ):
                pass
            assert time.monotonic() - begun < 10


def test_one_client_too_many_is_told_so() -> None:
    with (
        serving(served(), [1, 2], limits=SplitLimits(clients=1)) as service,
        linked(service, 1),
        pytest.raises(SplitUnreachableError, match="connected already"),
        linked(service, 2, deadline=0.3),
    ):
        pass


def test_messages_that_are_too_long() -> None:
    limits = SplitLimits(largest=4000)
    with serving(served(), limits=limits) as service:
        with linked(service) as link:
            before = link.meter.up.message
            noise = np.random.default_rng(0).normal(size=(64, 4, 3, 3)).astype(np.float32)
            with pytest.raises(SplitRefusedError, match="smaller batches") as caught:
                link.step(noise, np.zeros(64, np.int64))
            assert caught.value.code is Code.LIMIT
            assert link.meter.up.message == before
        with Raw(service) as raw:
            raw.open(step=0)
            assert raw.send(b"\0" * 4001).code == Code.LIMIT
            raw._out.put(b"\0" * (3 << 20))
            assert raw.ended()


# Ends that vanish


def test_a_client_that_vanishes_in_the_middle_of_a_step() -> None:
    head, tail, last = network()
    tails = Copies(tail, momentum)
    with serving(tails, [1, 2], mode="u", ttl=0.4) as service:
        gone = linked(service, 1).__enter__()
        gone.forward(head(DATA[0][0]).detach().numpy())
        gone.abandon()
        seat = service._seats[1]
        with linked(service, 2) as link:
            train_u_shaped(link, head, last, DATA, plain(head.parameters()))
        deadline = time.monotonic() + 30
        while seat.pending is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seat.pending is None  # its graph does not stay for ever
        report = service.end_round()
    assert (report.clients[1].steps, report.clients[2].steps) == (0, len(DATA))


def test_a_silent_stream_is_ended() -> None:
    with serving(served(), ttl=2.0) as service, Raw(service) as raw, Raw(service) as mute:
        mute._out.put  # noqa: B018 - it never says a word
        raw.open()
        assert raw.ended()
        assert mute.ended()
        # A client sees the end before the service's thread has tidied up.
        deadline = time.monotonic() + 30
        while len(service._sessions) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(service._sessions) == 0


def test_a_service_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(SplitUnreachableError), linked(port, deadline=0.5):
            pass  # it accepts, and never answers
    with pytest.raises(SplitUnreachableError), linked(port, deadline=0.5):
        pass
    assert time.monotonic() - begun < 10


def test_a_service_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    tails = served()
    with serving(tails) as service:
        held = threading.Event()
        monkeypatch.setattr(service._desk, "answer", lambda *_: held.wait(10))
        link = linked(service, deadline=0.6).__enter__()
        begun = time.monotonic()
        with pytest.raises(SplitUnreachableError):
            link.step(np.ones((8, 4, 3, 3), np.float32), DATA[0][1].numpy())
        assert time.monotonic() - begun < 10
        held.set()
        link.abandon()


def test_a_service_that_is_killed_and_started_again(tmp_path: Path) -> None:
    head, _, _ = network()
    optimizer = plain(head.parameters())
    path = str(tmp_path / "tail.pt")
    with elsewhere("0", "vanilla", path) as first, elsewhere("0", "vanilla", path) as second:
        port = port_of(first)
        proxy = Proxy(port)
        with proxy:
            link = linked(proxy, deadline=15.0).__enter__()
            train_vanilla(link, head, DATA[:2], optimizer)
            first.kill()
            first.wait()
            proxy.to = port_of(second)
            with pytest.raises(RoundLostError):
                train_vanilla(link, head, DATA[2:], optimizer)
            link.abandon()
            # The round begins anew, and only then nobody is there any more.
            head, _, _ = network()
            link = linked(proxy, restart=True, deadline=15.0).__enter__()
            train_vanilla(link, head, DATA[:1], plain(head.parameters()))
            second.kill()
            second.wait()
            link._deadline = 1.0
            begun = time.monotonic()
            with pytest.raises(SplitUnreachableError):
                train_vanilla(link, head, DATA[1:], plain(head.parameters()))
            assert time.monotonic() - begun < 10
            link.abandon()


def memory() -> int:
    """Return this process's resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_reconnects_leave_nothing_behind(count: int) -> None:
    head, _, _ = network()
    tails = served()
    latent = head(DATA[0][0]).detach().numpy()
    with serving(tails) as service:
        threads = 0
        start = 0
        with linked(service) as link:
            for number in range(count):
                link._drop()
                link.step(latent, DATA[0][1].numpy())
                if number == count // 3:
                    gc.collect()
                    threads, start = threading.active_count(), memory()
            assert link.acknowledged == count
            gc.collect()
            assert memory() - start < 8 << 20
            assert threading.active_count() <= threads + 5
            assert len(service._sessions) <= 3
        assert service.end_round().clients[1].steps == count


def test_shared_training_in_turns_outlasts_a_deadline() -> None:
    head, tail, last = network()
    tails = Shared(nn.Sequential(tail, last), plain)
    latent, labels = head(DATA[0][0]).detach().numpy(), DATA[0][1].numpy()
    with serving(tails, [1, 2]) as service:
        done: list[int] = []

        def second() -> None:
            with linked(service, 2, deadline=1.0) as link:
                link.step(latent, labels)
                done.append(2)

        thread = threading.Thread(target=second)
        with linked(service, 1) as link:
            thread.start()
            for _ in range(6):
                link.step(latent, labels)
                time.sleep(0.5)
            assert not done
            done.append(1)
        thread.join(10)
        assert done == [1, 2]


def test_a_client_cannot_take_the_place_of_another() -> None:
    with serving(served(), [1, 2]) as service:
        for token in (client_token(SECRET, 1), SECRET, b""):
            with pytest.raises(SplitRefusedError, match="token"), linked(service, 2, token=token):
                pass
        with linked(service, 2, token=client_token(SECRET, 2)):
            pass


def test_one_client_does_not_disturb_another() -> None:
    _, tail, last = network()
    alone = Copies(nn.Sequential(*copies_of([tail, last])), plain)
    beside = Copies(nn.Sequential(tail, last), plain)
    for tails, clients in ((alone, [1]), (beside, [1, 2])):
        head = network()[0]
        with serving(tails, clients) as service, linked(service, 1) as link:
            if len(clients) == 2:
                with Raw(service) as raw:
                    raw.open(2)
                    for _ in range(32):
                        assert raw.send(b"\0" * 99).kind is Kind.ERROR
                    assert raw.ended()
            train_vanilla(link, head, DATA, plain(head.parameters()))
            service.end_round([1])
            with pytest.raises(SplitRefusedError, match="over"):
                train_vanilla(link, head, DATA, plain(head.parameters()))
            link.round = 0
    assert_same(alone.module, beside.module, 0.0)
