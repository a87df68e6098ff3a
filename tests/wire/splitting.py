"""Small split networks, services for them, and a connection that breaks when it is told to."""

from __future__ import annotations

import contextlib
import copy
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from flowerpress.client.split import SplitLink
from flowerpress.protos.split import (
    HELLO,
    METHOD,
    Kind,
    SplitLimits,
    SplitMessage,
    channel_options,
    client_token,
    pack_split,
    unpack_split,
)
from flowerpress.server.split import Copies, Shared, SplitService, Tails

Array = NDArray[np.float32]
Batch = tuple[Tensor, Tensor]

RUN, SECRET = 11, b"secret of the round"
ROOT = Path(__file__).parents[2]


def momentum(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimizer whose state matters."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def plain(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimizer without state."""
    return torch.optim.SGD(parameters, lr=0.05)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return an optimizer that counts its steps."""
    return torch.optim.Adam(parameters, lr=0.01)


def network(seed: int = 0) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Return head (B, 1, 6, 6) to (B, 4, 3, 3), tail to (B, 12), last to (B, 5)."""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU())
    tail = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU())
    return head, tail, nn.Linear(12, 5)


def batches(count: int, seed: int = 0, size: int = 8) -> list[Batch]:
    """Return ``count`` batches of noise and its labels."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 6, 6, generator=generator),
            torch.randint(0, 5, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def train_vanilla(
    link: SplitLink, head: nn.Module, data: Sequence[Batch], optimizer: torch.optim.Optimizer
) -> list[float]:
    """Train a head against the service; return the losses."""
    losses = []
    for inputs, labels in data:
        optimizer.zero_grad()
        latent = head(inputs)
        gradient, loss = link.step(latent.detach().numpy(), labels.numpy())
        torch.autograd.backward(latent, torch.from_numpy(gradient))
        optimizer.step()
        losses.append(loss)
    return losses


def train_u_shaped(
    link: SplitLink,
    head: nn.Module,
    last: nn.Module,
    data: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Train a head and the last layers; labels stay here."""
    for inputs, labels in data:
        optimizer.zero_grad()
        latent = head(inputs)
        middle = torch.from_numpy(link.forward(latent.detach().numpy())).requires_grad_()
        torch.autograd.backward(functional.cross_entropy(last(middle), labels))
        assert middle.grad is not None
        gradient = link.backward(middle.grad.numpy())
        torch.autograd.backward(latent, torch.from_numpy(gradient))
        optimizer.step()


def train_whole(
    modules: Sequence[nn.Module], data: Sequence[Batch], make: Any
) -> list[torch.optim.Optimizer]:
    """Train the same network in one piece; one optimizer for each module."""
    optimizers = [make(module.parameters()) for module in modules]
    for inputs, labels in data:
        out = inputs
        for module in modules:
            out = module(out)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(out, labels))
        for optimizer in optimizers:
            optimizer.step()
    return optimizers


def copies_of(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Return copies that share nothing."""
    return [copy.deepcopy(module) for module in modules]


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> None:
    """Compare all parameters and buffers."""
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=tolerance, atol=tolerance)


def tails_of(module: nn.Module, sharing: str, make: Any = momentum) -> Tails:
    """Return ``module`` as copies or shared."""
    return Copies(module, make) if sharing == "copies" else Shared(module, make)


def part_of(tails: Any) -> Any:
    """Return what client 1 trains."""
    return tails._parts[1] if isinstance(tails, Copies) else tails._part


@contextlib.contextmanager
def serving(tails: Tails, clients: Sequence[int] = (1,), **given: Any) -> Iterator[SplitService]:
    """Yield a service with a round open to ``clients``; its ``port`` is the one it listens on."""
    certificates = given.pop("certificates", None)
    given = {"run": RUN, "features": "none", "gradients": "none", **given}
    service = SplitService(tails, **given)
    service.port = service.serve(certificates=certificates)  # type: ignore[attr-defined]
    if clients:
        service.begin_round(1, list(clients), SECRET)
    try:
        yield service
    finally:
        service.stop(0.0)


def linked(port: Any, client: int = 1, **given: Any) -> SplitLink:
    """Return a link to a service on this machine, in its round."""
    port = getattr(port, "port", port)
    given = {"round": 1, "token": client_token(SECRET, client), "deadline": 8.0, **given}
    return SplitLink(f"127.0.0.1:{port}", run=RUN, client=client, **given)


class Raw:
    """A stream without any of a link's manners: what is sent is what is given."""

    def __init__(self, port: Any, largest: int = 16 << 20) -> None:
        limits = SplitLimits(largest=largest)
        self._limits = limits
        address = f"127.0.0.1:{getattr(port, 'port', port)}"
        self._channel = grpc.insecure_channel(address, channel_options(limits))
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        call = self._channel.stream_stream(METHOD)
        self._answers = call(iter(self._out.get, None), timeout=20)
        self.key = HELLO

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.put(None)
        self._channel.close()

    def send(self, data: bytes) -> SplitMessage:
        """Send bytes and return the answer to them."""
        self._out.put(data)
        return unpack_split(next(self._answers), self.key, self._limits)

    def ask(self, message: SplitMessage) -> SplitMessage:
        """Send a message and return the answer to it."""
        return self.send(pack_split(message, self.key))

    def open(self, client: int = 1, **given: Any) -> SplitMessage:
        """Open a session."""
        given = {"round": 1, "token": client_token(SECRET, client), "run": RUN, **given}
        answer = self.ask(SplitMessage(Kind.OPEN, client=client, **given))
        if answer.kind is Kind.ACK:
            self.key = answer.session
        return answer

    def ended(self) -> bool:
        """Whether the service ends the stream, without any message more."""
        try:
            next(self._answers)
        except StopIteration:
            return True
        except grpc.RpcError:
            return True
        return False


class Proxy:
    """Forwards TCP to a port of this machine, until it is told to ``cut``.

    Bytes before a cut arrive, and then the end: a service sees half a message. A ``LinkProxy``
    resets its connections, and what was under way is lost.
    """

    def __init__(self, port: Any) -> None:
        self.to = int(getattr(port, "port", port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: set[socket.socket] = set()
        self.allowed: int | None = None  # bytes upwards until the cut
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        self.cuts += 1
        self.allowed = None
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            self._sockets |= {near, far}
            for one, other, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(one, other, up), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                if up and self.allowed is not None:
                    if len(data) >= self.allowed:
                        other.sendall(data[: self.allowed])
                        self.cut()
                        break
                    self.allowed -= len(data)
                other.sendall(data)
        for each in (one, other):
            self._sockets.discard(each)
            with contextlib.suppress(OSError):
                each.close()


@contextlib.contextmanager
def elsewhere(*given: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``tests/wire/split_server.py`` as a process of its own."""
    command = [sys.executable, "-m", "tests.wire.split_server", *given]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def port_of(process: subprocess.Popen[str]) -> int:
    """Return the port that a service elsewhere listens on."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def certificate() -> tuple[bytes, bytes]:
    """Return a private key and a certificate for this machine that vouches for itself."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private, made.public_bytes(serialization.Encoding.PEM)
