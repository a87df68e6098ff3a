"""A SuperLink with TLS, node keys and a database, started and ended."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

from flowerpress.compression.errors import ConfigError
from flowerpress.protos.store.disk import replace_file
from flowerpress.simulations.deploy.claim import Claim
from flowerpress.simulations.deploy.exits import DeploymentError, Exit
from flowerpress.simulations.deploy.keys import Keys, node_fingerprint
from flowerpress.simulations.deploy.tls import Address, ConnectError, ask_health
from flowerpress.simulations.engines.flower import FlowerHome, Leashed, log_tail

__all__ = ["SuperLink", "check_free"]

_START = 60.0  # seconds for the SuperLink to come up
_POLL = 0.25
_PATIENCE = 3.0  # seconds between two looks at who is connected
# What listens on every address answers here.
_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class SuperLink:
    """Flower's server, in the state folder of a deployment; a context manager that ends it.

    The database keeps who is registered, so that devices are the same nodes after a restart.

    Args:
        keys: certificates and node keys.
        claim: on a folder that outlives the process; kept until all it started has ended.
        host: address to listen on, such as ``0.0.0.0``.
        environment: more of it for Flower's processes, the ServerApp's among them.
    """

    def __init__(
        self, keys: Keys, claim: Claim, host: str, port: int, environment: dict[str, str]
    ) -> None:
        self._keys = keys
        self._state = state = claim.folder
        self._host, self._port = host, port
        self.log = state / "superlink.log"
        (state / "flower").mkdir(exist_ok=True)
        self.flower = FlowerHome(state / "flower", environment, [claim.lock])
        self._leash: Leashed | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and all that it started; closing twice is fine."""
        if self._leash is not None:
            self._leash.close()
            self._leash = None

    def register(self, say: Callable[[str], None]) -> None:
        """Make the public keys of the folder known that are not known yet.

        Raises:
            ConfigError: one of the files is not such a key.
            EngineError: the SuperLink does not take it.
        """
        noted = self._state / "registered.json"
        known = _noted(noted)
        for path in self._keys.public_keys():
            mark = node_fingerprint(path)
            if mark not in known:
                node = self.flower.register(path, path.stem)
                known[mark] = path.stem
                with suppress(OSError):  # the next server registers it once more, which is fine
                    replace_file(noted, f"{json.dumps(known, indent=2)}\n".encode())
                say(f"registered {path.stem} ({mark})")
                try:
                    if node is not None:
                        self._keys.note(path.stem, node)
                except OSError as error:
                    say(
                        f"cannot write to {self._keys.nodes} ({error.strerror}); certs revoke will "
                        f"not find {path.stem}: note that it is node {node}"
                    )

    def gather(self, devices: int, say: Callable[[str], None]) -> None:
        """Wait until ``devices`` nodes are connected, for as long as it takes.

        Raises:
            DeploymentError: the SuperLink has ended.
        """
        told = -1
        while (online := self.flower.online()) < devices:
            if online != told:
                say(f"waiting: {online} of {devices} devices connected")
                told = online
            self.check()
            time.sleep(_PATIENCE)
        say(f"{online} of {devices} devices connected")

    def check(self) -> None:
        """Raise DeploymentError if it has ended by itself."""
        if self._leash is None or self._leash.poll() is not None:
            raise DeploymentError(
                Exit.TEMPORARY, f"Flower's SuperLink ended by itself:\n{log_tail(self.log)}"
            )

    def _start(self) -> None:
        check_free(self._host, self._port)
        keys = self._keys
        # One address of several is listened on alone, and has to be in the certificate.
        local = Address(_EVERY.get(self._host, self._host), self._port)
        self.flower.connect(str(local), keys.authority.absolute())
        words = ["flower-superlink", "--host", self._host, "--port", str(self._port)]
        words += ["--ssl-certfile", str(keys.certificate), "--ssl-keyfile", str(keys.key)]
        words += ["--ssl-ca-certfile", str(keys.authority), "--enable-supernode-auth"]
        words += ["--database", str((self._state / "superlink.db").absolute())]
        words += ["--disable-runtime-dependency-installation"]
        with self.log.open("wb") as output:
            self._leash = self.flower.start(words, output)
        deadline = time.monotonic() + _START
        while True:
            self.check()
            try:
                ask_health(local, keys.authority)
                return
            except ConnectError as error:
                if error.code is Exit.REFUSED or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL)


def _noted(path: Path) -> dict[str, str]:
    """Return which keys were registered; none of a file that is damaged: once more does no harm."""
    try:
        known = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def check_free(host: str, port: int) -> None:
    """Refuse a port that somebody listens on already, or an address that is not this machine's.

    Raises:
        ConfigError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = "is in use: another server?" if taken else f"cannot be used ({error.strerror})"
            raise ConfigError(f"{Address(host, port)} {what}; name another port") from error
