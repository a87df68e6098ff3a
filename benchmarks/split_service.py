"""A split service under load: how long an answer takes, what coding costs, what TCP carries.

python benchmarks/split_service.py
python benchmarks/split_service.py --samples 16 --exchanges 2000 --clients 4,16,64

The service and its clients are two processes of this machine, and share its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import multiprocessing
import queue
import socket
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerpress.client.split import SplitLink, link, session
from flowerpress.client.split.metered import LinkCounts
from flowerpress.compression.bottleneck import Cut
from flowerpress.compression.features import PresetCodec, TableCodec, Tables
from flowerpress.protos.split import METHOD, SplitLimits, channel_options, client_token
from flowerpress.server.split import Copies, SplitService, service
from flowerpress.server.split.tails import Part
from flowerpress.simulations.split.networks import cut_network, parts_of
from flowerpress.simulations.tasks.resnet import ResNet

RUN, SECRET = 1, b"benchmark"
CLASSES = 10
WARM = 20  # exchanges that are not counted
COUNTED = 101  # exchanges between which bytes are counted


class Still(Copies):
    """The service without its network: the same gradient of noise and scores of zeros at once."""

    def part(self, client: int) -> Part:
        """Return a part that learns nothing."""
        return _Still(super().part(client).module, self._make(self.module.parameters()), self._loss)

    def infer(self, latent: Tensor) -> Tensor:
        """Return zeros (B, ``CLASSES``)."""
        return torch.zeros(len(latent), CLASSES)


class _Still(Part):
    def step(self, latent: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        return _noise(tuple(latent.shape)), 0.0


@functools.cache
def _noise(shape: tuple[int, ...]) -> Tensor:
    values = np.random.default_rng(1).laplace(0, 1e-3, shape)
    return torch.from_numpy(values.astype(np.float32))


class Clock:
    """Processor time within codecs and the packing of messages, of all threads of a process."""

    def __init__(self) -> None:
        self.spent = 0.0
        self._lock = threading.Lock()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, whose time is added up."""

        def timed(*args: Any, **given: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **given)
            finally:
                with self._lock:
                    self.spent += time.thread_time() - began

        return timed

    def watch(self) -> None:
        """Time the codecs of features and gradients, and both ways of a message."""
        for codec in (TableCodec, PresetCodec):
            for name in ("encode", "decode"):
                setattr(codec, name, self.around(getattr(codec, name)))
        for module in (link, session, service):
            for name in ("pack_split", "unpack_split", "pack_labels", "unpack_labels"):
                if hasattr(module, name):
                    setattr(module, name, self.around(getattr(module, name)))


# The service's process


def serve(pipe: Connection, kind: str, clients: int, gradients: str, tables: bytes) -> None:
    """Serve until the pipe says so; then send the time in codecs and in all."""
    torch.set_num_threads(1)
    clock = Clock()
    clock.watch()

    def descent(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-3)

    still = kind == "still"
    tails = Still(nn.Linear(1, 1), descent) if still else Copies(network().server, descent)
    own = SplitService(tails, run=RUN, gradients=gradients)
    own.publish(Tables.from_bytes(tables))
    pipe.send(own.serve())
    own.begin_round(1, list(range(clients)), SECRET)
    pipe.recv()
    clock.spent, began = 0.0, time.process_time()
    pipe.send(None)
    pipe.recv()
    pipe.send((clock.spent, time.process_time() - began))
    own.stop(0.0)


