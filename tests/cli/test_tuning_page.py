"""Every file, command and line of Python on docs/tuning.md, in the order of the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.menu import MENUS
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.schedule import KINDS, Schedule
from flowerpress.compression.rates.solve import ALLOCATORS
from tests.cli.conftest import Said, command

PAGE = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Yield (language, name of the file that it shall be saved as, text) of every block."""
    for found in BLOCK.finditer(PAGE):
        before = PAGE[: found.start()].rstrip().rpartition("\n\n")[2]
        named = re.findall(r"[Ss]ave\s+this(?:\s+one)?\s+as\s+`([\w.]+)`", before)
        yield found[1], named[-1] if named else "", found[2]


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Said]]:
    """Do what the page says in an empty folder; return it, and what each command said."""
    folder = tmp_path_factory.mktemp("tuning")
    said: dict[str, Said] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for language, name, text in blocks():
            if name:
                Path(name).write_text(text, encoding="utf-8")
            elif language == "python":
                names: dict[str, Any] = {}
                exec(text, names)  # noqa: S102
                assert names["strategy"].uplink == "tuning/plan.json"
            else:
                for line in text.replace("\\\n", " ").strip().splitlines():
                    program, *words = shlex.split(line)
                    assert program == "flowerpress"
                    said[line] = command(*words, columns=120)
                    assert said[line].code == 0, f"{line}\n{said[line].out}\n{said[line].err}"
    return folder, said


def only(said: dict[str, Said], *parts: str) -> Said:
    (found,) = [each for line, each in said.items() if all(part in line for part in parts)]
    return found


def test_every_command_works_as_written(followed: tuple[Path, dict[str, Said]]) -> None:
    folder, said = followed
    assert len(said) >= 12
    assert {line.split()[1] for line in said} == {"tune", "simulate", "compare"}
    assert {line.split()[2] for line in said if " tune " in line} == {
        "profile",
        "solve",
        "curve",
        "verify",
    }
    for name in ("plan.json", "slow.json", "report.html", "front.png"):
        assert (folder / "tuning" / name).is_file(), name


def test_the_plan_keeps_its_promise(followed: tuple[Path, dict[str, Said]]) -> None:
    folder, said = followed
    plan = RatePlan.read(folder / "tuning" / "plan.json")
    assert plan.target_bytes == 1024
    slow = RatePlan.read(folder / "tuning" / "slow.json")
    assert slow.target_bytes == 8_000 * 2 // 8
    table = only(said, "verify").out
    for name in ("uniform", "by-size", "by-phase", "plan"):
        assert name in table


def test_files_that_the_page_saves_are_the_ones_that_it_uses() -> None:
    saved = {name for _, name, _ in blocks() if name}
    commands = "\n".join(text for language, name, text in blocks() if not language and not name)
    used = set(re.findall(r"(?<!tuning/)\b(\w+\.(?:toml|py))\b", commands))
    assert saved == used
    assert not re.findall(r"^```(?!python|toml|$)", PAGE, re.MULTILINE)


def test_every_key_is_in_the_tables_and_every_name_exists() -> None:
    policy = PAGE.partition("## Keys of a policy")[2].partition("\n## ")[0]
    for kind in (BudgetSpec, Schedule):
        for field in fields(kind):
            assert f"`{field.name}`" in policy, field.name
    for name in ("default", "vectors", "plan", "[weights]", "match", "codec", "groups", *KINDS):
        assert f"`{name}`" in policy
    (menus,) = re.findall(r"^\| `menu` \| (.*?), or a list", policy, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", menus)) == set(MENUS)
    plan = PAGE.partition("## What is in a plan")[2]
    for name in [field.name for field in fields(Entry)] + [
        "format",
        "manifest",
        "allocator",
        "menu",
    ]:
        assert f"`{name}`" in plan
    allocators = re.findall(
        r"^\| `([\w-]+)` \|", PAGE.partition("| `allocator` |")[2].partition("##")[0], re.MULTILINE
    )
    assert set(allocators) == set(ALLOCATORS)
