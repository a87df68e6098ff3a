"""Certificates and keys that a real SuperLink's devices refuse, or it refuses them, and why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowerpress.simulations.deploy import device as device_module
from flowerpress.simulations.deploy.device import Device, run_device
from flowerpress.simulations.deploy.exits import DeploymentError, Exit
from flowerpress.simulations.deploy.keys import Keys, read_node_key
from flowerpress.simulations.deploy.registered import is_registered
from flowerpress.simulations.deploy.supernode import Member
from flowerpress.simulations.engines.flower import FlowerHome, Leashed, free_port
from flowerpress.simulations.health import Check, Status
from flowerpress.simulations.health.deployment import Looked, deployment_checks
from tests.cli.conftest import Said
from tests.deploy.conftest import Running
from tests.deploy.test_certs import expire

PATIENCE = 60.0


def client(*words: object) -> subprocess.Popen[str]:
    """Start ``flowerpress client``, a process of its own."""
    script = "from flowerpress.simulations.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", script, "client", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def ended(*words: object) -> tuple[int, str]:
    with client(*words) as process:
        out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out


def words(running: Running, tmp_path: Path, **changes: object) -> list[object]:
    """Return the options of a device that is in order but for ``changes``."""
    options = {
        "server": running.address,
        "ca": running.keys.authority,
        "key": running.key("known"),
        "state": tmp_path / "state",
        "partition": "0/1",
        **changes,
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def test_a_registered_key_is_taken_and_sigterm_ends_everything(
    running: Running, tmp_path: Path, mark: str
) -> None:
    with client(*words(running, tmp_path)) as process:
        said = until_connected(process)
        assert f"connected to {running.address} as node" in said
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.OK, said + rest
    assert rest.endswith("stopped\n")
    assert (tmp_path / "state" / "node.json").is_file()


def test_the_doctor_asks_whether_a_key_is_known(running: Running, tmp_path: Path) -> None:
    def asked(name: str) -> Check:
        looked = Looked(running.address, running.keys.authority, running.key(name))
        return next(each for each in deployment_checks(looked) if each.subject == "registered")

    assert asked("known") == Check(Status.OK, "registered", "the server knows this key")
    unknown = asked("unknown")
    assert unknown.status is Status.FAILED
    assert "on the server: flowerpress certs register" in unknown.finding
    # A device that is connected is asked about, and stays so.
    with client(*words(running, tmp_path)) as process:
        until_connected(process)
        assert asked("known").status is Status.OK
        assert running.link.flower.online() == 1
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    # Having asked is not having been there: only the client was.
    assert running.link.flower.online() == 0


def test_a_device_that_is_revoked_is_refused(
    running: Running, flowerpress: Callable[..., Said]
) -> None:
    keys = running.keys
    said = flowerpress("certs", "device", keys.folder, "stolen")
    (path,) = [path for path in keys.public_keys() if path.stem == "stolen"]
    node = running.link.flower.register(path, "stolen")
    assert node is not None
    private = read_node_key(running.key("stolen"))
    assert is_registered(running.address, keys.authority, private) is True
    said = flowerpress("certs", "revoke", keys.folder, "stolen", "--server", running.address)
    assert said.code == 2
    assert "the server that registers the key writes it" in said.err
    keys.note("stolen", node)
    said = flowerpress("certs", "revoke", keys.folder, "stolen", "--server", running.address)
    assert said.code == 0, said.err
    assert f"stolen (node {node}) is refused from now on" in said.out
    assert is_registered(running.address, keys.authority, private) is False
    # No server that starts with this folder registers it again.
    assert "stolen" not in {path.stem for path in keys.public_keys()}
    assert sorted(path.suffix for path in keys.revoked.iterdir()) == [".key", ".node", ".pub"]
    said = flowerpress("certs", "revoke", keys.folder, "stolen", "--server", running.address)
    assert said.code == 2
    assert "no such device; see certs show" in said.err


def test_a_key_that_nobody_registered(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_NOT_REGISTERED", 1.0)
    member = Member(running.address, running.keys.authority, running.key("unknown"), {})
    said: list[str] = []
    with pytest.raises(DeploymentError) as found:
        run_device(Device(member, tmp_path / "state"), threading.Event(), said.append)
    assert found.value.code is Exit.REFUSED
    assert f"does not accept the key {running.key('unknown')}" in str(found.value)
    assert "flowerpress certs register" in str(found.value)
    assert any("does not know the key; next try in" in line for line in said)


def test_another_authority(running: Running, tmp_path: Path) -> None:
    other = Keys.create(tmp_path / "other", ["localhost"], [], days=1)
    code, said = ended(*words(running, tmp_path, ca=other.authority))
    assert code == Exit.REFUSED
    assert "signed by an authority that ca.pem does not name" in said


def test_a_name_that_is_not_in_the_certificate(running: Running, tmp_path: Path) -> None:
    code, said = ended(*words(running, tmp_path, server=f"127.0.0.2:{running.address.port}"))
    assert code == Exit.REFUSED
    assert "its certificate is for localhost, 127.0.0.1, not for 127.0.0.2" in said


@contextmanager
def expired(folder: Path) -> Iterator[tuple[Keys, int]]:
    """Run a SuperLink with a certificate that ended a week ago."""
    keys = Keys.create(folder / "certs", ["localhost"], ["a"], days=1)
    expire(keys)
    (folder / "flower").mkdir()
    port = free_port()
    command = ["flower-superlink", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ssl-certfile", str(keys.certificate), "--ssl-keyfile", str(keys.key)]
    command += ["--ssl-ca-certfile", str(keys.authority), "--enable-supernode-auth"]
    command += ["--disable-runtime-dependency-installation"]
    with (folder / "link.log").open("wb") as log:
        link: Leashed = FlowerHome(folder / "flower").start(command, log)
    try:
        yield keys, port
    finally:
        link.close()


def test_an_expired_certificate(tmp_path: Path, mark: str) -> None:
    with expired(tmp_path) as (keys, port):
        options = ["--server", f"localhost:{port}", "--ca", keys.authority]
        options += ["--key", keys.nodes / "a.key", "--state", tmp_path / "state"]
        # It waits for the SuperLink to come up, and then says what is wrong with it.
        code, said = ended(*options, "--partition", "0/1", "--patience", 50)
    assert code == Exit.REFUSED, said
    assert "its certificate has expired on" in said
    assert "flowerpress certs renew" in said


def test_nobody_answers(running: Running, tmp_path: Path) -> None:
    options = words(running, tmp_path, server=f"localhost:{free_port()}", patience=1)
    code, said = ended(*options)
    assert code == Exit.UNAVAILABLE
    assert "next try in 1 s" in said
    assert "is the server running" in said


def test_files_that_cannot_be_used(running: Running, tmp_path: Path) -> None:
    copied = tmp_path / "copied.key"
    copied.write_bytes(running.key("known").read_bytes())
    copied.chmod(0o644)
    for changes, told in (
        ({"key": copied}, "others can read it"),
        ({"key": running.keys.key}, "is not a private key in OpenSSH's format"),
        ({"key": tmp_path / "none"}, "cannot read"),
        ({"ca": tmp_path / "none"}, "copy ca.pem from the server"),
        ({"partition": "3/3"}, "must be I/N with I from 0 to N - 1"),
        ({"server": "localhost"}, "is not host:port"),
    ):
        code, said = ended(*words(running, tmp_path, **changes))
        assert (code, told in said) == (Exit.CONFIGURATION, True), said


def test_two_devices_do_not_share_a_state_folder(running: Running, tmp_path: Path) -> None:
    with client(*words(running, tmp_path)) as first:
        until_connected(first)
        code, said = ended(*words(running, tmp_path))
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=PATIENCE)
    assert code == Exit.CONFIGURATION
    assert "another flowerpress client works in it" in said


@pytest.mark.slow
def test_a_supernode_that_was_killed_is_taken_again(
    running: Running, tmp_path: Path, mark: str
) -> None:
    """Flower believes it to be online for up to a minute, and gives up at once."""
    with client(*words(running, tmp_path)) as process:
        until_connected(process)
        (node,) = [pid for pid, command in commands(mark) if "bin/flower-supernode" in command]
        os.kill(node, signal.SIGKILL)
        said = until_connected(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert "the SuperNode ended by itself; next try in" in said
    assert "still believes this device to be online; next try in" in said
    assert process.returncode == Exit.OK


def test_a_client_that_was_killed_takes_everything_with_it(
    running: Running, tmp_path: Path, mark: str
) -> None:
    before = {pid for pid, _ in commands(mark)}
    with client(*words(running, tmp_path)) as process:
        until_connected(process)
        assert len({pid for pid, _ in commands(mark)} - before) >= 3
        process.kill()
    deadline = time.monotonic() + PATIENCE
    while left := {pid for pid, _ in commands(mark)} - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def until_connected(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("connected"):
            return said
    pytest.fail(f"it ended without a connection:\n{said}")


def commands(mark: str) -> list[tuple[int, str]]:
    """Return pid and command line of the marked processes that are not leashes, nor this one."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in environ.read_bytes() and environ.parent.name != str(os.getpid()):
                command = (environ.parent / "cmdline").read_text().replace("\0", " ")
                found.append((int(environ.parent.name), command))
        except OSError:
            continue
    return [(pid, command) for pid, command in found if "engines.leash" not in command]
