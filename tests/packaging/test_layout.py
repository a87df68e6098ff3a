"""What may lie where in the source tree, and that none of it gets in Python's own way."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("client", "compression", "protos", "server", "simulations")


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_root_holds_one_portion_and_no_module_of_its_own(source: str) -> None:
    root = ROOT / source
    assert not list(root.glob("*.py"))
    assert not (root / "flowerpress" / "__init__.py").exists()
    portions = [path.name for path in (root / "flowerpress").iterdir() if path.is_dir()]
    assert [name for name in portions if name != "__pycache__"] == [source]
    portion = root / "flowerpress" / source
    assert (portion / "__init__.py").is_file()
    assert (portion / "py.typed").is_file()


@pytest.mark.parametrize("folder", [".", *SOURCES])
def test_no_folder_hides_a_module_of_the_standard_library(folder: str) -> None:
    # `python -c` puts the current folder first, as Flower does with an app's folder.
    script = (
        "import bz2, gzip, lzma, sys, tarfile, zipfile, zlib\n"
        "assert sys.path[0] == ''\n"
        "for module in (bz2, gzip, lzma, tarfile, zipfile):\n"
        "    assert module.__file__.startswith(sys.base_prefix), module.__file__\n"
        "if sys.version_info >= (3, 14):\n"
        "    import compression.zstd\n"
        "print(gzip.decompress(gzip.compress(b'still there')).decode())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / folder, capture_output=True, text=True
    )
    assert done.stdout.strip() == "still there", done.stderr


def _documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_nothing_names_a_folder_of_one_machine() -> None:
    found = []
    own = re.compile(r"(?<![\w.~])/(home|root|work|Users|mnt)/")
    files = [*_documents(), ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    for folder in (*SOURCES, "tests", "benchmarks"):
        files += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.proto")]
    assert len(files) > 50
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if own.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for document in _documents():
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert not broken


def test_no_name_of_a_package_is_one_of_its_modules() -> None:
    """A module, once it is imported, takes the place of a name that its package brings in late."""
    found = []
    for source in SOURCES:
        for start in (ROOT / source / "flowerpress").rglob("__init__.py"):
            modules = {path.stem for path in start.parent.iterdir()} - {"__init__", "__pycache__"}
            name = ".".join(start.parent.relative_to(ROOT / source).parts)
            names = getattr(importlib.import_module(name), "__all__", [])
            late = hasattr(importlib.import_module(name), "__getattr__")
            found += [f"{name}.{each}" for each in modules & set(names) if late]
    assert not found