@contextlib.contextmanager
def elsewhere(target: Callable[..., None], *given: Any) -> Iterator[tuple[int, Connection]]:
    """Run ``target(pipe, *given)`` as a process; yield its port and our end of the pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *given), daemon=True)
    process.start()
    theirs.close()  # a process that ends is noticed
    try:
        yield ours.recv(), ours
    finally:
        process.kill()
        process.join()


# Bare servers, of threads and of asyncio


def bare(pipe: Connection, way: str, clients: int, size: int, work: float) -> None:
    """Answer every message with ``size`` bytes after ``work`` seconds of matrix products."""
    torch.set_num_threads(1)
    answer, square = b"\1" * size, torch.ones(160, 160)

    def answered(_: bytes) -> bytes:
        until = time.thread_time() + work
        while time.thread_time() < until:
            square @ square
        return answer

    if way == "asyncio":
        asyncio.run(_asyncio(pipe, clients, answered, inline=not work))
        return
    pool = ThreadPoolExecutor(clients)
    server = grpc.server(pool, options=channel_options(SplitLimits()))

    def exchange(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for data in requests:
            yield answered(data)

    server.add_generic_rpc_handlers((_handler(exchange),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    pipe.recv()


async def _asyncio(
    pipe: Connection, clients: int, answered: Callable[[bytes], bytes], inline: bool
) -> None:
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(clients)
    server = grpc.aio.server(options=channel_options(SplitLimits()))

    async def exchange(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for data in requests:
            # What takes time would hold up all other streams.
            yield answered(data) if inline else await loop.run_in_executor(pool, answered, data)

    server.add_generic_rpc_handlers((_handler(exchange),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    await loop.run_in_executor(None, pipe.recv)


def _handler(exchange: Any) -> Any:
    name, _, method = METHOD.strip("/").partition("/")
    handler = grpc.stream_stream_rpc_method_handler(exchange)
    return grpc.method_handlers_generic_handler(name, {method: handler})


# What a device does


def network() -> Cut:
    """Return the network of task cifar10, cut behind its first stage."""
    torch.manual_seed(0)
    parts = parts_of(ResNet((16, 32, 64), 3, CLASSES))
    sample = torch.randn(2, 3, 32, 32)
    return cut_network(parts, sample, "stage1", "entropic(channels=12)")


def linked(port: int, client: int) -> SplitLink:
    """Return a link to a service on this machine."""
    token = client_token(SECRET, client)
    return SplitLink(f"127.0.0.1:{port}", run=RUN, client=client, round=1, token=token)


def together(
    clients: int,
    work: Callable[[int, threading.Barrier], None],
    start: Callable[[], None] = lambda: None,
) -> float:
    """Run ``work(client, barrier)`` in threads; return the seconds that they took.

    All wait twice at the barrier, and between the two, ``start`` is called.
    """
    barrier = threading.Barrier(clients + 1)
    threads = [threading.Thread(target=work, args=(each, barrier)) for each in range(clients)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def bare_exchanges(
    way: str, clients: int, size: tuple[int, int], work: float, count: int
) -> tuple[list[float], float]:
    """Return the seconds of each exchange, and exchanges a second of all clients."""
    found: list[float] = []

    def run(_: int, barrier: threading.Barrier) -> None:
        out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        options = channel_options(SplitLimits())
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            answers = channel.stream_stream(METHOD)(iter(out.get, None))
            own = []
            for turn in range(WARM + count):
                if turn == WARM:
                    barrier.wait()
                    barrier.wait()
                began = time.perf_counter()
                out.put(bytes(size[0]))
                next(answers)
                own.append(time.perf_counter() - began)
            out.put(None)
        found.extend(own[WARM:])

    with elsewhere(bare, way, clients, size[1], work) as (port, _):
        seconds = together(clients, run)
    return found, clients * count / seconds


def described(times: list[float]) -> str:
    """Return the median and the 95th percentile in milliseconds."""
    low, high = np.percentile(1e3 * np.array(times), (50, 95))
    return f"{low:8.2f}{high:9.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent(
            """\
            Three tables.

            1. One client sends latents of --samples, --channels x --positions, Laplacian noise
               coded with tables. The service has no network: in a step of training the client
               gets a gradient of such noise, coded by --gradients, in a step of inference zeros.
               The time is from the array to the array, over real gRPC. Bytes are of one step of
               training, each way: arrays as float32, payloads, messages, and what a proxy counted
               of TCP's payload, which has HTTP/2's framing in it.
            2. Clients that train the network of task cifar10, cut behind its first stage, all at
               once. "coding" is the processor time of both processes in codecs, checksums and
               protobuf, over the processor time of both in all.
            3. The same sizes through bare gRPC servers: threads as the service uses them, and
               asyncio, which hands all that takes time to threads.
            """
        ),
    )
    parser.add_argument("--samples", type=int, default=64, help="of a batch (default 64)")
    parser.add_argument("--channels", type=int, default=12, help="of the latent (default 12)")
    parser.add_argument("--positions", type=int, default=49, help="a channel (default 49)")
    parser.add_argument("--gradients", default="int8(stochastic=true)", help="codec; default int8")
    parser.add_argument("--exchanges", type=int, default=500, help="to time (default 500)")
    parser.add_argument(
        "--best-of",
        type=int,
        default=1,
        help="runs of each line of the first and third table, of which the one with the lowest "
        "median is told: for a machine that has other things to do (default 1)",
    )
    parser.add_argument("--clients", default="1,4,16", help="of the second and third table")
    args = parser.parse_args()
    crowds = [int(each) for each in args.clients.split(",")]
    size = one_client(args)
    training(args, crowds)
    ways(args, crowds, size)


def one_client(args: argparse.Namespace) -> tuple[int, int]:
    """Print the first table; return the bytes of a message up and down."""
    rng = np.random.default_rng(0)
    shape = (args.samples, args.channels, args.positions)
    latent = rng.laplace(0, 1.5, shape).astype(np.float32)
    labels = rng.integers(0, CLASSES, args.samples)
    given = ("still", 2, args.gradients, tables_of(latent).to_bytes())
    with elsewhere(serve, *given) as (port, _):
        with linked(port, 0) as own:
            asks = {
                "training": lambda: own.step(latent, labels, CLASSES),
                "inference": lambda: own.infer(latent),
            }
            times = {what: _timed(ask, args.exchanges, args.best_of) for what, ask in asks.items()}
        with Counted(port) as proxy, linked(proxy.port, 1) as own:
            counts = []
            for turn in range(WARM + COUNTED):
                if turn in (WARM, WARM + COUNTED - 1):
                    counts.append([*_counts(own.meter.up), proxy.up])
                    counts[-1] += [*_counts(own.meter.down), proxy.down]
                own.step(latent, labels, CLASSES)
    each = (np.array(counts[1]) - np.array(counts[0])) / (COUNTED - 1)
    print(f"An exchange of {shape}, by tables up and {args.gradients} down, milliseconds")
    print(f"{'step of':<10}{'p50':>9}{'p95':>9}")
    for what, found in times.items():
        print(f"{what:<10} {described(found)}")
    print()
    print(f"{'bytes':<8}{'float32':>10}{'payload':>10}{'message':>10}{'TCP':>10}")
    for way, row in (("up", each[:4]), ("down", each[4:])):
        print(f"{way:<8}" + "".join(f"{value:10,.0f}" for value in row))
    return int(each[2]), int(each[6])


def _timed(ask: Callable[[], object], count: int, runs: int) -> list[float]:
    """Return the seconds of each of ``count`` calls, of the best of ``runs``."""
    found = []
    for _ in range(runs):
        own = []
        for _ in range(WARM + count):
            began = time.perf_counter()
            ask()
            own.append(time.perf_counter() - began)
        found.append(own[WARM:])
    return min(found, key=np.median)


def _counts(way: LinkCounts) -> tuple[int, int, int]:
    return way.raw, way.payload, way.message


def training(args: argparse.Namespace, crowds: list[int]) -> None:
    """Print the second table."""
    print(f"\nTraining cifar10's network, batches of {args.samples}, cut behind stage1")
    print(
        f"{'clients':>8}{'steps/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'device s':>10}{'service s':>10}"
        f"{'coding':>8}"
    )
    cut = network()
    images = torch.randn(args.samples, 3, 32, 32)
    labels = np.random.default_rng(0).integers(0, CLASSES, args.samples)
    tables = tables_of(cut.device(images).detach().numpy())
    clock = Clock()
    clock.watch()
    for crowd in crowds:
        devices = [network().device for _ in range(crowd)]
        steps = max(5, args.exchanges // 10 // crowd)
        times: list[float] = []
        given = ("cifar10", crowd, args.gradients, tables.to_bytes())
        with elsewhere(serve, *given) as (port, pipe):
            run = _trainer(port, devices, images, labels, steps, times)
            began: list[float] = []

            def start(began: list[float] = began, pipe: Connection = pipe) -> None:
                pipe.send(None)
                pipe.recv()
                clock.spent = 0.0
                began.append(time.process_time())

            seconds = together(crowd, run, start)
            own = time.process_time() - began[0]
            coding = clock.spent
            pipe.send(None)
            theirs_coding, theirs = pipe.recv()
        share = (coding + theirs_coding) / (own + theirs)
        print(
            f"{crowd:8}{crowd * steps / seconds:9.1f} {described(times)}{own:10.2f}{theirs:10.2f}"
            f"{100 * share:7.1f}%",
            flush=True,
        )


def _trainer(
    port: int,
    devices: list[nn.Module],
    images: Tensor,
    labels: NDArray[np.int64],
    steps: int,
    times: list[float],
) -> Callable[[int, threading.Barrier], None]:
    def run(client: int, barrier: threading.Barrier) -> None:
        device = devices[client]
        optimizer = torch.optim.SGD(device.parameters(), lr=1e-3)
        with linked(port, client) as own:
            for turn in range(1 + steps):
                if turn == 1:
                    barrier.wait()
                    barrier.wait()
                began = time.perf_counter()
                optimizer.zero_grad()
                latent = device(images)
                gradient, _ = own.step(latent.detach().numpy(), labels, CLASSES)
                torch.autograd.backward(latent, torch.from_numpy(gradient))
                optimizer.step()
                if turn:
                    times.append(time.perf_counter() - began)

    return run


def ways(args: argparse.Namespace, crowds: list[int], size: tuple[int, int]) -> None:
    """Print the third table."""
    print(f"\nBare servers, {size[0]:,} bytes up and {size[1]:,} down")
    print(f"{'clients':>8}{'work ms':>9}{'server':>10}{'p50 ms':>9}{'p95 ms':>9}{'a second':>10}")
    for crowd in crowds:
        for work in (0.0, 0.005):
            for way in ("threads", "asyncio"):
                count = max(20, args.exchanges // crowd)
                runs = [bare_exchanges(way, crowd, size, work, count) for _ in range(args.best_of)]
                times, rate = min(runs, key=lambda run: float(np.median(run[0])))
                print(
                    f"{crowd:8}{1e3 * work:9.0f}{way:>10} {described(times)}{rate:10.0f}",
                    flush=True,
                )


def tables_of(latent: NDArray[np.float32]) -> Tables:
    """Return tables for ``latent`` (B, C, ...), in steps of one."""
    channels = latent.shape[1]
    symbols = np.rint(latent.swapaxes(0, 1).reshape(channels, -1)).astype(np.int32)
    return Tables.from_symbols(
        1, symbols, np.zeros(channels, np.float32), np.ones(channels, np.float32)
    )


class Counted:
    """Forwards TCP to a port of this machine and counts its bytes, ``up`` and ``down``."""

    def __init__(self, port: int) -> None:
        self.up = self.down = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._to))
        for one, other, way in ((near, far, "up"), (far, near, "down")):
            threading.Thread(target=self._pump, args=(one, other, way), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                setattr(self, way, getattr(self, way) + len(data))
                other.sendall(data)


if __name__ == "__main__":
    main()
