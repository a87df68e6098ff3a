"""The Flower app of docs/split.md as files, and what it sent."""

from __future__ import annotations

import re
from pathlib import Path

from tests.wire.third_party import project

PAGE = Path(__file__).parents[2] / "docs" / "split.md"
FILE = re.compile(r"^`(\w+\.py)`:\n\n```py\n(.*?)^```$", re.DOTALL | re.MULTILINE)

TOLD = """\
    import json
    from pathlib import Path

    rounds = {
        number: {
            "up": sent.uplink.by_tensor,
            "down": sent.downlink.by_tensor,
            "clients": sorted(sent.uplink.by_client),
        }
        for number, sent in strategy.meter.rounds.items()
    }
    found = {
        "rounds": rounds,
        "rejections": [vars(rejection) for rejection in strategy.rejections],
        "steps": {n: [c.steps for c in r.clients.values()] for n, r in strategy.reports.items()},
        "losses": [metrics["loss"] for metrics in result.train_metrics_clientapp.values()],
    }
    Path(context.run_config["out"]).write_text(json.dumps(found))
"""


def files() -> dict[str, str]:
    """Return the page's files by name."""
    return dict(FILE.findall(PAGE.read_text(encoding="utf-8")))


def written(folder: Path) -> Path:
    """Write the app into a new folder and return it; it also tells what it did."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(project("split-app", "split"))
    for name, text in files().items():
        told = text + TOLD if name == "split_server.py" else text
        (folder / name).write_text(told)
    return folder
