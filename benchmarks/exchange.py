"""An exchange of blobs: over a thin link that breaks, and as fast as this machine moves it.

python benchmarks/exchange.py
python benchmarks/exchange.py --skip-thin
python benchmarks/exchange.py --update 4194304 --rate 64000 --cuts 3 --down --tls

The first table takes as long as the link does: 4 MiB over 64 kbit/s are nine minutes, nearly all
of it waiting. The second one shares the machine's cores between the service and its client.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

from flwr.app import RecordDict

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerpress.client.exchange import ExchangeLink
from flowerpress.protos.exchange import BlobClaim
from flowerpress.protos.exchange_terms import ExchangeTerms
from flowerpress.server.exchange import ExchangeService
from flowerpress.simulations.deploy.authority import Authority
from flowerpress.simulations.linkproxy import Cut, LinkProxy

RUN, CLIENT = 1, 1


class Round:
    """A service with a round open to one client, which connects to it at any address."""

    def __init__(self, service: ExchangeService, number: int, largest: int) -> None:
        self.service, self.number = service, number
        ends = service.open_round(RUN, number, [CLIENT], largest=largest, seconds=None)
        self._end = ends[CLIENT]
        self._terms = ExchangeTerms.unpack(self._end.terms)

    def link(self, address: str = "") -> ExchangeLink:
        """Return the client's connection."""
        return ExchangeLink(
            address or self._terms.address,
            run=RUN,
            round=self.number,
            client=CLIENT,
            token=self._terms.token,
            tls=self._terms.tls,
            root_certificates=self._terms.certificate or None,
            patience=300.0,
        )

    def offer(self, blob: bytes) -> BlobClaim:
        """Let the client fetch ``blob``."""
        return BlobClaim.unpack(self._end.attach(RecordDict(), "", blob, self.number))

    def take(self, claim: BlobClaim) -> bytes | None:
        """Return what the client uploaded."""
        return self._end.detach(RecordDict(), "", None, claim.pack())


def _service(tls: bool) -> ExchangeService:
    if not tls:
        return ExchangeService()
    authority = Authority.new("benchmark")
    pair = authority.issue(["localhost"], 1)
    return ExchangeService(
        certificates=(pair.key, pair.certificate), root=authority.pair.certificate
    )


def thin(args: argparse.Namespace) -> None:
    """Print what one blob takes over a link that breaks, in the bytes that the link carried."""
    blob = random.Random(args.seed).randbytes(args.update)
    ways = ("up", "down") if args.down else ("up",)
    print(
        f"{args.update:,} bytes over {args.rate / 1000:g} kbit/s, {args.latency * 1000:g} ms each "
        f"way, {args.cuts} disconnects, {'TLS' if args.tls else 'no TLS'}, seed {args.seed}"
    )
    print(f"{'way':<6}{'seconds':>9}{'at best':>9}{'up':>12}{'down':>12}{'overhead':>10}")
    for number, way in enumerate(ways, start=1):
        with _service(args.tls) as service:
            open_round = Round(service, number, args.update)
            size = args.update // (args.cuts + 1)
            cuts = [Cut(**{way: size}, outage=args.outage) for _ in range(args.cuts)]
            rates = {"up": args.rate, "down": args.rate}
            with LinkProxy(
                open_round.link().address, **rates, latency=args.latency, cuts=cuts
            ) as proxy:
                began = time.perf_counter()
                with open_round.link(proxy.address) as link:
                    if way == "up":
                        arrived = open_round.take(link.upload(blob, number))
                    else:
                        arrived = link.download(open_round.offer(blob))
                seconds = time.perf_counter() - began
                carried = proxy.total
                if proxy.cuts != args.cuts or arrived != blob:
                    raise SystemExit("the link did not break as often as it should have")
        overhead = (carried.up + carried.down) / args.update - 1
        print(
            f"{way:<6}{seconds:9.1f}{8 * args.update / args.rate:9.1f}{carried.up:12,}"
            f"{carried.down:12,}{100 * overhead:9.2f}%",
            flush=True,
        )


def loopback(args: argparse.Namespace) -> None:
    """Print seconds and rates of blobs on this machine, at the median of several."""
    print(f"\nOn this machine, median of {args.runs}; message: bytes that gRPC was given, up")
    print(
        f"{'bytes':>12}{'up ms':>10}{'up MB/s':>10}{'down ms':>10}{'down MB/s':>10}{'message':>10}"
    )
    number = 0
    with ExchangeService() as service:
        for size in (1_000, 100_000, 1_000_000, 10_000_000, 100_000_000):
            blob = random.Random(args.seed).randbytes(size)
            up, down = [], []
            for _ in range(args.runs + 1):
                number += 1
                open_round = Round(service, number, size)
                claim = open_round.offer(blob)
                with open_round.link() as link:
                    began = time.perf_counter()
                    link.upload(blob, number)
                    up.append(time.perf_counter() - began)
                    began = time.perf_counter()
                    link.download(claim)
                    down.append(time.perf_counter() - began)
            overhead = service.traffic(number)[CLIENT].up.message / size - 1
            row = [statistics.median(each[1:]) for each in (up, down)]
            print(
                f"{size:12,}"
                + "".join(f"{1e3 * s:10.2f}{size / s / 1e6:10.1f}" for s in row)
                + f"{100 * overhead:9.2f}%",
                flush=True,
            )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("--update", type=int, default=4 << 20, help="bytes (default 4 MiB)")
    parser.add_argument("--rate", type=float, default=64_000, help="bits a second (default 64000)")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds each way (default 0.1)")
    parser.add_argument("--cuts", type=int, default=3, help="disconnects (default 3)")
    parser.add_argument(
        "--outage", type=float, default=2.0, help="seconds that each of them lasts (default 2)"
    )
    parser.add_argument("--down", action="store_true", help="the other way as well")
    parser.add_argument("--tls", action="store_true", help="over the thin link")
    parser.add_argument("--runs", type=int, default=9, help="of each line on loopback (default 9)")
    parser.add_argument("--seed", type=int, default=0, help="of the bytes (default 0)")
    parser.add_argument("--skip-thin", action="store_true", help="the second table only")
    parser.add_argument("--only-thin", action="store_true", help="the first table only")
    args = parser.parse_args()
    if not args.skip_thin:
        thin(args)
    if not args.only_thin:
        loopback(args)


if __name__ == "__main__":
    main()
