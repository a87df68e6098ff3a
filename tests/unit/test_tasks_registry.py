"""Finding tasks: by name, in a file, and in the documentation's example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.partition import read_scheme, split
from flowerpress.simulations.tasks import BUILT_IN, Task, load_task

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = """
import torch
from torch import nn
from flowerpress.simulations.tasks import Data, Samples, Task

class Mine(Task):
    def load(self):
        samples = Samples(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
        return Data(samples, samples, ("only",))

    def build(self):
        return nn.Linear(2, 1)
"""


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def write(folder: Path, text: str) -> Path:
    path = folder / "my_task.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_tasks_have_usable_defaults(name: str, tmp_path: Path) -> None:
    task = load_task(name, tmp_path)
    assert task.name == name
    assert task.folder == tmp_path
    read_scheme(task.partition)
    assert task.clients >= 2


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mnist'"):
        load_task("mnst", None)


def test_importing_the_package_does_not_import_torch() -> None:
    code = (
        "import sys; import flowerpress.simulations.tasks, flowerpress.simulations.partition;"
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_exported_name_can_be_had() -> None:
    from flowerpress.simulations import tasks

    assert {name for name in tasks.__all__ if getattr(tasks, name) is not None} == set(
        tasks.__all__
    )
    with pytest.raises(AttributeError, match="no attribute 'Tsak'"):
        tasks.Tsak  # noqa: B018


@pytest.mark.parametrize("suffix", ["", ":Mine"])
def test_a_file_with_load_and_build_is_enough(tmp_path: Path, suffix: str) -> None:
    task = load_task(f"{write(tmp_path, MINIMAL)}{suffix}", tmp_path)
    assert isinstance(task, Task)
    assert (task.name, task.folder) == ("mine", tmp_path)
    assert task.evaluate(task.build(), task.load().test).accuracy == 1.0


def test_a_file_may_import_its_neighbour_but_hides_no_library(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_my_task.py").write_text("CLIENTS = 3\n", encoding="utf-8")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hidden')\n", encoding="utf-8")
    text = MINIMAL + "    import colorsys, neighbour_of_my_task as n\n    clients = n.CLIENTS\n"
    assert load_task(f"{write(tmp_path, text)}:Mine", None).clients == 3


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (MINIMAL, ":Mein", "defines no 'Mein'; its tasks: Mine"),
        (MINIMAL, ":nn", "nn is not a task; write `class nn(Task):`"),
        (MINIMAL + "class Other(Mine): pass\n", "", "which task? It defines 2 (Mine, Other)"),
        ("x = 1\n", "", "It defines none"),
        (MINIMAL.replace("def build", "def bild"), ":Mine", "Mine still has to define build()"),
        ("import no_such_module_anywhere\n", ":Mine", "ModuleNotFoundError"),
        ("def (:\n", ":Mine", "SyntaxError"),
        (MINIMAL + "    def __init__(self): pass\n", ":Mine", "called with the data folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained(
    tmp_path: Path, text: str, name: str, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(f"{write(tmp_path, text)}{name}", None)
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.py does not exist"):
        load_task(f"{tmp_path / 'nowhere.py'}:Mine", None)


def test_something_like_a_path_is_told_how_a_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"\./my_task\.py:MyTask"):
        load_task("./my_task:Mine", None)


def test_the_documented_example_trains(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "writing-a-task.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    task = load_task(f"{write(tmp_path, example)}:Circle", None)
    data = task.load()
    partition = split(task.partition, data, task.clients, seed=0)
    assert sum(map(len, partition.train)) == 1000
    torch.manual_seed(0)
    model = task.build()
    before = task.evaluate(model, data.test)
    task.train(model, data.train, task.training, torch.Generator().manual_seed(0))
    after = task.evaluate(model, data.test)
    assert after.mean_loss < before.mean_loss
    assert after.accuracy > 0.9
