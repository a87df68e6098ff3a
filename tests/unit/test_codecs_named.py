"""Codecs as a configuration or a comparison names them: presets, policies, plans, two ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowerpress.compression import ConfigError
from flowerpress.simulations.codecs import absolute_codec, codec_name, up_and_down
from flowerpress.simulations.comparison.plan import plan_comparison
from flowerpress.simulations.config import SimulationConfig


@pytest.mark.parametrize(
    ("label", "up", "down"),
    [
        ("stc", "stc", ""),
        ("stc/none", "stc", "none"),
        ("topk(density=0.1) / int8", "topk(density=0.1)", "int8"),
        ("policy.toml", "policy.toml", ""),
        ("a/b/plan.json/none", "a/b/plan.json", "none"),
        ("/a/b.toml/c/d.json", "/a/b.toml", "c/d.json"),
        ("stc/c/d.json", "stc", "c/d.json"),
        ("nowhere/c.json", "nowhere/c.json", ""),
    ],
)
def test_labels(label: str, up: str, down: str) -> None:
    assert up_and_down(label) == (up, down)


def test_a_file_in_a_folder_named_like_a_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stc").mkdir()
    (tmp_path / "stc" / "p.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    assert up_and_down("stc/p.toml") == ("stc/p.toml", "")
    assert absolute_codec("stc/p.toml") == str(tmp_path / "stc" / "p.toml")
    assert absolute_codec("stc") == "stc"
    assert codec_name("stc/p.toml") == "p"


def test_a_comparison_of_files_and_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('default = "int8"\n')
    base = SimulationConfig(downlink="fp16")
    planned = plan_comparison(base, f"stc,{path},{path}/none", 2, tmp_path / "out")
    assert [p.label for p in planned[::2]] == ["stc", "mine", "mine/none"]
    assert [p.config.downlink for p in planned[::2]] == ["fp16", "fp16", "none"]
    assert planned[2].config.uplink == str(path)
    assert len({p.folder for p in planned}) == 6
    with pytest.raises(ConfigError, match="given twice"):
        plan_comparison(base, f"{path},{path}", 1, tmp_path / "out")
    path.write_text('[[tensor]]\nmatch = "lstm*"\ncodec = "int8"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml.*matches no"):
        plan_comparison(base, str(path), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()
