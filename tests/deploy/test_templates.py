"""Files of ``deploy/``: units that systemd takes, options that exist, a proxy that guards."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
import yaml

from flowerpress.protos.exchange import METHOD
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.deploy.exits import Exit
from flowerpress.simulations.deploy.tls import Address, ConnectError, ask_health, look_at
from flowerpress.simulations.engines.flower import free_port
from tests.cli.conftest import Said
from tests.deploy.conftest import Running
from tests.deploy.test_refused import client, until_connected, words

ROOT = Path(__file__).parents[2] / "deploy"
UNITS = ("flowerpress-server.service", "flowerpress-client@.service")


def options_exist(line: str, flowerpress: Callable[..., Said]) -> None:
    """Check that the words behind ``flowerpress`` in a line are a command and options of it."""
    name = line.split()[0]
    told = flowerpress(name, "--help", columns=200)
    assert told.code == 0, line
    for option in re.findall(r"(?<= )--[\w-]+", line):
        assert re.search(rf"{option}\b", told.out), f"{name} has no {option}"


@pytest.mark.parametrize("name", UNITS)
def test_units_give_commands_that_exist(name: str, flowerpress: Callable[..., Said]) -> None:
    text = (ROOT / "systemd" / name).read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecStart=/opt/flowerpress/bin/flowerpress (.*)$", text, re.MULTILINE)
    (more,) = re.findall(r"FLOWERPRESS_OPTIONS=(--.*)$", text, re.MULTILINE)
    options_exist(f"{line} {more}", flowerpress)
    (never,) = re.findall(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert str(int(Exit.CONFIGURATION)) in never.split()
    assert str(int(Exit.REFUSED)) not in never.split()
    assert "KillMode=mixed" in text
    # What is started again has to go on.
    assert (" --resume " in line) == (name == UNITS[0])


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / name.replace("@", "@barn")
    text = (ROOT / "systemd" / name).read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/flowerpress/bin/flowerpress", sys.executable))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_gives_commands_that_exist(flowerpress: Callable[..., Said]) -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"server", "device"}
    for service in services.values():
        options_exist(service["command"], flowerpress)
        assert service["init"] is True
    assert " --resume " in services["server"]["command"]


@contextmanager
def nginx(folder: Path, replaced: dict[str, str]) -> Iterator[None]:
    """Run the example with its places replaced, as this user."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    text = (ROOT / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    # Debian's nginx keeps temporary files where only root may write.
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"    {kind}_temp_path {folder / kind};\n" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(text.replace("http {\n", "http {\n" + places, 1))
    start = [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    checked = subprocess.run([*start, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    extra = f"daemon off; pid {folder / 'nginx.pid'};"
    if os.geteuid() == 0:
        extra += " user root;"
    process = subprocess.Popen([*start, "-g", extra])
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def proxied(
    running: Running, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Address, Address]]:
    """Yield the proxy's two addresses: before the SuperLink, and before an exchange service."""
    folder = tmp_path_factory.mktemp("nginx")
    outer, beside = free_port(), free_port()
    pair = running.keys.key.read_bytes(), running.keys.certificate.read_bytes()
    with ExchangeService("127.0.0.1:0", certificates=pair) as exchange:
        replaced = {
            "listen 8443 ssl": f"listen 127.0.0.1:{outer} ssl",
            "listen 10.0.0.5:8001": f"listen 127.0.0.1:{beside}",
            "https://127.0.0.1:8000": f"https://127.0.0.1:{running.address.port}",
            "grpcs://127.0.0.1:8001": f"grpcs://{exchange.address}",
            "/etc/flowerpress/certs": str(running.keys.folder),
        }
        with nginx(folder, replaced):
            address = Address("localhost", outer)
            for _ in range(100):
                try:
                    ask_health(address, running.keys.authority)
                    break
                except ConnectError:
                    time.sleep(0.1)
            yield address, Address("localhost", beside)


def answered(address: Address, authority: Path, method: str, path: str) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    with closing(
        http.client.HTTPSConnection(address.host, address.port, timeout=20, context=context)
    ) as connection:
        connection.request(method, path)
        return connection.getresponse().status


def test_a_proxy_lets_devices_in_and_nobody_else(
    running: Running, proxied: tuple[Address, Address], tmp_path: Path
) -> None:
    outer, _ = proxied
    authority = running.keys.authority
    # All that the SuperLink itself answers, control among it.
    inner = ("/docs", "/openapi.json", "/v1/control/list-runs", "/v1/runtime/pull-task-input")
    for path in inner:
        for tried in (path, f"/v1/fleet/..{path}", f"/v1/fleet/%2e%2e{path}", f"/{path}"):
            assert answered(outer, authority, "GET", tried) in (400, 403, 404), tried
            assert answered(outer, authority, "POST", tried) in (400, 403, 404), tried
    assert answered(running.address, authority, "GET", "/openapi.json") == 200
    assert answered(outer, authority, "GET", "/health") == 200
    with client(*words(running, tmp_path, server=outer)) as device:
        said = until_connected(device)
        device.terminate()
        device.communicate(timeout=60)
    assert f"connected to {outer} as node" in said


def test_a_proxy_passes_the_exchange_on(running: Running, proxied: tuple[Address, Address]) -> None:
    _, beside = proxied
    look_at(beside, running.keys.authority)
    trusted = grpc.ssl_channel_credentials(running.keys.authority.read_bytes())

    def answer(method: str) -> list[bytes] | grpc.StatusCode:
        with grpc.secure_channel(str(beside), trusted) as channel:
            call = channel.stream_stream(method)(iter([b"no message of this protocol"]), timeout=20)
            try:
                return list(call)
            except grpc.RpcError as error:
                return error.code()

    # The service itself says why it takes nothing of this; what is not its own does not reach it.
    said = answer(METHOD)
    assert isinstance(said, list)
    assert len(said) == 1
    assert answer("/flowerpress.v1.Other/Move") is grpc.StatusCode.PERMISSION_DENIED
