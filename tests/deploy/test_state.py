"""The state folders of a deployment: a write that fails, or is cut off, costs nothing."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.deploy import device as device_module
from flowerpress.simulations.deploy import serving
from flowerpress.simulations.deploy.claim import claimed
from flowerpress.simulations.deploy.device import Device, run_device
from flowerpress.simulations.deploy.exits import DeploymentError, Exit
from flowerpress.simulations.deploy.keys import Keys
from flowerpress.simulations.deploy.served import Served
from flowerpress.simulations.deploy.serving import Closing, Site, run_configured
from flowerpress.simulations.deploy.superlink import SuperLink
from flowerpress.simulations.deploy.supernode import End, Ended, Member, live
from flowerpress.simulations.deploy.tls import Address
from flowerpress.simulations.deploy.waits import Waits
from flowerpress.simulations.engines.flower import FlowerHome, free_port
from flowerpress.simulations.resuming import begin, can_go_on


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def served(run: int) -> Served:
    return Served(config=SimulationConfig(clients=2), run_id=run, deadline=60.0)


def test_what_a_run_is_called_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "served.json"
    served(11).write(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ConfigError, match="No space left on device"):
            served(12).write(path)
    assert Served.read(path).run_id == 11
    assert [each.name for each in tmp_path.iterdir()] == ["served.json"]


def test_a_run_that_died_as_it_began_does_not_go_on_by_the_name_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a"], days=1)
    site = Site(keys, tmp_path / "state", "127.0.0.1", free_port(), devices=2)
    config = SimulationConfig(clients=2, out=tmp_path / "run")
    site.state.mkdir()
    settings = site.state / "served.json"
    served(11).write(settings)

    def dying(config: SimulationConfig) -> None:
        begin(config)
        raise InterruptedError

    monkeypatch.setattr(serving, "begin", dying)
    with pytest.raises(InterruptedError):
        run_configured(site, config, Closing(60.0, 1), print, print)
    assert can_go_on(tmp_path / "run")
    assert Served.read(settings).run_id != 11


@pytest.mark.parametrize("nth", [1, 2])
def test_a_renewal_that_finds_the_disk_full_leaves_the_pair_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], [], days=9)
    before = keys.key.read_bytes(), keys.certificate.read_bytes()
    fsync, calls = os.fsync, 0

    def failing(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            full()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(ConfigError, match="No space left on device"):
            keys.renew([], days=99)
    keys.check()
    assert (keys.key.read_bytes(), keys.certificate.read_bytes()) == before
    assert keys.renew([], days=99).days_left() > 90
    keys.check()


def device(folder: Path) -> Device:
    keys = Keys.create(folder / "certs", ["localhost"], ["a"], days=1)
    member = Member(Address("localhost", 1), keys.authority, keys.nodes / "a.key", {})
    return Device(member, folder / "device")


def test_a_device_on_a_full_disk_goes_on_listening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = device(tmp_path)
    (given.state / "node.json").mkdir(parents=True)  # it cannot be written, whoever tries
    monkeypatch.setattr(device_module, "ask_health", lambda *_: None)

    def live(
        member: Member, home: Any, stopped: threading.Event, say: Any, activated: Any
    ) -> Ended:
        activated(7)  # in the thread that reads what the SuperNode says
        stopped.set()
        return Ended(End.ASKED, True, "")

    monkeypatch.setattr(device_module, "live", live)
    said: list[str] = []
    run_device(given, threading.Event(), said.append)
    assert said == ["connected to localhost:1 as node 7"]


def test_supernodes_that_are_taken_and_end_at_once_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "ask_health", lambda *_: None)
    monkeypatch.setattr(Waits, "wait", lambda *_: None)
    lives = 0

    def live(
        member: Member, home: Any, stopped: threading.Event, say: Any, activated: Any
    ) -> Ended:
        nonlocal lives
        lives += 1
        if lives > 100:
            stopped.set()
        return Ended(End.OTHER, True, "no memory")

    monkeypatch.setattr(device_module, "live", live)
    with pytest.raises(DeploymentError, match="5 SuperNodes ended by themselves") as found:
        run_device(device(tmp_path), threading.Event(), print)
    assert found.value.code is Exit.TEMPORARY
    assert lives == 5


class Talking:
    """A SuperNode that lives until it is closed."""

    def __init__(self) -> None:
        self.output = iter([b"one line\n", b"another\n"])
        self.closed = threading.Event()

    def poll(self) -> int | None:
        return 0 if self.closed.is_set() else None

    def close(self) -> None:
        self.closed.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_supernode_to_which_nobody_listens_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, given = Talking(), device(tmp_path)
    home = FlowerHome(tmp_path, {})
    monkeypatch.setattr(home, "start", lambda *_: node)
    stopped = threading.Event()
    giving_up = threading.Timer(20, stopped.set)
    giving_up.start()

    def say(line: str) -> None:
        raise BrokenPipeError

    ended = live(given.member, home, stopped, say, lambda _: None)
    giving_up.cancel()
    assert not stopped.is_set()
    assert (ended.why, node.closed.is_set()) == (End.OTHER, True)


@pytest.mark.parametrize("torn", ["", '{"0123', "[]"])
def test_keys_are_registered_again_where_the_note_of_them_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str
) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a", "b"], days=1)
    registered: list[Any] = []
    said: list[str] = []
    with claimed(tmp_path / "state", "flowerpress server", said.append) as claim:
        link = SuperLink(keys, claim, "127.0.0.1", 1, {})
        monkeypatch.setattr(link.flower, "register", lambda key, name: registered.append(name))
        (claim.folder / "registered.json").write_text(torn)
        link.register(said.append)
        link.register(said.append)
    assert registered == ["a", "b"]
    assert len(said) == 2


def test_a_folder_of_keys_that_only_can_be_read_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys.create(tmp_path / "certs", ["localhost"], ["a"], days=1)
    said: list[str] = []
    with claimed(tmp_path / "state", "flowerpress server", said.append) as claim:
        link = SuperLink(keys, claim, "127.0.0.1", 1, {})
        monkeypatch.setattr(link.flower, "register", lambda key, name: 42)
        monkeypatch.setattr(Keys, "note", full)
        link.register(said.append)
        link.register(said.append)
    assert len(said) == 2
    assert "certs revoke will not find a: note that it is node 42" in said[1]
