"""``flowerpress simulate`` and ``flowerpress report`` on a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import Said

PICTURES = (
    "accuracy_bytes.png",
    "accuracy_rounds.png",
    "tensor_bytes.png",
    "tensor_rounds.png",
    "class_recall.png",
)


def test_a_run_leaves_files_that_agree(simulated: tuple[Path, Said]) -> None:
    folder, said = simulated
    assert said.code == 0, said.err
    names = {"rounds.jsonl", "summary.json", "model.safetensors", "report.html", *PICTURES}
    assert {path.name for path in folder.iterdir()} == names
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert summary["finished"] is True
    assert summary["final"]["accuracy"] == rounds[-1]["accuracy"]
    assert summary["best_accuracy"] == max(record["accuracy"] for record in rounds)
    for way in ("up", "down"):
        sent = sum(record[f"bytes_{way}"] for record in rounds)
        assert summary[f"total_bytes_{way}"] == sent
        raw = sum(record[f"raw_bytes_{way}"] for record in rounds)
        assert summary[f"ratio_{way}"] == pytest.approx(raw / sent)
    assert (summary["config"]["clients"], summary["config"]["rounds"]) == (3, 2)
    model = load_file(folder / "model.safetensors")
    assert {t["name"]: tuple(t["shape"]) for t in summary["tensors"]} == {
        name: array.shape for name, array in model.items()
    }
    values = sum(array.size for array in model.values())
    assert rounds[1]["raw_bytes_up"] == 3 * 4 * values
    assert set(rounds[1]["up_by_tensor"]) == {*model, "(headers)"}
    assert sum(rounds[1]["up_by_tensor"].values()) == rounds[1]["bytes_up"]
    for picture in PICTURES:
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert f"{100 * rounds[-1]['accuracy']:.2f}%" in page
    assert page.count("<svg") == len(PICTURES)


def test_it_shows_each_round_and_a_table_without_broken_cells(
    simulated: tuple[Path, Said],
) -> None:
    folder, said = simulated
    assert "WARNING" not in said.out + said.err
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == "flowerpress  task digits  clients 3  up int8  down int8"
    assert [line.split("  ")[0] for line in lines[1:4]] == ["round 0/2", "round 1/2", "round 2/2"]
    assert lines[4].split()[:2] == ["Round", "Accuracy"]
    assert [line.split()[0] for line in lines[5:8]] == ["0", "1", "2"]
    assert max(len(line.rstrip()) for line in lines[4:8]) <= 80
    assert lines[8] == f"Report: {folder / 'report.html'}"
    assert len(lines) == 9


def test_the_folder_is_new_where_none_is_named(
    flowerpress: Callable[..., Said], simulated: tuple[Path, Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "writing-a-task.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    Path("my_task.py").write_text(found[1])
    # The documented task, as documented: a file of the user's, named on the command line.
    said = flowerpress("simulate", "task=./my_task.py:Circle", "--rounds", "1")
    assert said.code == 0, said.err
    said = flowerpress("simulate", "--task", "./my_task.py:Circle", "rounds=1", "--seed", "0")
    assert said.code == 0, said.err
    first, second = sorted(path.name for path in Path("runs").iterdir())
    assert first == "my_task-Circle-stc-seed0"
    assert second == f"{first}-2"
    assert "clients 5" in said.out


def test_report_makes_page_and_pictures_again(
    flowerpress: Callable[..., Said], simulated: tuple[Path, Said], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(simulated[0], folder)
    page = (folder / "report.html").read_text()
    for name in ("report.html", *PICTURES):
        (folder / name).unlink()
    said = flowerpress("report", folder, columns=120)
    assert said.code == 0, said.err
    assert "Train loss" in said.out
    assert (folder / "report.html").read_text() == page
    assert all((folder / name).is_file() for name in PICTURES)


def test_report_of_a_run_that_was_killed(
    flowerpress: Callable[..., Said], simulated: tuple[Path, Said], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    whole = (simulated[0] / "rounds.jsonl").read_bytes()
    (folder / "rounds.jsonl").write_bytes(whole[:-40])
    said = flowerpress("report", folder)
    assert said.code == 0, said.err
    assert "cut off in the middle" in said.out
    assert "has not finished" in said.out
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["0", "1"]
    assert "cut off in the middle" in (folder / "report.html").read_text()


def test_report_of_a_folder_without_a_run(flowerpress: Callable[..., Said], tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        said = flowerpress("report", folder)
        assert said.code == 2
        assert "holds neither a run nor a comparison" in said.err
        assert "Traceback" not in said.err


def test_an_unfinished_run_is_neither_lost_nor_taken_for_another(
    flowerpress: Callable[..., Said], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = ["--rounds", "2", "--clients", "2", "training.max_samples=8"]
    kept = folder / "resume" / "config.json"
    kept.parent.mkdir(parents=True)
    config = {"task": "digits", "rounds": 2, "clients": 2, "training": {"max_samples": 8}}
    kept.write_text(json.dumps(config))
    # Begun, and killed before the first round.
    said = flowerpress("simulate", *settings, "--out", str(folder))
    assert said.code == 2
    assert "holds an unfinished run; --resume goes on with it, --overwrite begins anew" in said.err
    said = flowerpress("simulate", "--resume", "--out", str(folder), "--uplink", "int8")
    assert said.code == 2
    assert "another uplink" in said.err
    said = flowerpress("simulate", "--resume")
    assert "--resume needs the run's folder" in said.err
    said = flowerpress("simulate", "--resume", "--out", str(tmp_path / "none"))
    assert "holds no run, so it cannot go on" in said.err
    said = flowerpress("simulate", "--resume", "--overwrite", "--out", str(folder))
    assert "leave one of them out" in said.err
    assert kept.is_file()
    said = flowerpress("simulate", "--resume", "--out", str(folder), "--workers", "2")
    assert said.code == 0, said.err
    assert len((folder / "rounds.jsonl").read_text().splitlines()) == 3
    assert not kept.exists()
    said = flowerpress("simulate", "--resume", "--out", str(folder))
    assert said.code == 2
    assert "the run is finished" in said.err
    # One that keeps no state says so.
    (folder / "summary.json").unlink()
    said = flowerpress("simulate", "--resume", "--out", str(folder))
    assert "kept no state (checkpoint=false" in said.err
