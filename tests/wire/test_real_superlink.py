"""The two lines in somebody else's app, under a real SuperLink and two real SuperNodes.

The app is three files in a temporary folder. It runs twice: by Flower's own processes on
loopback, where each message is handled by a process of its own, and in this process. Both must
end with the same model and have sent the same bytes.
"""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfigValue

from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from tests.wire import split_app
from tests.wire.deployment import CLIENTS, deployment, marked
from tests.wire.splitting import certificate
from tests.wire.third_party import EXCHANGING, FORGETFUL, RAW, written

pytestmark = pytest.mark.slow

MARK = "FLOWERPRESS_TEST_MARK"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Mark every process started from here; whatever happened in the test, none may be left."""
    word = uuid.uuid4().hex
    monkeypatch.setenv(MARK, word)
    yield f"{MARK}={word}"
    assert marked(f"{MARK}={word}") == []


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_there(folder: Path, app: Path, mark: str, **settings: UserConfigValue) -> dict[str, Any]:
    """Run the app by Flower's own processes."""
    out = folder / "there.json"
    with deployment(folder) as flower:
        status = flower.run(app, {**settings, "out": str(out)})
        assert status == "finished:completed", flower.logs()
        assert marked(mark) != []
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def run_here(folder: Path, app: Path, **settings: UserConfigValue) -> dict[str, Any]:
    """Run the same files in this process."""
    out = folder / "here.json"
    grid = InlineGrid(loaded(app / "third_party_client.py").app, CLIENTS)
    server = loaded(app / "third_party_server.py").app
    with server_identity(grid.run.run_id):
        server(grid, Context(grid.run.run_id, 1, {}, RecordDict(), {**settings, "out": str(out)}))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def alike(found: dict[str, Any]) -> dict[str, Any]:
    """Return what depends neither on the identities of nodes nor on time.

    Sums of two do not depend on the order either, so models agree to the bit.
    """
    return {name: found[name] for name in found if name not in ("clients", "seconds")}


def test_the_two_lines_under_a_superlink_and_two_supernodes(tmp_path: Path, mark: str) -> None:
    app = written(tmp_path / "app")
    settings: dict[str, UserConfigValue] = {"num-server-rounds": 3, "evaluate": 1.0}
    there = run_there(tmp_path, app, mark, **settings)

    assert there["rejections"] == []
    assert list(there["rounds"]) == ["1", "2", "3"]
    nodes = there["clients"][0]
    assert len(nodes) == CLIENTS
    assert there["clients"] == [nodes] * 3
    # The app's own state lives beside ours.
    assert [metrics["seen"] for metrics in there["train"].values()] == [1, 2, 3]
    losses = [metrics["loss"] for metrics in there["evaluate"].values()]
    assert losses == sorted(losses, reverse=True)

    for number, sent in there["rounds"].items():
        # Half precision once, to train; after that 8-bit changes, each sent once, to evaluate.
        whole = RAW / 2 if number == "1" else 0
        assert len(sent["down"]) == CLIENTS
        assert all(whole < size < whole + 0.27 * RAW for size in sent["down"])
        assert all(0 < size < 0.02 * RAW for size in sent["up"])

    assert alike(there) == alike(run_here(tmp_path, app, **settings))


def test_blobs_on_a_connection_of_their_own(tmp_path: Path, mark: str) -> None:
    """With TLS, and the same bytes and model as in Flower's messages."""
    app = written(tmp_path / "app", server=EXCHANGING)
    usual = written(tmp_path / "usual")
    for name, pem in zip(("key.pem", "chain.pem"), certificate(), strict=True):
        (app / name).write_bytes(pem)
    settings: dict[str, UserConfigValue] = {"num-server-rounds": 3, "evaluate": 1.0}
    there = run_there(tmp_path, app, mark, **settings)

    assert there["rejections"] == []
    payloads = there.pop("payloads")
    for sent, moved in zip(there["rounds"].values(), payloads, strict=True):
        assert sorted(up for up, _ in moved.values()) == sent["up"]
        assert sorted(down for _, down in moved.values()) == sent["down"]
    assert alike(there) == alike(run_here(tmp_path, usual, **settings))


def test_a_device_that_lost_its_state_is_sent_a_model_and_takes_part(
    tmp_path: Path, mark: str
) -> None:
    app, usual = written(tmp_path / "app", FORGETFUL), written(tmp_path / "usual")
    settings: dict[str, UserConfigValue] = {"num-server-rounds": 2, "evaluate": 0.0}
    there = run_there(tmp_path, app, mark, **settings)
    assert there["rejections"] == []
    assert [len(nodes) for nodes in there["clients"]] == [CLIENTS] * 2
    # To one the change; to the other the change, in vain, and then a whole model as well.
    change, more = there["rounds"]["2"]["down"]
    assert 0 < change < 0.27 * RAW
    assert more > RAW / 2

    assert alike(there) == alike(run_here(tmp_path, app, **settings))
    # The residual that was lost with the model would have made a difference.
    assert there["digest"] != run_here(tmp_path, usual, **settings)["digest"]


def test_a_cut_network_under_a_superlink_and_two_supernodes(tmp_path: Path, mark: str) -> None:
    """The app of docs/split.md: weights by Flower, features to a service in the ServerApp."""
    out = tmp_path / "there.json"
    with deployment(tmp_path) as flower:
        status = flower.run(split_app.written(tmp_path / "app"), {"out": str(out)})
        assert status == "finished:completed", flower.logs()
    found = json.loads(out.read_text())
    assert found["rejections"] == []
    assert list(found["rounds"]) == ["1", "2", "3", "4"]
    # 750 examples in batches of 32.
    assert found["steps"] == {str(number): [24, 24] for number in range(1, 5)}
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    for sent in found["rounds"].values():
        assert len(sent["clients"]) == CLIENTS
        assert {"(features)", "(labels)", "head.0.weight"} <= sent["up"].keys()
        assert {"(gradients)", "(tables)"} <= sent["down"].keys()
        # Ten classes in four bits.
        assert sent["up"]["(labels)"] == CLIENTS * (23 * 16 + 7)
    first, last = found["rounds"]["1"], found["rounds"]["4"]
    assert last["up"]["(features)"] < first["up"]["(features)"]


def test_nothing_is_left_when_a_test_fails(tmp_path: Path, mark: str) -> None:
    def fail() -> None:
        with deployment(tmp_path):
            assert marked(mark) != []
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert marked(mark) == []
