"""docs/codecs.md names what exists, with its defaults, and its Python runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from flowerpress.compression import PRESETS, preset
from flowerpress.compression.coders.registry import REGISTRY
from flowerpress.compression.stages import STAGES

PAGE = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text()


def spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_preset_is_described_with_its_defaults() -> None:
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(PRESETS)
    for name, kind in PRESETS.items():
        (section,) = re.findall(rf"^### {name}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
        fields = dataclasses.fields(kind)  # type: ignore[arg-type]
        given = [f for f in fields if f.default is not None]
        if given:
            text = ", ".join(f"{f.name}={spelled(f.default)}" for f in given)
            assert section.lstrip().startswith(f"`{name}({text})`")
            assert preset(f"{name}({text})") == preset(name)
        # What has no default is described all the same.
        assert all(f"`{f.name}" in section for f in fields if f.default is None)


def test_every_codec_in_the_table_exists_and_its_bias_is_right() -> None:
    from flowerpress.compression import TensorSpec

    rows = re.findall(r"^\| `(\S.*?)` \|.*\| (yes|no) \|$", PAGE, re.MULTILINE)
    assert {text.partition("(")[0] for text, _ in rows} == set(PRESETS)
    for text, biased in rows:
        assert preset(text).codec(TensorSpec("w", (64, 64))).biased == (biased == "yes")


def test_every_stage_and_coder_is_described() -> None:
    for name in [stage.name for stage in STAGES] + [coder.name for coder in REGISTRY.values()]:
        assert f"\n| `{name}` | " in PAGE


def test_the_python_runs() -> None:
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {"rng": rng}
    names["arrays"] = {"w": rng.standard_normal((60, 50)), "b": rng.standard_normal(9)}
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, names)  # noqa: S102
    assert [frame.codec.describe()[:5] for frame in names["frames"]] == ["top-k", "int8 "]
