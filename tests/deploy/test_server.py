"""``flowerpress server``: what it refuses, how it ends, and that a device outlives it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerpress.compression import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.deploy import serving
from flowerpress.simulations.deploy.bundle import write_bundle
from flowerpress.simulations.deploy.claim import claimed
from flowerpress.simulations.deploy.exits import Exit
from flowerpress.simulations.deploy.keys import Keys
from flowerpress.simulations.deploy.superlink import SuperLink
from flowerpress.simulations.engines.flower import free_port
from tests.cli.conftest import Said
from tests.deploy.test_certs import expire
from tests.deploy.test_refused import client
from tests.wire.deployment import marked

PATIENCE = 120.0
SCRIPT = (
    # Whoever runs these tests in the background may have told them to ignore Ctrl-C.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from flowerpress.simulations.cli import main; main()"
)
SERVER_APP = """
    from flwr.serverapp import ServerApp

    app = ServerApp()


    @app.main()
    def main(grid, context):
        print("devices", len(list(grid.get_node_ids())), flush=True)
        {then}
"""
CLIENT_APP = """
    from flwr.clientapp import ClientApp

    app = ClientApp()
"""
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "own"
    version = "1.0.0"
    license = "Apache-2.0"
    dependencies = []

    [tool.flwr.app]
    publisher = "somebody"

    [tool.flwr.app.components]
    serverapp = "own_server:app"
    clientapp = "own_client:app"
"""


def server(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT, "server", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"},
    )


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read what a process says until it says that."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    pytest.fail(f"it ended without {text!r}:\n{said}")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys.create(tmp_path / "certs", ["localhost"], ["a"], days=30)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, Exit.TERMINATED), (signal.SIGINT, Exit.INTERRUPTED)]
)
def test_asked_to_stop_it_leaves_nothing(
    keys: Keys, tmp_path: Path, mark: str, number: signal.Signals, code: Exit
) -> None:
    state = tmp_path / "state"
    options = ["--certs", keys.folder, "--state", state, "--devices", 1, "--port", free_port()]
    with server(*options, "--host", "127.0.0.1", "--exchange-port", free_port()) as process:
        said = until(process, "waiting: 0 of 1 devices connected")
        assert len(marked(mark)) > 2
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said + rest
    assert marked(mark) == []
    assert (state / "superlink.db").is_file()


def test_a_device_stays_while_servers_come_and_go(keys: Keys, tmp_path: Path, mark: str) -> None:
    port = free_port()
    options = ["--certs", keys.folder, "--state", tmp_path / "state", "--devices", 1]
    options += ["--port", port, "--host", "127.0.0.1"]
    device = ["--server", f"localhost:{port}", "--ca", keys.authority, "--partition", "0/1"]
    device += ["--key", keys.nodes / "a.key", "--state", tmp_path / "device"]

    def run(then: str) -> tuple[int, str]:
        app = tmp_path / "app"
        app.mkdir(exist_ok=True)
        (app / "pyproject.toml").write_text(textwrap.dedent(PROJECT))
        (app / "own_client.py").write_text(textwrap.dedent(CLIENT_APP))
        (app / "own_server.py").write_text(textwrap.dedent(SERVER_APP.format(then=then)))
        with server(*options, "--app", app) as process:
            said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    with client(*device) as staying:
        code, said = run("pass")
        assert code == Exit.OK, said
        assert "registered a" in said
        assert "1 of 1 devices connected" in said
        assert "devices 1" in said
        assert staying.poll() is None
        code, said = run("raise ValueError('no such weather')")
        assert code == Exit.FAILED, said
        assert "registered" not in said
        assert "no such weather" in said
        staying.terminate()
        told, _ = staying.communicate(timeout=PATIENCE)
    assert staying.returncode == Exit.OK
    assert "connected to localhost" in told


