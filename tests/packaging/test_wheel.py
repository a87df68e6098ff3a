"""The wheel, installed into an environment of its own and used from outside the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTIONS = ("client", "compression", "protos", "server", "simulations")


def _run(command: list[str], cwd: Path) -> str:
    """Run without what this process's environment says about imports; return what it printed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env["PYTHONNOUSERSITE"] = "1"
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    _run([*command, str(ROOT)], folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of an environment that has the wheel, and nothing of this tree."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    _run([*install, "--no-deps", "--no-index", "--no-compile", str(wheel)], home)
    # Dependencies come from the environment of the tests. As a line of a .pth file, its own .pth
    # files are not read, so that an editable install there stays out of sight.
    site = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home)
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site.strip()) / "dependencies.pth").write_text("\n".join(sorted(places)) + "\n")
    return python.parent


def test_the_wheel_holds_the_portions_with_their_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "flowerpress/__init__.py" not in names
    for portion in PORTIONS:
        assert f"flowerpress/{portion}/__init__.py" in names
        assert f"flowerpress/{portion}/py.typed" in names
    assert "flowerpress/protos/update.proto" in names
    information = f"flowerpress-{version('flowerpress')}.dist-info"
    assert {name.split("/")[0] for name in names} == {"flowerpress", information}
    assert {name.split("/")[1] for name in names if name.startswith("flowerpress/")} == {*PORTIONS}
    in_tree = {
        path.relative_to(ROOT / portion).as_posix()
        for portion in PORTIONS
        for path in (ROOT / portion / "flowerpress").rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == in_tree


def test_all_portions_come_from_the_wheel(elsewhere: Path, tmp_path: Path) -> None:
    script = (
        "import importlib, json\n"
        "from importlib.metadata import version\n"
        f"names = ['flowerpress.' + name for name in {PORTIONS!r}]\n"
        "files = {name: importlib.import_module(name).__file__ for name in names}\n"
        "print(json.dumps([version('flowerpress'), files]))\n"
    )
    found, files = json.loads(_run([str(elsewhere / "python"), "-c", script], tmp_path))
    assert found == version("flowerpress")
    assert len(files) == len(PORTIONS)
    for file in files.values():
        assert Path(file).is_relative_to(elsewhere.parent), file


def test_the_command_works_there(elsewhere: Path, tmp_path: Path) -> None:
    said = _run([str(elsewhere / "flowerpress"), "--help"], tmp_path)
    for command in ("simulate", "compare", "report", "inspect", "doctor"):
        assert command in said
    said = _run([str(elsewhere / "flowerpress"), "--version"], tmp_path)
    assert said.split() == ["flowerpress", version("flowerpress")]


def test_codecs_need_neither_torch_nor_flower_nor_grpc(elsewhere: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'flwr', 'grpc', 'google', 'flowerpress.protos'):\n"
        "    sys.modules[name] = None\n"  # any import of it fails
        "import numpy as np\n"
        "import flowerpress.compression as c\n"
        "for name in c.__all__:\n"
        "    getattr(c, name)\n"
        "x = {'w': np.arange(-50, 50, dtype=np.float32).reshape(10, 10)}\n"
        "manifest = c.Manifest.of(x)\n"
        "plan = c.preset('int8').plan(manifest)\n"
        "frames, _ = c.encode_frames(manifest, plan, x, None)\n"
        "y = c.apply_frames(manifest, {}, frames, change=False)['w']\n"
        "print(float(abs(y - x['w']).max()))\n"
    )
    worst = float(_run([str(elsewhere / "python"), "-c", script], tmp_path))
    assert 0 <= worst < 0.5
