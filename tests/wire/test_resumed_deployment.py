"""A ServerApp under a real SuperLink that is killed twice, and goes on with a new ``flwr run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig

from flowerpress.simulations.engines.grid import server_identity
from flowerpress.simulations.engines.inline import InlineGrid
from tests.wire.deployment import CLIENTS, deployment
from tests.wire.test_real_superlink import alike, loaded, mark
from tests.wire.third_party import CLIENT, SERVER, TENSORS, project

__all__ = ["mark"]

pytestmark = pytest.mark.slow

ROUNDS = 4

# The app's own memory is Flower's, which a new run begins without.
_CLIENT = CLIENT.replace('["rounds"] + 1 if "seen" in context.state', '["rounds"] if False')

_DYING = '''\
def dies(point):
    """End the process, once, where the run is not to be left alone."""
    mark = Path(context.run_config["out"] + "." + point)
    if context.run_config["dies"] and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def aggregated(contents, key):
    rounds.append(len(rounds) + 1)
    # All clients have trained in the first round of this process; later they have evaluated, too.
    if len(rounds) == 2:
        dies("aggregate")
    return aggregate_metricrecords(contents, key)


def evaluated(number, arrays):
    if number == 3:
        dies("evaluate")


rounds = []
'''


def written(folder: Path) -> Path:
    """Write an app that dies in its second round, and again in its third."""
    folder.mkdir()
    config = f"num-server-rounds = {ROUNDS}\nevaluate = 1.0\ndies = true\nkept = 'nowhere'"
    (folder / "pyproject.toml").write_text(project("third-party", "third_party", config))
    (folder / "third_party_client.py").write_text(_CLIENT)
    server = SERVER.format(tensors=TENSORS)
    body = "".join(f"    {line}\n" if line else "\n" for line in _DYING.splitlines())
    for old, new in (
        ("import json\n", "import json\nimport os\nimport signal\n"),
        ("    rng = np.random.default_rng(0)\n", f"{body}    rng = np.random.default_rng(0)\n"),
        (
            'fraction_evaluate=context.run_config["evaluate"])',
            'fraction_evaluate=context.run_config["evaluate"], train_metrics_aggr_fn=aggregated)',
        ),
        ("seed=5)", 'seed=5, checkpoint=context.run_config["kept"])'),
        (
            "evaluate_fn=lambda number, arrays: times.append(time.monotonic()),",
            "evaluate_fn=evaluated,",
        ),
        (
            "from flwr.serverapp.strategy import FedAdam\n",
            "from flwr.serverapp.strategy import FedAdam\n"
            "from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords\n",
        ),
    ):
        assert old in server
        server = server.replace(old, new)
    (folder / "third_party_server.py").write_text(server)
    return folder


def test_a_server_app_that_is_killed_goes_on_to_the_same_bit(tmp_path: Path, mark: str) -> None:
    app = written(tmp_path / "app")
    out = tmp_path / "there.json"
    settings: UserConfig = {"out": str(out), "kept": str(tmp_path / "kept")}
    with deployment(tmp_path, journals=True) as flower:
        for point in ("aggregate", "evaluate"):
            assert flower.run(app, settings) != "finished:completed"
            assert Path(f"{out}.{point}").exists(), flower.logs()
            assert not out.exists()
        assert flower.run(app, settings) == "finished:completed", flower.logs()
    there: dict[str, Any] = json.loads(out.read_text())
    assert there["rejections"] == []

    grid = InlineGrid(loaded(app / "third_party_client.py").app, CLIENTS)
    here = tmp_path / "here.json"
    config: UserConfig = {"out": str(here), "kept": str(tmp_path / "whole"), "dies": False}
    config |= {"num-server-rounds": ROUNDS, "evaluate": 1.0}
    with server_identity(grid.run.run_id):
        context = Context(grid.run.run_id, 1, {}, RecordDict(), config)
        loaded(app / "third_party_server.py").app(grid, context)
    assert alike(there) == alike(json.loads(here.read_text()))
    assert list(there["rounds"]) == [str(number) for number in range(1, ROUNDS + 1)]
