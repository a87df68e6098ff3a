"""``flowerpress doctor`` before the first round: each finding says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.deploy.authority import Authority, Pair
from flowerpress.simulations.deploy.keys import Keys, node_fingerprint
from flowerpress.simulations.deploy.tls import Address, Answer
from flowerpress.simulations.health import Check, Status, deployment
from tests.cli.conftest import Said
from tests.deploy.test_certs import expire
from tests.deploy.test_tls import served

SUBJECTS = (
    "certs",
    "key",
    "state folder",
    "server",
    "certificate",
    "clock",
    "round trip",
    "exchange",
    "link rate",
)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.create(tmp_path / "certs", ["localhost"], ["a"], days=90)


@pytest.fixture
def port(keys: Keys, tmp_path: Path) -> Iterator[int]:
    pair = Pair(keys.key.read_bytes(), keys.certificate.read_bytes())
    with served(tmp_path, pair) as number:
        yield number


def found(said: Said) -> dict[str, tuple[str, str]]:
    """Return status and finding by subject; a finding may go over several lines."""
    lines: list[str] = []
    for line in said.out.splitlines():
        if re.match(r"(ok|note|FAILED) ", line):
            lines.append(line)
        else:
            lines[-1] += " " + line.strip()
    parts = [re.split(r" {2,}", line, maxsplit=2) for line in lines]
    return {subject: (status, finding) for status, subject, finding in parts}


def test_everything_in_order(
    flowerpress: Callable[..., Said], keys: Keys, port: int, tmp_path: Path
) -> None:
    pair = keys.key.read_bytes(), keys.certificate.read_bytes()
    options = ["--server", f"localhost:{port}", "--ca", keys.authority]
    options += ["--key", keys.nodes / "a.key", "--state", tmp_path / "later"]
    with ExchangeService(certificates=pair) as exchange:
        options += ["--exchange", exchange.address, "--certs", keys.folder]
        said = flowerpress("doctor", "--quick", *options, columns=200)
    assert said.code == 0, said.out
    looked = found(said)
    for subject in SUBJECTS:
        assert looked[subject][0] == "ok", looked[subject]
    assert node_fingerprint(keys.nodes / "a.pub") in looked["key"][1]
    assert "good for 8" in looked["certificate"][1]
    assert re.search(r"bit/s up, .*bit/s down; 1 MB takes", looked["link rate"][1])
    assert looked["registered"][0] == "note"
    assert "does not say whether it knows the key" in looked["registered"][1]
    # What the test's server claims to be.
    here_and_there = f"flwr {version('flwr')} here, 1.41.0 on the server"
    assert here_and_there in looked["versions"][1]
    assert not (tmp_path / "later").exists()


def test_what_is_not_in_order_says_what_to_do(
    flowerpress: Callable[..., Said], keys: Keys, port: int, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(Authority.new("another").pair.certificate)
    (keys.nodes / "a.key").chmod(0o644)
    (tmp_path / "file").write_text("")
    expire(keys)
    options = ["--server", f"localhost:{port}", "--ca", other, "--key", keys.nodes / "a.key"]
    options += ["--exchange", "nobody.invalid:1", "--certs", keys.folder]
    said = flowerpress("doctor", "--quick", *options, columns=200)
    assert said.code == 1
    looked = found(said)
    for subject, advice in (
        ("certs", "flowerpress certs renew"),
        ("key", "chmod 600"),
        ("server", "copy ca.pem anew"),
        ("exchange", "no such host"),
    ):
        status, finding = looked[subject]
        assert status == "FAILED", looked[subject]
        assert advice in finding
    assert "clock" not in looked


def test_a_port_that_is_not_the_exchange(
    flowerpress: Callable[..., Said], keys: Keys, port: int
) -> None:
    options = ["--exchange", f"localhost:{port}", "--ca", keys.authority]
    said = flowerpress("doctor", "--quick", *options, columns=200)
    assert said.code == 1
    status, finding = found(said)["link rate"]
    assert status == "FAILED"
    assert "the port of the exchange?" in finding


def test_a_state_folder_that_cannot_be_written_to() -> None:
    (check,) = deployment.deployment_checks(deployment.Looked(state=Path("/proc/1/state")))
    assert check.status is Status.FAILED
    assert "chown it to this user" in check.finding


@pytest.mark.parametrize(
    ("ahead", "status", "finding"),
    [
        (0.4, Status.OK, "as the server's"),
        (-3.0, Status.NOTE, "3 s ahead of the server's, which is near the limit"),
        (-8.0, Status.FAILED, "8 s ahead of the server's, and Flower takes 5 s ahead"),
        (200.0, Status.NOTE, "200 s behind the server's"),
        (400.0, Status.FAILED, "400 s behind the server's, and Flower takes 5 s ahead and 300 s"),
        (None, Status.NOTE, "does not tell"),
    ],
)
def test_clocks(
    ahead: float | None,
    status: Status,
    finding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Answer(datetime.now(UTC) + timedelta(days=12.5), ahead, 0.002)
    monkeypatch.setattr(deployment, "ask_health", lambda *_: answer)
    monkeypatch.setattr(deployment, "ask_version", lambda *_: "1.20.0")
    server = Address("localhost", 1)
    looked: dict[str, Check] = {
        check.subject: check
        for check in deployment.deployment_checks(deployment.Looked(server=server))
    }
    assert looked["clock"].status is status
    assert finding in looked["clock"].finding
    assert looked["certificate"].status is Status.NOTE
    assert "ends in 12 days; on the server: flowerpress certs renew" in (
        looked["certificate"].finding
    )
    assert looked["versions"].status is Status.FAILED
    assert "install the same on both" in looked["versions"].finding


def test_what_flower_takes_is_what_the_check_says() -> None:
    from flwr.common import constant

    assert constant.SYSTEM_TIME_TOLERANCE == deployment._AHEAD
    assert deployment._BEHIND <= constant.TIMESTAMP_TOLERANCE + constant.SYSTEM_TIME_TOLERANCE
