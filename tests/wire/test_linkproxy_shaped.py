"""The proxy beside the kernel's token bucket: the same rate takes the same time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowerpress.simulations.linkproxy import LinkProxy
from tests.wire.shaped import sent

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]
FRAME = 1514 / 1448
"""Bytes of a full Ethernet frame, which ``tbf`` counts, for those of TCP payload in it."""


def reason() -> str:
    """Return why namespaces cannot be had here, or nothing."""
    for tool in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (packages util-linux and iproute2)"
    probe = "ip link set lo up && tc qdisc add dev lo root tbf rate 1mbit burst 6kb latency 1s"
    done = subprocess.run([*NAMESPACE, "sh", "-c", probe], capture_output=True, text=True)
    return done.stderr.strip() and f"no network namespace with tbf: {done.stderr.strip()}"


def through_tbf(rate: float, size: int) -> float:
    words = [*NAMESPACE, sys.executable, "-m", "tests.wire.shaped", str(int(rate)), str(size)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def through_proxy(rate: float, size: int) -> float:
    import socket

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
            connection.sendall(b"!")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with LinkProxy(address, up=rate) as proxy:
            return sent("127.0.0.1", proxy.port, size)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [256e3, 2e6, 20e6])
def test_the_proxy_and_the_kernel_agree(rate: float) -> None:
    if missing := reason():
        pytest.skip(missing)
    size = int(rate / 8 * 5)  # five seconds
    kernel = through_tbf(rate * FRAME, size)
    proxy = through_proxy(rate, size)
    assert proxy == pytest.approx(kernel, rel=0.03), (proxy, kernel)
