"""``flowerpress compare``: its numbers, what it keeps when stopped, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SMALL, Comparison, Said, stamps

SLUGS = {"none": "none", "stc/int8": "stc-int8"}


def _rounds(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_ctrl_c_ends_it_in_good_order(compared: Comparison) -> None:
    assert compared.stopped.code == 130
    assert compared.stopped.err.startswith(
        f"flowerpress: stopped; what was done is kept in {compared.folder}"
    )
    assert "Traceback" not in compared.stopped.err
    assert "failed" not in compared.stopped.out
    assert compared.left_alive == []


def test_the_same_command_goes_on_where_it_was(compared: Comparison) -> None:
    assert compared.again.code == 0, compared.again.err
    assert "none seed 0  kept: finished before" in compared.again.out
    assert compared.again.out.count("kept: finished before") == 1
    # "accessed" is not among the stamps: only what writes would change them.
    assert stamps(compared.folder / "none" / "seed-0") == compared.kept
    for slug in SLUGS.values():
        for seed in (0, 1):
            summary = json.loads(
                (compared.folder / slug / f"seed-{seed}" / "summary.json").read_text()
            )
            assert summary["finished"] is True
            assert summary["config"]["seed"] == seed


def test_the_numbers_are_those_of_the_runs(compared: Comparison) -> None:
    with (compared.folder / "comparison.csv").open(newline="") as file:
        rows = {row["codec"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["none", "stc/int8"]
    finals = {}
    for label, slug in SLUGS.items():
        runs = [_rounds(compared.folder / slug / f"seed-{seed}") for seed in (0, 1)]
        ends = [run[-1]["accuracy"] for run in runs]
        finals[label] = sum(ends) / 2
        row = rows[label]
        assert int(row["seeds"]) == 2
        assert float(row["accuracy"]) == pytest.approx(finals[label])
        assert float(row["accuracy_spread"]) == pytest.approx(abs(ends[0] - ends[1]) / 2)
        for way in ("up", "down"):
            sent = sum(record[f"bytes_{way}"] for run in runs for record in run)
            assert float(row[f"total_{way}"]) == pytest.approx(sent / 2)
        sent = sum(record["bytes_up"] for run in runs for record in run)
        assert float(row["up_per_client_round"]) == pytest.approx(sent / (2 * 2 * 3))
        raw = sum(record["raw_bytes_up"] for run in runs for record in run)
        assert float(row["ratio_up"]) == pytest.approx(raw / sent)
    behind = 100 * (finals["none"] - finals["stc/int8"])
    assert rows["none"]["behind"] == ""
    assert float(rows["stc/int8"]["behind"]) == pytest.approx(behind)
    page = (compared.folder / "comparison.html").read_text()
    assert f"{100 * finals['none']:.2f}%" in page
    assert "--codecs none,stc/int8" in page
    assert (compared.folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_up_and_down_may_have_codecs_of_their_own(compared: Comparison) -> None:
    summary = json.loads((compared.folder / "stc-int8" / "seed-1" / "summary.json").read_text())
    assert (summary["config"]["uplink"], summary["config"]["downlink"]) == ("stc", "int8")
    assert summary["ratio_up"] > 100
    assert 1 < summary["ratio_down"] < 10


def test_it_says_what_was_compared_and_with_what(compared: Comparison) -> None:
    out = compared.again.out
    assert "digits; 3 clients; dirichlet(alpha=0.5); 2 rounds; seeds 0, 1" in out
    assert "Reference: none." in out
    table = out[out.index("Codec") :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["none", "stc/int8"]
    assert max(len(line.rstrip()) for line in table[:3]) <= 80
    assert f"Report:  {compared.folder / 'comparison.html'}" in out


def test_report_says_the_same_again(flowerpress: Callable[..., Said], compared: Comparison) -> None:
    before = (compared.folder / "comparison.csv").read_bytes()
    said = flowerpress("report", compared.folder)
    assert said.code == 0, said.err
    assert said.out.strip() == compared.again.out[compared.again.out.index("digits;") :].strip()
    assert (compared.folder / "comparison.csv").read_bytes() == before


def test_another_configuration_is_refused_and_nothing_lost(
    flowerpress: Callable[..., Said], compared: Comparison
) -> None:
    before = {slug: stamps(compared.folder / slug / "seed-1") for slug in SLUGS.values()}
    for change in (["training.lr=0.01"], ["--partition", "iid"], ["--rounds", "3"]):
        said = flowerpress(*compared.words, *change)
        assert said.code == 2
        assert "holds a run with another" in said.err
        assert change[0].removeprefix("--").partition(".")[0].partition("=")[0] in said.err
        assert "--overwrite" in said.err
    assert {slug: stamps(compared.folder / slug / "seed-1") for slug in SLUGS.values()} == before


def test_the_reference_stays_the_first_that_was_named(
    flowerpress: Callable[..., Said], tmp_path: Path
) -> None:
    # "stc" comes after "int8" by name, and is the reference all the same.
    out = ("--out", "small", "--seeds", "1", "--workers", "2")
    said = flowerpress("compare", "--codecs", "stc,int8", *SMALL, *out, "rounds=1")
    assert said.code == 0, said.err
    assert "Reference: stc." in said.out
    assert "Reference: stc." in flowerpress("report", "small").out
    Path("small/comparison.json").unlink()
    assert "Reference: int8." in flowerpress("report", "small").out
    for text in ('{"runs": 3}', "[", '{"runs": [["../../x", "x"]]}'):
        Path("small/comparison.json").write_text(text)
        said = flowerpress("report", "small")
        assert said.code == 2
        assert "comparison.json" in said.err
