"""``flowerpress certs``: an authority of one's own, certificates of a server, keys of devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flowerpress.simulations.deploy.keys import Keys
    from flowerpress.simulations.engines.flower import FlowerHome

__all__ = ["COMMANDS", "HELP"]

HELP = """Certificates and keys of a deployment, in one folder on the server.

make: an authority, the server's certificate, a key for each device. device: keys for more devices.
register: tell a running server of them. revoke: have a device refused. renew: a new certificate
before the old one ends. show: names and dates. Devices get ca.pem and their own key; ca.key never
leaves the folder.
"""

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of certificates and keys.")]
Days = Annotated[
    int, typer.Option(min=1, max=3650, help="Days for which the server's certificate is valid.")
]
Server = Annotated[str, typer.Option(help="Where the SuperLink listens, seen from here.")]
LOCAL = "127.0.0.1:8000"


def make(
    folder: Folder,
    host: Annotated[
        list[str],
        typer.Option(help="Name or address by which devices reach the server; may be repeated."),
    ],
    devices: Annotated[
        int, typer.Option(min=0, max=10_000, help="Keys to make, called device-0, device-1, ...")
    ] = 0,
    device: Annotated[
        list[str] | None, typer.Option(help="A key with a name of its own; may be repeated.")
    ] = None,
    days: Days = 397,
) -> None:
    """Make an authority, a server certificate, and a node key for each device.

    Nothing is overwritten: the folder has to be new or empty. localhost and 127.0.0.1 are always
    among the names, since the server speaks to itself.

    Example: flowerpress certs make certs --host server.example --devices 3
    """
    from flowerpress.simulations.deploy.keys import Keys

    names = [*(f"device-{number}" for number in range(devices)), *(device or [])]
    keys = Keys.create(folder, host, names, days=days)
    _say(_dates(keys))
    _say(
        f"To every device: {keys.authority}",
        f"To each device alone, over a way you trust (then chmod 600): {keys.nodes}/NAME.key",
        f"Stays here: {keys.authority_key}, {keys.key}",
        f"Next: flowerpress server --certs {folder}",
    )


def device(
    folder: Folder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of devices.")],
) -> None:
    """Make node keys for more devices, beside those that are there.

    Example: flowerpress certs device certs barn-7 barn-8
    """
    from flowerpress.simulations.deploy.keys import Keys

    made = Keys(folder).add(names)
    _say(*(f"To {path.stem} alone: {path}" for path in made))
    _say(f"To a server that runs already: flowerpress certs register {folder}")


def register(
    folder: Folder,
    server: Server = LOCAL,
) -> None:
    """Tell a running SuperLink of all device keys of the folder; known ones stay as they are.

    flowerpress server does this when it starts. Registering is done on the server's port of
    control, which no device should reach: run it on the server itself.

    Example: flowerpress certs register certs --server 127.0.0.1:8000
    """
    from flowerpress.compression import ConfigError
    from flowerpress.simulations.deploy.keys import Keys, node_fingerprint

    keys = Keys(folder)
    if not keys.public_keys():
        raise ConfigError(f"{keys.nodes}: has no public keys; flowerpress certs device makes them")
    with _flower(keys, server) as flower:
        for path in keys.public_keys():
            mark = node_fingerprint(path)
            node = flower.register(path, path.stem)
            if node is not None:
                keys.note(path.stem, node)
            _say(f"{path.stem} ({mark}) is registered")


def revoke(
    folder: Folder,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of devices.")],
    server: Server = LOCAL,
) -> None:
    """Have devices refused by a running SuperLink, such as one that was stolen.

    Its keys go to the folder's revoked/, so that no server registers them again. Run it on the
    server itself, as register. A device that comes back later needs a key with another name.

    Example: flowerpress certs revoke certs barn-7
    """
    from flowerpress.simulations.deploy.keys import Keys

    keys = Keys(folder)
    nodes = {name: keys.node(name) for name in names}
    with _flower(keys, server) as flower:
        for name, node in nodes.items():
            flower.unregister(node)
            keys.revoke(name)
            _say(f"{name} (node {node}) is refused from now on")


def renew(
    folder: Folder,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Name or address of the server (default: those it has now)."),
    ] = None,
    days: Days = 397,
) -> None:
    """Replace the server's key and certificate; devices notice nothing, as the authority stays.

    The old pair is kept as server.key.old and server.pem.old. Start the server again afterwards.

    Example: flowerpress certs renew certs
    """
    from flowerpress.simulations.deploy.keys import Keys

    keys = Keys(folder)
    keys.renew(host or [], days=days)
    _say(_dates(keys), "Next: start flowerpress server again")


def show(folder: Folder) -> None:
    """Show names, dates and keys of a folder; status 1 where a certificate has ended.

    Example: flowerpress certs show certs
    """
    from datetime import UTC, datetime

    from flowerpress.simulations.deploy.keys import Keys, node_fingerprint

    keys = Keys(folder)
    _say(_dates(keys))
    for path in keys.public_keys():
        _say(f"{path.stem}: {node_fingerprint(path)}")
    now = datetime.now(UTC)
    if any(each.ends < now for each in (keys.trusted(), keys.served())):
        raise typer.Exit(1)


COMMANDS: MappingProxyType[str, tuple[Callable[..., Any], str]] = MappingProxyType(
    {
        "make": (make, "An authority, a certificate, device keys."),
        "device": (device, "Keys for more devices."),
        "register": (register, "Tell a running server of device keys."),
        "revoke": (revoke, "Have devices refused."),
        "renew": (renew, "A new certificate for the server."),
        "show": (show, "Names and dates."),
    }
)
"""Name of each command -> function, and its line in the overview."""


@contextmanager
def _flower(keys: Keys, server: str) -> Iterator[FlowerHome]:
    """Yield Flower's commands, for the SuperLink that answers at ``server``."""
    from tempfile import TemporaryDirectory

    from flowerpress.simulations.deploy.tls import Address, ask_health
    from flowerpress.simulations.engines.flower import FlowerHome

    address = Address.read(server)
    ask_health(address, keys.authority)
    with TemporaryDirectory(prefix="flowerpress-") as home:
        flower = FlowerHome(Path(home))
        flower.connect(str(address), keys.authority.absolute())
        yield flower


def _dates(keys: Keys) -> str:
    lines = []
    for what, found in (("authority", keys.trusted()), ("server", keys.served())):
        left = found.days_left()
        when = f"{left} days left" if left >= 0 else "ENDED; flowerpress certs renew"
        names = f", for {', '.join(found.hosts)}" if found.hosts else ""
        lines.append(f"{what}: {found.begins:%Y-%m-%d} to {found.ends:%Y-%m-%d} ({when}){names}")
    return "\n".join(lines)


def _say(*lines: str) -> None:
    from flowerpress.simulations.fitted import visible

    for line in "\n".join(lines).splitlines():
        print(visible(line))