def test_what_a_server_refuses(
    flowerpress: Callable[..., Said], keys: Keys, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        for words, told in (
            (["--port", port], "is in use: another server?"),
            (["--port", free_port(), "--exchange-port", port], "is in use: another server?"),
            (["--certs", tmp_path / "none"], "make it: flowerpress certs make"),
            (["--carrier", "pigeon"], "unknown carrier 'pigeon'"),
            (["--quorum", "many"], "must be a count, or a share"),
            (["--quorum", "0"], "quorum is 0"),
            (["--quorum", "3"], "no round would count with 2 devices"),
            (["--app", tmp_path], "is not the folder of a Flower app"),
            (["clients=3"], "clients = 3, but there are 2 devices"),
            (["links=loguniform"], "links = loguniform is for simulations"),
            (["split.mode=vanilla"], "for a cut one see docs/split.md"),
            (["--uplink", "nothing"], "unknown"),
        ):
            options = ["--certs", keys.folder, "--state", tmp_path / "state"]
            said = flowerpress("server", *options, "--host", "127.0.0.1", *words)
            assert (said.code, told in said.err) == (2, True), f"{words}: {said.err}"
    assert signal.getsignal(signal.SIGTERM) is before
    expire(keys)
    said = flowerpress("server", "--certs", keys.folder, "--state", tmp_path / "state")
    assert (said.code, "renew it: flowerpress certs renew" in said.err) == (2, True), said.err


def test_a_server_that_listens_on_one_address_alone(tmp_path: Path, mark: str) -> None:
    # All of 127.0.0.0/8 is this machine.
    keys = Keys.create(tmp_path / "certs", ["127.0.0.2"], ["a"], days=30)
    said: list[str] = []
    with (
        claimed(tmp_path / "state", "flowerpress server", said.append) as claim,
        SuperLink(keys, claim, "127.0.0.2", free_port(), {}) as link,
    ):
        link.register(said.append)
        assert link.flower.online() == 0
    assert len(said) == 1


@pytest.mark.parametrize("there", [None, "rounds.jsonl", "resume/config.json"])
def test_resume_begins_where_there_is_no_run_and_nowhere_else(
    flowerpress: Callable[..., Said],
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: str | None,
) -> None:
    def run(*_: object, resume: bool) -> None:
        raise ConfigError(f"resume is {resume}")

    monkeypatch.setattr(serving, "run_configured", run)
    if there is not None:
        path = tmp_path / "state" / "run" / there
        path.parent.mkdir(parents=True)
        path.touch()
    options = ["--certs", keys.folder, "--state", tmp_path / "state", "--resume"]
    assert f"resume is {there is not None}" in flowerpress("server", *options).err


def test_a_second_server_leaves_the_run_of_the_first_alone(
    flowerpress: Callable[..., Said], keys: Keys, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    records = state / "run" / "rounds.jsonl"
    with claimed(state, "flowerpress server", print):
        records.parent.mkdir()
        records.write_text("written by the first\n")
        said = flowerpress("server", "--certs", keys.folder, "--state", state, "--overwrite")
    assert (said.code, "another flowerpress server works in it" in said.err) == (2, True), said.err
    assert records.read_text() == "written by the first\n"


def test_what_devices_are_sent_names_nothing_of_the_server(tmp_path: Path) -> None:
    task = tmp_path / "secret" / "mine.py"
    task.parent.mkdir()
    task.write_text("class Mine: ...\n")
    config = SimulationConfig(
        task=f"{task}:Mine",
        data=tmp_path / "secret",
        out=tmp_path / "secret" / "run",
        uplink=str(tmp_path / "secret" / "plan.json"),
        clients=3,
    )
    write_bundle(tmp_path / "app", config)
    sent = {path.name: path.read_text() for path in (tmp_path / "app").iterdir()}
    assert sent["pressed_task.py"] == "class Mine: ...\n"
    assert "secret" not in "".join(sent.values())
    assert str(tmp_path) not in "".join(sent.values())
    # Nor does the next run take it along.
    write_bundle(tmp_path / "app", config.model_copy(update={"task": "digits"}))
    assert not (tmp_path / "app" / "pressed_task.py").exists()
