"""The Python on docs/split.md, in the order of the page, as one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerpress.compression.features import feature_codec

PAGE = (Path(__file__).parents[2] / "docs" / "split.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    blocks = [found[1] for found in BLOCK.finditer(PAGE)]
    for text in blocks:
        exec(text, names)  # noqa: S102
    assert len(blocks) >= 5
    assert names["same"].shape == names["gradient"].shape
    said = capsys.readouterr().out
    assert "estimated" in said
    assert names["right"] > 0.8
    assert said.count("bytes up") == 4


def test_twenty_lines_cut_a_network() -> None:
    (block,) = (found[1] for found in BLOCK.finditer(PAGE) if "train_split(" in found[1])
    lines = [each for each in block.splitlines() if each and "import" not in each]
    assert len(lines) == 20


def test_bytes_of_codecs_are_those_of_the_page() -> None:
    """The table of gradients, from the gradient that the page makes."""
    rng = np.random.default_rng(0)
    rng.laplace(size=(256, 24, 7, 7))
    gradient = rng.laplace(size=(64, 24, 7, 7)).astype(np.float32) * 1e-3
    rows = re.findall(r"^\| `(.*?)` \| (\d+) \| ([\d.e-]+)", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for text, size, nmse in rows:
        codec = feature_codec(text)
        body = codec.encode(gradient, np.random.default_rng(7))
        assert len(body) / 64 == pytest.approx(float(size), rel=0.03), text
        off = codec.decode(body, gradient.shape) - gradient
        got = float((off**2).sum() / (gradient**2).sum())
        assert got == pytest.approx(float(nmse), rel=0.05), text
