"""A small Flower app as a folder, made for one run: what ``flwr run`` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_app"]

_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "flowerpress-run"
version = "1.0.0"
description = {description}
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "flowerpress"

[tool.flwr.app.components]
serverapp = {server}
clientapp = {client}

[tool.flwr.app.config]
"""


def write_app(
    folder: Path, description: str, files: Mapping[str, str], *, server: str, client: str
) -> None:
    """Write an app.

    Args:
        files: name of each file (``.py``, or what else Flower bundles) -> its text.
        server: where the ServerApp is, as ``module:name``; ``client`` likewise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    quoted = {"description": description, "server": server, "client": client}
    # A string of JSON is one of TOML, too.
    project = _PROJECT.format(**{name: json.dumps(text) for name, text in quoted.items()})
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
