"""One worker process: ``python -m flowerpress.simulations.engines.worker MODULE:FUNCTION``.

The function gets a text and returns a ``ClientApp``. The process answers the instructions that
come in on its standard input, one after the other, and keeps the contexts of its nodes. It ends
when that input ends, at once and even in the middle of a client's training: so no worker
outlives its engine, whatever became of that.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from flwr.app import Context
from flwr.clientapp import ClientApp

from flowerpress.simulations.engines.grid import answer, node_context
from flowerpress.simulations.engines.pipe import Kind, from_bytes, read_frame, to_bytes, write_frame

__all__ = ["main"]


def main(factory: str) -> None:
    """Serve until the input ends."""
    # Ctrl-C goes to the whole process group: the engine alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source, sink = _claim_pipes()
    hello = read_frame(source)
    if hello is None:
        return
    threading.Thread(target=_receive, args=(source, inbox), daemon=True).start()
    try:
        given = json.loads(hello[1])
        app = _load(factory)(given["argument"])
        write_frame(sink, Kind.READY, b"")
        _serve(app, int(given["clients"]), int(given["run_id"]), inbox, sink)
    except BrokenPipeError:
        return
    except BaseException as error:  # noqa: BLE001 - all of it goes to the engine as text
        traceback.print_exc()
        write_frame(sink, Kind.FAILED, f"{type(error).__name__}: {error}".encode())
        raise SystemExit(1) from None


def _serve(
    app: ClientApp,
    clients: int,
    run_id: int,
    inbox: queue.SimpleQueue[bytes],
    sink: BinaryIO,
) -> None:
    contexts: dict[int, Context] = {}
    while True:
        message = from_bytes(inbox.get())
        node_id = message.metadata.dst_node_id
        if node_id not in contexts:
            contexts[node_id] = node_context(node_id, clients, run_id)
        write_frame(sink, Kind.REPLY, to_bytes(answer(app, message, contexts[node_id])))


def _receive(source: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    while (frame := read_frame(source)) is not None:
        inbox.put(frame[1])
    # Nobody is left to answer to. The main thread may be deep in training: do not wait for it.
    os._exit(0)


def _claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output for frames; what client code prints goes to stderr."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return source, sink


def _load(factory: str) -> Callable[[str], ClientApp]:
    # The name is on this process's own command line; it does not come over the pipe.
    module, _, function = factory.partition(":")
    return cast(Callable[[str], ClientApp], getattr(importlib.import_module(module), function))


if __name__ == "__main__":
    main(sys.argv[1])
