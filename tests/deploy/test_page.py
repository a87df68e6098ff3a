"""docs/deployment.md as it is written: every command, on loopback, with real processes.

Ports are the only thing that is replaced. The server is killed after its first round and goes on,
as the page says. The default suite trains fewer rounds than the page; the slow test trains all.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowerpress.server.wire import ITEMS
from flowerpress.simulations.client_bytes import WIRE, payload_differences
from flowerpress.simulations.engines.flower import free_port
from flowerpress.simulations.record import Run, read_run
from tests.cli.conftest import Said, command

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STAYING = ("server", "client")
PORTS = ("8000", "8001")
PATIENCE = 400.0


def lines() -> list[list[str]]:
    """Return the words of every command that stands in a block, in the order of the page."""
    found = []
    for block in BLOCK.finditer(PAGE):
        assert block[1] == "", "a block is a list of commands, which this test gives"
        for line in block[2].strip().splitlines():
            program, *words = shlex.split(line)
            assert program == "flowerpress"
            found.append(words)
    return found


class Staying:
    """A command that stays, started in a process of its own, as in another terminal."""

    def __init__(self, words: list[str]) -> None:
        script = "from flowerpress.simulations.cli import main; main()"
        self.words = words
        self.log = Path(f"{words[0]}{words[-1].replace('/', '-')}.log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", script, *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "160"},
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def terminals(rounds: int | None) -> Iterator[tuple[dict[str, Said], list[Staying]]]:
    """Give every command of the page; yield what each said, and those that stay."""
    ports = {port: str(free_port()) for port in PORTS}
    said: dict[str, Said] = {}
    staying: list[Staying] = []
    try:
        for words in lines():
            given = [replaced(word, ports) for word in words]
            if rounds is not None and "--rounds" in given:
                given[given.index("--rounds") + 1] = str(rounds)
            if given[0] == "report":
                server = staying[-1]
                code = server.process.wait(timeout=PATIENCE)
                assert code == 0, "\n".join(each.said()[-3000:] for each in staying)
            if "--resume" in given:
                killed(next(each for each in staying if each.words[0] == "server"))
            if given[0] in STAYING:
                staying.append(Staying(given))
                if given[0] == "server":
                    listening(staying[-1])
                continue
            done = command(*given, columns=160)
            assert done.code == 0, f"{given}\n{done.out}\n{done.err}"
            said[" ".join(words)] = done
        yield said, staying
    finally:
        for each in staying:
            each.process.send_signal(signal.SIGTERM)
        for each in staying:
            each.process.wait(timeout=PATIENCE)


def replaced(word: str, ports: dict[str, str]) -> str:
    host, colon, port = word.rpartition(":")
    return host + colon + ports.get(port, port)


def listening(server: Staying) -> None:
    """Wait until the server has told that it listens, as whoever opens the next terminal does."""
    for _ in range(int(PATIENCE / 0.1)):
        if "listening on" in server.said():
            return
        try:
            server.process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.fail(server.said())


def killed(server: Staying) -> None:
    """Kill the server when its first round is over."""
    rounds = Path("server/run/rounds.jsonl")
    for _ in range(int(PATIENCE / 0.1)):
        if rounds.exists() and rounds.read_text().count("\n") >= 2:
            server.process.kill()
            server.process.wait()
            return
        assert server.process.poll() is None, server.said()
        time.sleep(0.1)
    pytest.fail(server.said())


def follow(folder: Path, rounds: int | None) -> None:
    with terminals(rounds) as (said, staying):
        deployed, simulated = read_run(folder / "server" / "run"), read_run(folder / "simulated")
        wanted = rounds or 5
        assert [record.round for record in deployed.records] == list(range(wanted + 1))
        compressed_both_ways(deployed)
        agree(deployed, simulated)
        audited(deployed, said["report server/run"].out)
        first, *clients, again = staying
        assert first.process.returncode == -signal.SIGKILL
        assert again.process.returncode == 0
        told = first.said()
        for name in ("device-0", "device-1", "device-2"):
            assert f"registered {name}" in told
        assert "TLS, node keys" in told
        assert len(clients) == 3
        assert all("connected to localhost:" in each.said() for each in clients)
        assert all(each.process.poll() is None for each in clients)
        doctor = next(
            found.out for line, found in said.items() if "--server" in line and "doctor" in line
        )
        for subject in ("server", "certificate", "clock", "versions", "key", "state folder"):
            assert re.search(rf"^ok +{subject} ", doctor, re.MULTILINE), doctor
        assert (folder / "server" / "run" / "report.html").is_file()
    # Asked to stop, each ended by itself and said so.
    assert [each.process.returncode for each in clients] == [0, 0, 0]
    assert all(each.said().endswith("stopped\n") for each in clients)


def compressed_both_ways(run: Run) -> None:
    for record in run.records[1:]:
        assert record.clients == 3
        assert record.left_out == ()
        assert 0 < record.bytes_up < 0.3 * record.raw_bytes_up
        assert 0 < record.bytes_down < 0.6 * record.raw_bytes_down


def agree(deployed: Run, simulated: Run) -> None:
    """The same payload to the byte, tensor by tensor, and the same model."""
    assert payload_differences(deployed.records, simulated.records) == []
    for one, other in zip(deployed.records, simulated.records, strict=True):
        assert (one.accuracy, one.loss) == (other.accuracy, other.loss)
    models = [run.folder / "model.safetensors" for run in (deployed, simulated)]
    assert models[0].read_bytes() == models[1].read_bytes()


def audited(run: Run, said: str) -> None:
    """What crossed on the wire is explained, for each device and round, and told."""
    for record in run.records[1:]:
        assert [one.client for one in record.client_bytes] == [0, 1, 2]
        for one in record.client_bytes:
            wire = one.up[WIRE] + one.down[WIRE]
            left = [
                parts[WIRE] - sum(parts[name] for name in ITEMS) for parts in (one.up, one.down)
            ]
            assert sum(map(abs, left)) < 0.01 * wire, (record.round, one)
            assert min(one.up["handshake"], one.down["handshake"]) > 0
    assert "unexplained" in said
    assert "= wire" in said


def test_the_page_with_two_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.chdir(tmp_path)
    follow(tmp_path, 2)


@pytest.mark.slow
def test_the_page_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    monkeypatch.chdir(tmp_path)
    follow(tmp_path, None)


def test_the_page_gives_every_command_of_a_deployment() -> None:
    given = {words[0] if words[0] != "certs" else " ".join(words[:2]) for words in lines()}
    assert {"server", "client", "doctor"} <= given
    assert {f"certs {name}" for name in ("make", "show", "device", "register", "renew")} <= given


def test_files_that_the_page_names_exist() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`(deploy/[\w./@-]+)`", PAGE))
    assert len(named) >= 4
    assert [name for name in sorted(named) if not (root / name).exists()] == []


def test_exit_codes_are_those_of_the_commands() -> None:
    from flowerpress.simulations.deploy.exits import Exit

    table = PAGE.partition("| exit code |")[2].partition("\n\n")[0]
    codes = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for code in row.split(",")
    }
    assert codes == {int(code) for code in Exit}
