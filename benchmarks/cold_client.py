"""A device's process that handles one message: what benchmarks/cold_start.py measures.

python benchmarks/cold_client.py flower|journal|round FOLDER CODEC

Prints its processor seconds, the most memory that it took, and which large packages it loaded.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import flwr.clientapp  # noqa: F401 - what Flower's own process has loaded by then


def one_round(folder: Path, codec: str) -> None:
    """Receive a model of a million weights, train, keep a record, and answer."""
    import numpy as np
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.app.message.message import make_message
    from flwr.app.metadata import Metadata

    from flowerpress.client import press
    from flowerpress.compression import Manifest, encode_frames, model_digest, preset
    from flowerpress.protos import (
        Instruction,
        Kind,
        MessageCarrier,
        Receipt,
        Status,
        Update,
        join_updates,
        pack,
    )

    rng = np.random.default_rng(0)
    model: dict[str, Any] = {
        "w": rng.standard_normal((1000, 1000)).astype(np.float32),
        "b": np.zeros(1000, np.float32),
    }
    manifest = Manifest.of(model)
    digest = model_digest(manifest, model)
    frames, _ = encode_frames(manifest, preset("none").plan(manifest), model, None)
    update = Update(
        Kind.MODEL, 1, 1, 0, 1, manifest.digest, frames, result=digest, manifest=manifest
    )
    content = RecordDict()
    MessageCarrier().attach(content, "arrays", join_updates([pack(update)]))
    Instruction(1, 1, 7, 1, 0, digest, 0, "arrays", codec, "message", 0).write(content)
    message = make_message(Metadata(1, "1", 1, 7, "", "1", 0.0, 3600.0, "train"), content)

    def train(message: Message, context: Context) -> Message:
        arrays = {k: v.numpy() for k, v in message.content.array_records["arrays"].items()}
        steps = {k: rng.standard_normal(v.shape).astype(np.float32) for k, v in arrays.items()}
        moved = {k: Array(v + np.float32(0.01) * steps[k]) for k, v in arrays.items()}
        metrics = MetricRecord({"num-examples": 1})
        reply = RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics})
        return Message(reply, reply_to=message)

    reply = press(journal=folder)(message, Context(1, 7, {}, RecordDict(), {}), train)
    receipt = Receipt.read(reply.content)
    assert receipt.status is Status.OK, receipt


def main() -> None:
    """Do what the command line says."""
    stage, folder, codec = sys.argv[1:]
    if stage == "journal":
        from flowerpress.client import press
        from flowerpress.client.journal import Journal

        press(journal=folder)
        Journal(Path(folder), 1).close()
    elif stage == "round":
        one_round(Path(folder), codec)
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "cpu": used.ru_utime + used.ru_stime,
        "mib": used.ru_maxrss / 1024,
        "loaded": [name for name in ("torch", "numba") if name in sys.modules],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
