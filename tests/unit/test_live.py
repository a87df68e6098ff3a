"""What is printed while runs go on, with and without a terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from itertools import count

from rich.console import Console
from rich.text import Text

from flowerpress.simulations.comparison.live import LiveCompare
from flowerpress.simulations.live import LiveRun
from tests.unit.synthetic_runs import made_up_records


def _plain() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=60, force_terminal=False), file


def _terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=110, height=60, force_terminal=True, _environ={}), file


def _ticks() -> Iterator[float]:
    return (10.0 * tick for tick in count())


def test_without_a_terminal_each_round_is_one_line() -> None:
    console, file = _plain()
    clock = _ticks()
    records = made_up_records(rounds=3, bad_rounds=[2], every=2)
    with LiveRun(
        "digits",
        rounds=3,
        clients=5,
        uplink="[red]stc",
        downlink="none",
        console=console,
        clock=lambda: next(clock),
    ) as live:
        for record in records:
            live.update(record)
    lines = file.getvalue().splitlines()
    assert len(lines) == 1 + 4
    assert "\x1b" not in file.getvalue()
    assert lines[0] == "flowerpress  task digits  clients 5  up [red]stc  down none"
    assert "up " not in lines[1]
    assert "accuracy" not in lines[2]
    assert lines[2].endswith("20.0 s left")  # 10 s for the first round, two more to go
    assert "left out 1 (client 2: NonFiniteError)" in lines[3]
    assert "left" not in lines[4]
    assert lines[4].startswith("round 3/3  up ")


def test_a_terminal_shows_header_bar_and_the_last_rounds() -> None:
    console, file = _terminal()
    records = made_up_records(rounds=20, bad_rounds=[19])
    live = LiveRun("digits", rounds=20, clients=5, uplink="stc", console=console, tail=4).start()
    for record in records:
        live.update(record)
    file.truncate(0)
    live.stop()
    live.stop()
    console, file = _terminal()
    console.print(live._draw())
    text = file.getvalue()
    assert "20/20" in text
    assert "1 update left out" in text
    shown = [line.split()[0] for line in _bare(text).splitlines()[3:-1]]
    assert shown == ["17", "18", "19", "20"]


def test_a_comparison_shows_every_run_and_goes_on_after_a_failure() -> None:
    console, file = _terminal()
    clock = _ticks()
    runs = [("none", 0), ("stc", 0), ("[b]odd", 1)]
    live = LiveCompare("digits", runs, rounds=2, console=console, clock=lambda: next(clock))
    with live:
        for record in made_up_records(rounds=2):
            live.update("none", 0, record)
        live.fail("stc", 0, "no data: [red]")
        live.update("[b]odd", 1, made_up_records(rounds=2)[0])
    console, file = _terminal()
    console.print(live._draw())
    text = _bare(file.getvalue())
    assert "4/6" in text
    rows = {line.split()[0]: line for line in text.splitlines()[3:]}
    assert "done" in rows["none"]
    assert "2/2" in rows["none"]
    assert "no data: [red]" in rows["stc"]
    assert "failed" in rows["stc"]
    assert "running" in rows["[b]odd"]


def test_a_comparison_without_a_terminal_names_the_run_in_each_line() -> None:
    console, file = _plain()
    with LiveCompare("digits", [("none", 0), ("stc", 3)], rounds=1, console=console) as live:
        for record in made_up_records(rounds=1):
            live.update("stc", 3, record)
        live.fail("none", 0, "gone")
    lines = file.getvalue().splitlines()
    assert lines[0] == "flowerpress  comparing 2 runs on digits"
    assert lines[1].startswith("stc seed 3  round 0/1  accuracy ")
    assert lines[3] == "none seed 0  failed: gone"


def test_the_live_modules_do_not_need_matplotlib_or_torch() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import flowerpress.simulations.live, flowerpress.simulations.record\n"
        "import flowerpress.simulations.comparison.live\n"
        "assert 'torch' not in sys.modules and 'flwr' not in sys.modules\n"
        "from flowerpress.compression.errors import ConfigError\n"
        "try:\n    import flowerpress.simulations.report\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install 'flowerpress[simulation]' -c constraints.txt" in done.stdout


def _bare(text: str) -> str:
    """Return text without its terminal codes."""
    return Text.from_ansi(text).plain
