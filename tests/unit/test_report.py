"""Pictures and pages: sizes, escaping, nothing from outside, runs with gaps."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.canvas import (
    byte_ticks,
    drawing,
    second_ticks,
    shorten,
    spread_apart,
    svg,
)
from flowerpress.simulations.chart import TIME, comparison_figure, curves
from flowerpress.simulations.comparison.report import write_comparison
from flowerpress.simulations.plots import PLOTS, accuracy_bytes_figure, write_plots
from flowerpress.simulations.rate_plots import (
    accuracy_time_figure,
    simulated_clock,
    tensor_bits,
)
from flowerpress.simulations.record import LeftOut, RoundRecord, Run, read_run
from flowerpress.simulations.report import write_report
from tests.unit.synthetic_runs import (
    made_up_comparison,
    made_up_records,
    write_made_up_run,
)

HOSTILE = '<script>alert("x")</script>'
TENSORS = ((HOSTILE, 9000), ("$\\frac{broken$", 500), ("e^{x_{1", 40), ("a" * 300, 30))


class _Page(HTMLParser):
    """Collects tags, and every value that could fetch something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _self_contained(path: Path) -> _Page:
    text = path.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    page = _Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for value in page.references if value.startswith("#")} <= set(page.ids)
    return page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose every name tries something, reported."""
    folder = tmp_path_factory.mktemp("hostile")
    records = made_up_records(rounds=4, tensors=TENSORS, bad_rounds=[2], classes=3, linked=True)
    run = write_made_up_run(
        folder,
        records,
        uplink=HOSTILE,
        task="'><img src=x onerror=alert(1)>",
        classes=[HOSTILE, "$", "\x07\u202e漢"],
        tensors=[name for name, _ in TENSORS],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(folder)
    return run


def test_a_report_is_self_contained_and_escaped(hostile: Run) -> None:
    page = _self_contained(hostile.folder / "report.html")
    assert "img" not in page.tags
    assert any(HOSTILE in text for text in page.texts)
    assert any("holds NaN; train with a lower rate" in text for text in page.texts)
    assert any("flowerpress simulate uplink=" in text for text in page.texts)
    for heading in ("Updates left out", "Rounds", "Command", "Configuration", "Versions"):
        assert heading in page.texts


def test_the_pictures_have_their_size_and_something_on_them(hostile: Run) -> None:
    for name in PLOTS:
        pixels = imread(hostile.folder / f"{name}.png")
        assert pixels.shape[1] == 1200
        assert 300 <= pixels.shape[0] <= 2400
        assert float(np.std(pixels[..., :3])) > 0.05
        # No label is cut off: the outermost pixels are ground.
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])[:, :3]
        assert float(edge.min()) > 0.95
    assert imread(hostile.folder / "accuracy_rounds.png").shape[0] == 720


def test_a_run_with_gaps_is_reported(tmp_path: Path) -> None:
    records = made_up_records(rounds=7, every=3, bad_rounds=[1, 5])
    run = write_made_up_run(tmp_path, records)
    assert run.records[7].accuracy is None
    page = _self_contained(write_report(tmp_path, plots=False))
    assert sum("NonFiniteError" in text for text in page.texts) == 2
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize("rounds", [0, 1])
def test_a_run_without_any_evaluation_is_reported(rounds: int, tmp_path: Path) -> None:
    records = made_up_records(rounds=1, every=9)[1 : 1 + rounds]
    write_made_up_run(tmp_path, records, finish=False)
    page = _self_contained(write_report(tmp_path))
    assert any("has not finished" in text for text in page.texts)
    assert [path.name for path in tmp_path.glob("*.png")] == ["tensor_bytes.png"] * rounds


def test_a_run_with_only_one_point_is_drawn(tmp_path: Path) -> None:
    run = write_made_up_run(tmp_path, made_up_records(rounds=1, ratio=1.0, linked=True))
    assert {path.stem for path in write_plots(run)} == set(PLOTS)


def test_many_rounds_classes_and_tensors_fit(tmp_path: Path) -> None:
    tensors = [(f"block.{index}.weight", 1000 + index) for index in range(400)]
    records = made_up_records(rounds=150, tensors=tensors, classes=90)
    run = write_made_up_run(tmp_path, records, classes=[chr(32 + at) for at in range(90)])
    for path in write_plots(run):
        assert imread(path).shape[:2] <= (2400, 1200)


def test_svg_follows_the_page_in_colour_and_is_the_same_every_time(hostile: Run) -> None:
    with drawing():
        first, again = (accuracy_bytes_figure(hostile) for _ in range(2))
        assert first is not None
        assert again is not None
        drawn = svg(first, "p")
        assert drawn == svg(again, "p")
    assert "var(--paper)" in drawn
    assert "var(--ink)" in drawn
    assert "#1c2126" not in drawn
    assert "script" not in drawn


def test_drawing_leaves_no_global_setting_behind() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with drawing():
        assert dict(mpl.rcParams) != before
    assert dict(mpl.rcParams) == before


def test_a_comparison_is_written(tmp_path: Path) -> None:
    runs = made_up_comparison(tmp_path, seeds=2, rounds=4)
    path = write_comparison(tmp_path, runs, command="flowerpress compare <&>")
    page = _self_contained(path)
    assert path.name == "comparison.html"
    assert "Points behind none" in page.texts
    assert "stc/seed-1" in page.texts
    assert "flowerpress compare <&>" in page.texts
    assert imread(tmp_path / "comparison.png").shape[:2] == (780, 1200)
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 1 + 4
    with pytest.raises(ConfigError, match="no run to compare"):
        write_comparison(tmp_path, [])


def test_a_comparison_without_evaluation_has_no_picture(tmp_path: Path) -> None:
    run = write_made_up_run(tmp_path / "a" / "seed-0", made_up_records(rounds=1, every=9)[1:])
    _self_contained(write_comparison(tmp_path, [run]))
    assert not (tmp_path / "comparison.png").exists()


def test_curves_are_means_and_ranges_over_seeds(tmp_path: Path) -> None:
    runs = made_up_comparison(tmp_path, seeds=3, rounds=3)
    stc = next(curve for curve in curves(runs) if curve.label == "stc")
    chosen = [run for run in runs if run.label == "stc"]
    last = [run.records[3].accuracy or 0.0 for run in chosen]
    assert stc.seeds == 3
    assert len(stc.x) == 3  # round 0 has no bytes
    assert stc.mean[-1] == pytest.approx(sum(last) / 3)
    assert (stc.low[-1], stc.high[-1]) == (min(last), max(last))
    assert stc.x[-1] == sum(record.bytes_total for record in chosen[0].records)


def test_curves_keep_to_rounds_that_all_seeds_have(tmp_path: Path) -> None:
    long = write_made_up_run(tmp_path / "a", made_up_records(rounds=5))
    short = write_made_up_run(tmp_path / "b", made_up_records(rounds=3))
    never = write_made_up_run(tmp_path / "c", made_up_records(rounds=3, every=9)[1:])
    (curve,) = curves([long, short, never])
    assert (curve.seeds, len(curve.mean)) == (2, 3)


def test_names_at_the_ends_do_not_overlap(tmp_path: Path) -> None:
    from matplotlib.text import Annotation, Text

    runs = []
    for index in range(9):  # close together, as codecs of one family are
        records = made_up_records(ratio=40.0 + 2 * index, rounds=10, final=0.9 + 0.003 * index)
        runs.append(read_run(write_made_up_run(tmp_path / str(index), records).folder, f"c{index}"))
    with drawing():
        figure = comparison_figure(runs)
        assert figure is not None
        figure.draw_without_rendering()
        found = figure.axes[0].texts
        boxes = [
            Text.get_window_extent(text)
            for text in found
            if isinstance(text, Annotation) and text.get_text().startswith("c")
        ]
    assert len(boxes) == 9
    hits = sum(a.overlaps(b) for at, a in enumerate(boxes) for b in boxes[:at])
    assert hits == 0


def test_bits_per_parameter_by_hand(tmp_path: Path) -> None:
    records = [
        RoundRecord(round=0, seconds=0.0),
        RoundRecord(round=1, seconds=1.0, clients=4, up_by_tensor={"w": 100, "b": 10}),
        RoundRecord(
            round=2,
            seconds=1.0,
            clients=4,
            up_by_tensor={"w": 30},
            left_out=(LeftOut(1, "E", "", ""), LeftOut(1, "E", "", "")),
        ),
        RoundRecord(round=3, seconds=1.0, clients=1, left_out=(LeftOut(1, "E", "", ""),)),
    ]
    run = write_made_up_run(tmp_path, records, tensors=["w", "b", "never"])
    names, rounds, bits = tensor_bits(run)  # every made-up tensor has one parameter
    assert names == ["w", "b", "never"]
    assert [record.round for record in rounds] == [1, 2]
    assert bits.tolist() == [[8 * 100 / 4, 8 * 30 / 3], [8 * 10 / 4, 0.0], [0.0, 0.0]]
    assert tensor_bits(run, largest=1)[0] == ["w"]
    assert tensor_bits(replace(run, summary=None))[0] == []


def test_simulated_time_is_drawn_only_where_there_is_some(tmp_path: Path) -> None:
    linked = write_made_up_run(tmp_path / "a", made_up_records(rounds=4, linked=True))
    plain = write_made_up_run(tmp_path / "b", made_up_records(rounds=4))
    assert simulated_clock(linked) == {0: 0.0, 1: 10.0, 2: 20.0, 3: 30.0, 4: 40.0}
    assert simulated_clock(plain) == {}
    assert accuracy_time_figure(plain) is None
    texts = _self_contained(write_report(linked.folder)).texts
    assert {"Simulated", "10.0 s"} <= set(texts)
    assert "Simulated" not in _self_contained(write_report(plain.folder)).texts
    assert not (plain.folder / "accuracy_time.png").exists()
    (curve,) = curves([linked], TIME)
    assert curve.x.tolist() == [10.0, 20.0, 30.0, 40.0]
    folder = tmp_path / "both"
    texts = _self_contained(write_comparison(folder, [linked])).texts
    assert {"Simulated time", "40.0 s"} <= set(texts)
    assert imread(folder / "comparison_time.png").shape[:2] == (780, 1200)
    write_comparison(tmp_path / "plain", [plain])
    assert not (tmp_path / "plain" / "comparison_time.png").exists()


def test_time_ticks_are_those_of_clocks() -> None:
    assert second_ticks(0.5, 2000) == [1.0, 10.0, 60.0, 600.0]
    assert second_ticks(50, 4000) == [60.0, 600.0, 3600.0]
    for low in (1e-3, 0.7, 45.0, 5000.0, 3e5):
        for width in (3, 10, 1e3, 1e6):
            ticks = second_ticks(low, low * width)
            assert all(low <= tick <= low * width for tick in ticks)
            assert 2 <= len(ticks) <= 9


def test_byte_ticks_are_round_and_enough() -> None:
    assert byte_ticks(5_000, 30 * 1024**2) == [
        10 * 1024,
        100 * 1024,
        1024**2,
        10 * 1024**2,
    ]
    for low in (1, 700, 40_000, 3 * 1024**2, 2 * 1024**3):
        for width in (3, 10, 1e3, 1e6, 1e12):
            ticks = byte_ticks(low, low * width)
            assert all(low <= tick <= low * width for tick in ticks)
            assert 2 <= len(ticks) <= 9


def test_labels_are_spread_inside_their_limits() -> None:
    assert spread_apart([1.0, 5.0], 1.0, 0.0, 9.0) == [1.0, 5.0]
    assert spread_apart([5.0, 5.0, 5.0], 1.0, 0.0, 9.0) == [5.0, 6.0, 7.0]
    assert spread_apart([8.5, 8.6, 9.0], 1.0, 0.0, 9.0) == [7.0, 8.0, 9.0]
    assert spread_apart([1.0, 1.0, 1.0], 1.0, 0.0, 1.0) == [0.0, 1.0, 2.0]
    assert spread_apart([], 1.0, 0.0, 1.0) == []


def test_labels_are_printable_and_short() -> None:
    assert shorten("conv1.weight") == "conv1.weight"
    assert shorten("a\nb\u202e") == "a\\nb\\u202e"
    assert shorten(" ") == "' '"
    assert len(shorten("x" * 100 + "y")) == 42
    assert shorten("x" * 100 + "y").endswith("y")
