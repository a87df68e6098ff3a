"""Somebody else's app: a small NumPy model, a server file and a client file, and the two lines."""

from __future__ import annotations

from pathlib import Path

TENSORS = {"hidden": (64, 128), "head": (128, 10), "bias": (10,)}
RAW = 4 * (64 * 128 + 128 * 10 + 10)  # bytes of the model in float32

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "1.0.0"
description = "A small app"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "{files}_server:app"
clientapp = "{files}_client:app"

[tool.flwr.app.config]
{config}
out = "nowhere.json"
"""


def project(name: str, files: str, config: str = "") -> str:
    """Return a pyproject.toml of an app in ``<files>_server.py`` and ``<files>_client.py``."""
    return _PROJECT.format(name=name, files=files, config=config)


CLIENT = '''\
"""Trains two layers on the client's own examples."""
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flowerpress.client import press

app = ClientApp(mods=[press()])


def examples(partition):
    rng = np.random.default_rng(partition)
    labels = rng.integers(0, 10, 200)
    centres = np.random.default_rng(99).standard_normal((10, 64))
    inputs = centres[labels] + 0.5 * rng.standard_normal((200, 64))
    return inputs.astype(np.float32), labels


def forward(model, inputs, labels):
    hidden = np.maximum(inputs @ model["hidden"], 0)
    scores = hidden @ model["head"] + model["bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances = scores / scores.sum(axis=1, keepdims=True)
    return hidden, chances, float(-np.log(chances[np.arange(len(labels)), labels] + 1e-9).mean())


@app.train()
def train(msg, context):
    model = {k: v.numpy().copy() for k, v in msg.content["arrays"].items()}
    inputs, labels = examples(context.node_config["partition-id"])
    for _ in range(5):
        hidden, chances, loss = forward(model, inputs, labels)
        chances[np.arange(len(labels)), labels] -= 1
        chances /= len(labels)
        back = (chances @ model["head"].T) * (hidden > 0)
        for name, gradient in (
            ("hidden", inputs.T @ back), ("head", hidden.T @ chances), ("bias", chances.sum(axis=0))
        ):
            model[name] -= np.float32(0.1) * gradient
    # The app keeps something of its own between rounds.
    seen = context.state["seen"]["rounds"] + 1 if "seen" in context.state else 1
    context.state["seen"] = MetricRecord({"rounds": seen})
    metrics = {"num-examples": 100 + len(labels), "loss": loss, "seen": seen}
    content = {
        "arrays": ArrayRecord({k: Array(v) for k, v in model.items()}),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    model = {k: v.numpy() for k, v in msg.content["arrays"].items()}
    _, _, loss = forward(model, *examples(context.node_config["partition-id"]))
    metrics = MetricRecord({"num-examples": 200, "loss": loss})
    return Message(RecordDict({"metrics": metrics}), reply_to=msg)
'''

SERVER = '''\
"""Any strategy, wrapped."""
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdam

from flowerpress.server import Pressed

app = ServerApp()


@app.main()
def main(grid, context):
    rng = np.random.default_rng(0)
    shapes = {tensors!r}
    first = {{k: (0.1 * rng.standard_normal(v)).astype(np.float32) for k, v in shapes.items()}}
    inner = FedAdam(eta=0.01, fraction_evaluate=context.run_config["evaluate"])
    strategy = Pressed(inner, uplink="stc", downlink="int8", seed=5)
    times = []
    result = strategy.start(
        grid,
        ArrayRecord({{k: Array(v) for k, v in first.items()}}),
        num_rounds=context.run_config["num-server-rounds"],
        timeout=60,
        evaluate_fn=lambda number, arrays: times.append(time.monotonic()),
    )
    model = {{k: v.numpy() for k, v in result.arrays.items()}}
    digest = hashlib.sha256()
    for name in sorted(model):
        digest.update(name.encode() + str(model[name].dtype).encode() + model[name].tobytes())
    rounds = {{
        number: {{
            "up": sorted(sent.uplink.by_client.values()),
            "down": sorted(sent.downlink.by_client.values()),
            "raw": [sent.uplink.raw, sent.downlink.raw],
            "tensors": [sent.uplink.by_tensor, sent.downlink.by_tensor],
        }}
        for number, sent in strategy.meter.rounds.items()
    }}
    found = {{
        "rounds": rounds,
        "clients": [sorted(s.uplink.by_client) for s in strategy.meter.rounds.values()],
        "totals": [strategy.meter.up, strategy.meter.down],
        "rejections": [vars(rejection) for rejection in strategy.rejections],
        "train": {{n: dict(m) for n, m in result.train_metrics_clientapp.items()}},
        "evaluate": {{n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()}},
        "digest": digest.hexdigest(),
        "seconds": [after - before for before, after in zip(times, times[1:])],
    }}
    Path(context.run_config["out"]).write_text(json.dumps(found))
'''

_SERVICE = """\
    key, chain = (Path({folder!r}, name).read_bytes() for name in ("key.pem", "chain.pem"))
    service = ExchangeService(certificates=(key, chain), root=chain)
    service.serve()
    strategy = Pressed(inner, carrier=service, """
_PAYLOADS = """\
    moved = [service.traffic(number) for number in sorted(strategy.meter.rounds)]
    service.stop()
    found = {{
        "payloads": [{{c: [t.up.payload, t.down.payload] for c, t in m.items()}} for m in moved],
"""
# The blobs cross on a connection of their own, with the certificate in the app's folder.
EXCHANGING = (
    SERVER.replace(
        "Pressed\n\n", "Pressed\nfrom flowerpress.server.exchange import ExchangeService\n\n"
    )
    .replace("    strategy = Pressed(inner, ", _SERVICE)
    .replace("    found = {{\n", _PAYLOADS)
)

# Put in front of press(): after its first round one device loses all that Flower kept for it.
FORGETFUL = CLIENT.replace(
    "app = ClientApp(mods=[press()])",
    """
def forget(msg, context, call_next):
    if context.node_config["partition-id"] == 1 and "seen" in context.state:
        context.state = RecordDict()
    return call_next(msg, context)


app = ClientApp(mods=[forget, press()])""",
)


def written(folder: Path, client: str = CLIENT, server: str = SERVER) -> Path:
    """Write the app into a new folder and return it."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        project("third-party", "third_party", "num-server-rounds = 3\nevaluate = 1.0")
    )
    (folder / "third_party_client.py").write_text(client)
    (folder / "third_party_server.py").write_text(
        server.format(tensors=TENSORS, folder=str(folder))
    )
    return folder
