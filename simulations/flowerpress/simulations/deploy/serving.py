"""A server's part of a deployment: SuperLink, keys, devices, and one run to its end."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.checking import check_run
from flowerpress.simulations.config import SimulationConfig
from flowerpress.simulations.deploy.authority import LOCAL
from flowerpress.simulations.deploy.bundle import write_bundle
from flowerpress.simulations.deploy.claim import Claim, claimed
from flowerpress.simulations.deploy.exits import DeploymentError, Exit
from flowerpress.simulations.deploy.keys import Keys
from flowerpress.simulations.deploy.served import VARIABLE, Exchange, Served
from flowerpress.simulations.deploy.superlink import SuperLink, check_free
from flowerpress.simulations.deploy.tls import Address
from flowerpress.simulations.engines.flower import COMPLETED, log_tail
from flowerpress.simulations.record import RoundRecord, RunReader, is_finished
from flowerpress.simulations.resuming import begin, can_go_on, go_on

__all__ = ["Closing", "Site", "prepared", "run_app", "run_configured"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Site:
    """Where a server is: its keys, its state folder, where it listens, how many devices it wants.

    ``exchange``: port of the blobs' own service; None for blobs in Flower's messages. ``name``: how
    devices call this machine there; empty: as the certificate does.
    """

    keys: Keys
    state: Path
    host: str
    port: int
    devices: int
    exchange: int | None = None
    name: str = ""

    def blobs(self) -> Exchange | None:
        """Return what the ServerApp needs to serve blobs.

        Raises:
            ConfigError: somebody listens on that port already.
        """
        if self.exchange is None:
            return None
        check_free(self.host, self.exchange)
        named = [host for host in self.keys.served().hosts if host not in LOCAL]
        return Exchange(
            listen=str(Address(self.host, self.exchange)),
            address=str(Address(self.name or [*named, *LOCAL][0], self.exchange)),
            key=self.keys.key.absolute(),
            certificate=self.keys.certificate.absolute(),
            authority=self.keys.authority.absolute(),
        )


@dataclass(frozen=True)
class Closing:
    """When a round is over: after ``deadline`` seconds; it counts with ``quorum`` updates."""

    deadline: float
    quorum: int | float


def prepared(
    site: Site, config: SimulationConfig, *, overwrite: bool, resume: bool = False
) -> SimulationConfig:
    """Return the configuration as the run has it, with ``out``; what can be wrong is found here.

    Raises:
        ConfigError: the configuration cannot be used with these devices, keys or folders.
    """
    if config.split is not None:
        raise ConfigError("flowerpress server runs whole networks; for a cut one see docs/split.md")
    for name in ("links", "deadline", "attack"):
        if getattr(config, name) is not None:
            raise ConfigError(
                f"{name} = {getattr(config, name)} is for simulations, not for devices"
            )
    if config.clients not in (None, site.devices):
        raise ConfigError(f"clients = {config.clients}, but there are {site.devices} devices")
    site.keys.check()
    out = (config.out or site.state / "run").expanduser().absolute()
    if is_finished(out) and not overwrite:
        raise ConfigError(f"{out}: holds a finished run; another --out, or --overwrite")
    if can_go_on(out) and not overwrite and not resume:
        raise ConfigError(
            f"{out}: holds an unfinished run; --resume goes on with it, --overwrite begins anew"
        )
    config = config.model_copy(update={"clients": site.devices, "out": out})
    check_run(config)
    return config


def run_configured(
    site: Site,
    config: SimulationConfig,
    closing: Closing,
    on_record: Callable[[RoundRecord], None],
    say: Say,
    *,
    resume: bool = False,
) -> Path:
    """Run a configuration on the devices and return the run's folder, as a simulation's is.

    ``config`` is as ``prepared`` returns it; ``on_record`` gets each round as it ends, ``say`` what
    happens besides. With ``resume`` the unfinished run in ``config.out`` goes on.

    Raises:
        ConfigError: a port or the state folder cannot be used, or no run that can go on is there.
        DeploymentError: the run failed, or the SuperLink ended.
    """
    if config.out is None:
        raise ValueError("a run needs a configuration with `out`")
    with claimed(site.state, "flowerpress server", say) as claim:
        state = claim.folder
        settings = state / "served.json"
        run_id = Served.read(settings).run_id if resume else secrets.randbits(64)
        # Before the run's folder is touched: another port, or a second server, needs no other run.
        check_free(site.host, site.port)
        exchange = site.blobs()
        for record in go_on(config) if resume else ():
            on_record(record)
        # Before there is a run that can go on: it must not go on by another one's name.
        Served(
            config=config,
            run_id=run_id,
            deadline=closing.deadline,
            quorum=closing.quorum,
            exchange=exchange,
        ).write(settings)
        if not resume:
            begin(config)
        app = state / "app"
        write_bundle(app, config)
        reader = RunReader(config.out)
        if reader.path.exists():
            reader.poll()  # a run that goes on: these rounds are known

        def follow() -> None:
            if reader.path.exists():
                for record in reader.poll():
                    on_record(record)

        _run(site, claim, app, {VARIABLE: str(settings)}, exchange, follow, say)
        follow()
    return config.out


def run_app(site: Site, app: Path, say: Say) -> None:
    """Run somebody's own Flower app on the devices; what it logs goes to ``say``.

    Raises:
        ConfigError: keys, ports or folders cannot be used, or there is no app.
        DeploymentError: the run failed, or the SuperLink ended.
    """
    if not (app / "pyproject.toml").is_file():
        raise ConfigError(f"{app}: is not the folder of a Flower app (it has no pyproject.toml)")
    site.keys.check()
    with claimed(site.state, "flowerpress server", say) as claim:
        log = claim.folder / "run.log"
        log.unlink(missing_ok=True)
        shown = 0

        def follow() -> None:
            nonlocal shown
            if not log.exists():
                return
            with log.open("rb") as file:
                file.seek(shown)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                shown += len(whole) + 1
                say(whole.decode(errors="replace"))

        _run(site, claim, app.absolute(), {}, None, follow, say)
        follow()


def _run(
    site: Site,
    claim: Claim,
    app: Path,
    environment: dict[str, str],
    exchange: Exchange | None,
    tick: Callable[[], None],
    say: Say,
) -> None:
    with SuperLink(site.keys, claim, site.host, site.port, environment) as link:
        link.register(say)
        # Until the run has its own: devices try whether they reach it, and how fast it is there.
        with nullcontext() if exchange is None else exchange.service():
            # Only now: a device that is started on these words is not refused.
            say(f"listening on {site.host}:{site.port} (TLS, node keys)")
            link.gather(site.devices, say)

        def watch() -> None:
            link.check()
            tick()

        log = claim.folder / "run.log"
        status = link.flower.run(app, log, tick=watch)
        if status != COMPLETED:
            raise DeploymentError(
                Exit.FAILED, f"the run ended as {status!r}; the end of its log:\n{log_tail(log)}"
            )
