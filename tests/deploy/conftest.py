"""Marked processes, so that whatever happened in a test none is left, and a SuperLink with keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowerpress.simulations.deploy.claim import claimed
from flowerpress.simulations.deploy.keys import Keys
from flowerpress.simulations.deploy.superlink import SuperLink
from flowerpress.simulations.deploy.tls import Address
from flowerpress.simulations.engines.flower import free_port
from tests.cli.conftest import flowerpress
from tests.wire.deployment import marked

__all__ = ["flowerpress", "mark", "running"]

MARK = "FLOWERPRESS_TEST_MARK"


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """Mark every process that a module starts; none may be left when it is done."""
    word = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, word)
        yield f"{MARK}={word}"
        assert marked(f"{MARK}={word}") == []


@dataclass(frozen=True)
class Running:
    """A SuperLink with TLS and node keys, of which ``known`` is registered and ``unknown`` not."""

    keys: Keys
    link: SuperLink
    address: Address

    def key(self, name: str) -> Path:
        return self.keys.nodes / f"{name}.key"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, mark: str) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("running")
    keys = Keys.create(folder / "certs", ["localhost"], ["known"], days=30)
    port = free_port()
    said: list[str] = []
    with (
        claimed(folder / "state", "flowerpress server", said.append) as claim,
        SuperLink(keys, claim, "0.0.0.0", port, {}) as link,
    ):
        link.register(said.append)
        assert len(said) == 1
        keys.add(["unknown"])
        yield Running(keys, link, Address("localhost", port))
