"""Seconds that bytes take through the kernel's own token bucket, between two network namespaces.

    unshare --user --map-root-user --net python -m tests.wire.shaped RATE BYTES

RATE is bits a second of Ethernet frames. A second namespace holds the service; the two are joined
by a pair of virtual interfaces, and ``tbf`` shapes what the client sends. Nothing outside is
changed, and all of it goes with the processes.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time

CLIENT, SERVICE, PORT = "10.231.0.1", "10.231.0.2", 4711


def main(rate: str, size: str) -> None:
    words = ["unshare", "--net", sys.executable, "-m", "tests.wire.shaped", "serve"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdout.readline()
        run(f"ip link add client type veth peer name service netns {service.pid}")
        inside = f"nsenter --target {service.pid} --net"
        for before, name, address in (("", "client", CLIENT), (inside, "service", SERVICE)):
            run(f"{before} ip address add {address}/24 dev {name}")
            run(f"{before} ip link set {name} up")
        # A queue that drops nothing: what is lost to TCP is not what is compared.
        run(f"tc qdisc add dev client root tbf rate {rate}bit burst 6kb limit 16mb")
        service.stdin.write(b"\n")
        service.stdin.flush()
        service.stdout.readline()
        print(sent(SERVICE, PORT, int(size)))


def serve() -> None:
    print("there", flush=True)
    sys.stdin.readline()
    with socket.create_server((SERVICE, PORT)) as listener:
        print("listening", flush=True)
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass
            connection.sendall(b"!")


def sent(host: str, port: int, size: int) -> float:
    """Return the seconds until a service has all bytes and says so."""
    with socket.create_connection((host, port), timeout=120) as connection:
        begun = time.monotonic()
        connection.sendall(bytes(size))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return time.monotonic() - begun


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else main(*sys.argv[1:])
