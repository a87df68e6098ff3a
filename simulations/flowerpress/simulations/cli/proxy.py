"""``flowerpress proxy``: a thin, unreliable link in front of a service, to try what it survives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import threading

    from rich.console import Console

    from flowerpress.simulations.linkproxy import LinkProxy
    from flowerpress.simulations.links import Link

__all__ = ["proxy"]


def proxy(
    target: Annotated[
        str, typer.Argument(metavar="HOST:PORT", help="The service that the link leads to.")
    ],
    link: Annotated[
        str, typer.Option(help="Rates and latency, written as the links of simulate are.")
    ] = "3g",
    listen: Annotated[
        str, typer.Option(help="host:port to listen on; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    cut_every: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Mean time between breaks at random, such as 30s or 2m."),
    ] = None,
    outage: Annotated[
        str, typer.Option(metavar="TIME", help="How long the link stays away after a break.")
    ] = "0s",
    seed: Annotated[int, typer.Option(help="Of the link's rates and of the times of breaks.")] = 0,
) -> None:
    """Put a slow link that breaks in front of a TCP service, until Ctrl-C or SIGTERM.

    Clients connect to the address that this prints instead of the service's. All of them share the
    link, as the connections of one device do. Nothing is decrypted, and no right of an
    administrator is needed.

    Example: flowerpress proxy 127.0.0.1:8000 --link 3g --cut-every 30s --seed 1
    """
    import signal
    import threading

    from rich.console import Console

    from flowerpress.simulations.linkproxy import LinkProxy, random_cuts
    from flowerpress.simulations.links import read_links

    pause = _seconds(outage, "--outage")
    every = None if cut_every is None else _seconds(cut_every, "--cut-every")
    if every == 0:
        raise typer.BadParameter("--cut-every must be above zero")
    way = read_links(link, 1, seed)[0]
    # A link's latency is that of both ways together.
    made = LinkProxy(
        target,
        up=way.uplink,
        down=way.downlink,
        latency=way.latency / 2,
        cuts=() if every is None else random_cuts(every, seed, pause),
        listen=listen,
    )
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    console = Console()
    with made:
        for line in (f"Listening on {made.address}, for {target}", _told(way)):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        _watch(made, stopped, console)
    console.print(_counted(made), soft_wrap=True, markup=False, highlight=False)
    console.print("Stopped.")


def _watch(proxy: LinkProxy, stopped: threading.Event, console: Console) -> None:
    """Show what passes until it is stopped; only at the end where nobody watches."""
    from rich.live import Live
    from rich.text import Text

    if not console.is_terminal:
        stopped.wait()
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while not stopped.wait(0.5):
            live.update(Text(_counted(proxy), no_wrap=True, overflow="ellipsis"), refresh=True)


def _counted(proxy: LinkProxy) -> str:
    from flowerpress.simulations.human import human_bytes

    counts = proxy.counts
    up, down = (human_bytes(sum(getattr(one, way) for one in counts)) for way in ("up", "down"))
    still = sum(one.open for one in counts)
    return (
        f"{up} up, {down} down; connections: {len(counts)} ({still} open), "
        f"breaks: {proxy.cuts}, refused: {proxy.refused}"
    )


def _told(link: Link) -> str:
    from flowerpress.simulations.human import human_rate

    return (
        f"{human_rate(link.uplink)} up, {human_rate(link.downlink)} down, "
        f"{1000 * link.latency:g} ms there and back"
    )


_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_UNITS = {"ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str, option: str) -> float:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{option} is {text!r}; write a time such as 30s, 500ms or 2m")
    return float(match[1]) * _UNITS[match[2]]
