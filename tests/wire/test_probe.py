"""A device measures its link before there is a round, at little cost to the service."""

from __future__ import annotations

import pytest

from flowerpress.client.exchange import (
    ExchangeRefusedError,
    ExchangeUnreachableError,
    measure_link,
)
from flowerpress.protos.exchange import LARGEST_PROBE, Code, ExchangeMessage, Kind
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.exchanging import exchanging, noise
from tests.wire.splitting import certificate


def probe(data: bytes) -> ExchangeMessage:
    return ExchangeMessage(Kind.PROBE, data=data)


def test_a_link_is_measured_without_a_round() -> None:
    with ExchangeService() as service:
        rate = measure_link(service.address)
    assert rate.up > 0
    assert rate.down > 0


def test_a_link_is_measured_over_tls() -> None:
    key, chain = certificate()
    with ExchangeService(certificates=(key, chain)) as service:
        rate = measure_link(service.address, tls=True, root_certificates=chain)
    assert min(rate.up, rate.down) > 0


def test_no_more_is_measured_than_the_link_carries() -> None:
    with (
        exchanging() as served,
        LinkProxy(served.service.address, up=200_000, down=800_000) as proxy,
    ):
        rate = measure_link(proxy.address)
    # A relay in between holds some of it, so that the service sees a little more at once.
    assert 0 < rate.up < 1.15 * 200_000
    assert 0 < rate.down < 1.15 * 800_000


def test_what_goes_back_is_what_came() -> None:
    with exchanging() as served, served.raw() as stream:
        assert stream.ask(probe(noise(10_000))).offset == 10_000
        assert stream.ask(probe(noise(90_000))).offset == 100_000
        stream.send(ExchangeMessage(Kind.DONE))
        back = stream.finish()
    assert {chunk.kind for chunk in back} == {Kind.CHUNK}
    assert [chunk.offset for chunk in back] == list(range(0, 100_000, 8192))
    assert sum(len(chunk.data) for chunk in back) == 100_000
    # Nobody's round pays for it.
    assert all(not seen.up.message for seen in served.service.traffic(1).values())


def test_nobody_sends_more_than_a_probe_has() -> None:
    with exchanging() as served, served.raw() as stream:
        half = probe(noise(LARGEST_PROBE // 2))
        assert stream.refused(half, half, probe(b"1")) is Code.LIMIT


@pytest.mark.parametrize("kind", [Kind.ACK, Kind.CHUNK])
def test_nothing_else_is_taken_in_a_probe(kind: Kind) -> None:
    with exchanging() as served, served.raw() as stream:
        assert stream.refused(probe(b"1"), ExchangeMessage(kind, 1, b"1")) is Code.MALFORMED


def test_one_device_measures_at_a_time() -> None:
    with exchanging() as served:
        with served.raw() as first:
            first.ask(probe(b"1"))
            with served.raw() as second:
                assert second.refused(probe(b"1")) is Code.BUSY
            with pytest.raises(ExchangeRefusedError, match="try again in a minute"):
                measure_link(served.service.address)
            first.send(ExchangeMessage(Kind.DONE))
            assert len(first.finish()) == 1
        assert measure_link(served.service.address).up > 0


def test_a_probe_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowerpress.server.exchange.probing._LONGEST", 0.2)
    with exchanging() as served, served.raw() as stream:
        stream.ask(probe(b"1"))
        assert stream.refused() is Code.DEADLINE


def test_nobody_there() -> None:
    with ExchangeService() as service:
        address = service.address
    with pytest.raises(ExchangeUnreachableError, match="the probe broke off"):
        measure_link(address)
