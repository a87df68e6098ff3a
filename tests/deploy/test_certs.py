"""``flowerpress certs``: what is in the folder, who may read it, and that nothing is lost in it."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from flowerpress.compression import ConfigError
from flowerpress.simulations.deploy.authority import Authority, Pair
from flowerpress.simulations.deploy.keys import Keys, fingerprint, node_fingerprint, read_node_key
from tests.cli.conftest import Said

MAKE = ("certs", "make", "certs", "--host", "press.example", "--host", "10.1.2.3", "--devices", 2)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_make_writes_keys_that_nobody_else_reads(
    flowerpress: Callable[..., Said],
) -> None:
    said = flowerpress(*MAKE)
    assert said.code == 0, said.err
    keys = Keys(Path("certs"))
    assert mode(keys.folder) == mode(keys.nodes) == 0o700
    secret = [keys.authority_key, keys.key, *keys.nodes.glob("*.key")]
    assert len(secret) == 4
    assert {mode(path) for path in secret} == {0o600}
    assert set(keys.served().hosts) == {"press.example", "10.1.2.3", "localhost", "127.0.0.1"}
    assert 395 <= keys.served().days_left() <= 397
    for told in ("certs/ca.pem", "certs/nodes/NAME.key", "certs/ca.key", "--certs certs"):
        assert told in said.out
    keys.check()


def test_a_certificate_is_one_of_its_authority_by_openssl(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path / "certs", ["press.example"], ["a"], days=30)
    for word in (["-verify_hostname", "press.example"], ["-verify_ip", "127.0.0.1"]):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(keys.authority), *word]
        done = subprocess.run([*command, str(keys.certificate)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    wrong = ["openssl", "verify", "-CAfile", str(keys.authority)]
    wrong += ["-verify_hostname", "other.example"]
    assert subprocess.run([*wrong, str(keys.certificate)], capture_output=True).returncode != 0


def test_nothing_is_overwritten(flowerpress: Callable[..., Said]) -> None:
    assert flowerpress(*MAKE).code == 0
    before = {path: path.read_bytes() for path in Path("certs").rglob("*") if path.is_file()}
    again = flowerpress(*MAKE)
    assert again.code == 2
    assert "never overwritten" in again.err
    taken = flowerpress("certs", "device", "certs", "barn", "device-1")
    assert taken.code == 2
    assert "is there already" in taken.err
    assert {path: path.read_bytes() for path in Path("certs").rglob("*") if path.is_file()} == (
        before
    )
    more = flowerpress("certs", "device", "certs", "barn")
    assert more.code == 0
    assert mode(Path("certs/nodes/barn.key")) == 0o600


def test_renew_keeps_the_authority_and_the_names(
    flowerpress: Callable[..., Said],
) -> None:
    flowerpress(*MAKE)
    keys = Keys(Path("certs"))
    before = keys.authority.read_bytes(), keys.certificate.read_bytes(), keys.key.read_bytes()
    said = flowerpress("certs", "renew", "certs", "--days", 10)
    assert said.code == 0, said.err
    assert keys.authority.read_bytes() == before[0]
    assert keys.certificate.read_bytes() != before[1]
    assert keys.key.read_bytes() != before[2]
    assert Path("certs/server.pem.old").read_bytes() == before[1]
    assert mode(keys.key) == mode(Path("certs/server.key.old")) == 0o600
    assert set(keys.served().hosts) == {"press.example", "10.1.2.3", "localhost", "127.0.0.1"}
    assert keys.served().days_left() in (9, 10)
    flowerpress("certs", "renew", "certs", "--host", "new.example")
    assert set(keys.served().hosts) == {"new.example", "localhost", "127.0.0.1"}
    x509.load_pem_x509_certificate(keys.certificate.read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(keys.authority.read_bytes())
    )


def test_show_says_dates_and_names_and_what_has_ended(
    flowerpress: Callable[..., Said],
) -> None:
    flowerpress(*MAKE)
    said = flowerpress("certs", "show", "certs")
    assert said.code == 0
    assert "for press.example, localhost, 10.1.2.3, 127.0.0.1" in said.out
    keys = Keys(Path("certs"))
    for path in keys.public_keys():
        assert f"{path.stem}: {node_fingerprint(path)}" in said.out
    expire(keys)
    ended = flowerpress("certs", "show", "certs")
    assert ended.code == 1
    assert "ENDED; flowerpress certs renew" in ended.out
    with pytest.raises(ConfigError, match=r"ended on .* renew it: flowerpress certs renew"):
        keys.check()


def expire(keys: Keys) -> None:
    """Give the folder a server certificate that ended a week ago."""
    authority = Authority.read(Pair(keys.authority_key.read_bytes(), keys.authority.read_bytes()))
    pair = authority.issue(["localhost"], 30, start=datetime.now(UTC) - timedelta(days=37))
    keys.key.write_bytes(pair.key)
    keys.certificate.write_bytes(pair.certificate)


def test_the_fingerprints_of_both_halves_of_a_key_are_the_same(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a", "b"], days=1)
    private = [read_node_key(path.with_suffix(".key")) for path in keys.public_keys()]
    marks = [fingerprint(key.public_key()) for key in private]
    assert marks == [node_fingerprint(path) for path in keys.public_keys()]
    assert len(set(marks)) == 2
    assert isinstance(private[0].curve, ec.SECP384R1)


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a"], days=1)
    for path, check in ((keys.key, keys.check), (keys.nodes / "a.key", None)):
        path.chmod(0o640)
        with pytest.raises(
            ConfigError, match=f"others can read it; chmod 600 {re.escape(str(path))}"
        ):
            check() if check else read_node_key(path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "https://press.example"], "neither a host name nor an address"),
        (["--host", "press.example:8000"], "neither a host name nor an address"),
        (["--host", "-x"], "neither a host name nor an address"),
        (["--host", "localhost", "--device", "../x"], "cannot be a device's name"),
        (["--host", "localhost", "--device", "a", "--device", "a"], "the same name"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_written(
    flowerpress: Callable[..., Said],
    words: list[str],
    said: str,
) -> None:
    found = flowerpress("certs", "make", "certs", *words)
    assert found.code == 2
    assert said in found.err
    assert not Path("certs").exists()
