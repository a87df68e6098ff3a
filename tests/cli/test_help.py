"""Help teaches, fits, and answers before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import command

CERTS = ("certs make", "certs device", "certs register", "certs renew", "certs show")
SPLIT = ("split train", "split distill", "split serve", "split infer", "split compare")
COMMANDS = (
    "simulate",
    "compare",
    "report",
    "inspect",
    "pack",
    "unpack",
    "proxy",
    "server",
    "client",
    "doctor",
)
WITHOUT_ARGUMENTS = ("client", "doctor", "split compare")


@pytest.mark.parametrize("name", [*COMMANDS, *SPLIT, *CERTS])
@pytest.mark.parametrize("columns", [80, 120])
def test_help_of_a_command_has_an_example_and_explains_everything(name: str, columns: int) -> None:
    said = command(*name.split(), "--help", columns=columns)
    assert (said.code, said.err) == (0, "")
    text = " ".join(said.out.split())
    assert f"Example: flowerpress {name}" in text
    assert "\\[" not in text
    assert text.count("rguments:") == (0 if name in WITHOUT_ARGUMENTS else 1)
    assert max(map(len, said.out.splitlines())) <= columns
    # What stands before the lists of options and arguments is prose, and may show options.
    lines = said.out.partition("Example:")[2].partition(":\n")[2].splitlines()
    for at, line in enumerate(lines):
        # An option or argument alone on its line is explained on the next one.
        if line.startswith(("  --", "  -c,", "  [KEY", "  FOLDER", "  HOST")):
            explained = "  " in line.strip() or lines[at + 1].startswith(" " * 10)
            assert explained, line


@pytest.mark.parametrize("name", ["simulate", "compare"])
def test_options_tell_their_defaults(name: str) -> None:
    text = " ".join(command(name, "--help").out.split())
    for default in (
        "digits (default)",
        "(default 20)",
        "(default: the task's)",
        "inline (default)",
    ):
        assert default in text
    assert "training.lr=0.05" in text
    if name == "compare":
        assert "(default, without --variant: none,int8,stc,fedzip)" in text
    else:
        assert "stc (default)" in text


def test_without_words_there_is_help() -> None:
    said = command()
    for name in COMMANDS:
        assert f"\n  {name} " in said.out + said.err
    assert "..." not in (said.out + said.err).partition("Commands:")[2]


@pytest.mark.parametrize("words", [["--help"], ["simulate", "--help"], ["simulate", "rounds=x"]])
def test_nothing_heavy_is_imported_for_help_or_a_wrong_value(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from flowerpress.simulations.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'flwr', 'numba', 'matplotlib', 'numpy', 'ray', 'sklearn', 'grpc'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout or "rounds" in done.stderr
