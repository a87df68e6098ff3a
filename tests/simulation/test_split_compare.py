"""The comparison of split inference: what it counts, keeps, goes on from, and makes of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerpress.compression.errors import ConfigError
from flowerpress.simulations.links import Link
from flowerpress.simulations.split.asked import METHODS, Inference
from flowerpress.simulations.split.curve import Point, bytes_at, means, read_points
from flowerpress.simulations.split.curve_cost import cost_cells, works
from flowerpress.simulations.split.curve_report import (
    LOSSES,
    at_equal_accuracy,
    equal_cells,
    write_curve_report,
)
from flowerpress.simulations.split.inference import measure_seed, seed_folder
from flowerpress.simulations.split.retuned import retuned
from flowerpress.simulations.split.rivals import as_pictures
from flowerpress.simulations.split.teacher import Schooling, Tick
from flowerpress.simulations.tasks import Data, Samples
from flowerpress.simulations.tasks.digits import Digits

SMALL = Inference(
    betas=(1e-3, 1e-2),
    channels=4,
    epochs=1,
    tail_epochs=1,
    joint_epochs=1,
    picture_epochs=1,
    reductions=(1,),
    codes=(8,),
    axes=(2,),
    bits=(4,),
    qualities=(10,),
    tuned_qualities=(10,),
    batch=50,
    examples=256,
    schooling=Schooling(epochs=2),
)


@pytest.fixture(scope="module")
def data() -> Data:
    loaded = Digits().load()
    return Data(loaded.train, loaded.test.take(np.arange(100)), loaded.classes)


@pytest.fixture(scope="module")
def measured(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Point]]:
    folder = tmp_path_factory.mktemp("compared")
    return folder, measure_seed(Digits(), data, SMALL, 3, folder)


def test_every_method_is_measured_once(measured: tuple[Path, list[Point]]) -> None:
    folder, points = measured
    assert {point.method for point in points} == set(METHODS)
    keys = [point.key for point in points]
    assert len(set(keys)) == len(keys)
    assert read_points(seed_folder(folder, 3) / "points.csv") == points
    for point in points:
        assert (point.seed, point.batch, point.samples) == (3, 50, 100)
        assert 0 <= point.accuracy <= 1
        assert 0 < point.bytes_each <= point.bytes_alone


def test_bytes_are_those_of_what_is_sent(measured: tuple[Path, list[Point]], data: Data) -> None:
    found = {point.key: point for point in measured[1]}
    by_method = {point.method: point for point in measured[1]}
    raw, whole = found["features", "none"], by_method["teacher"]
    # 32 channels of 4 x 4 values, and what tells of the codec.
    values = torch.Size(raw_shape(data)).numel()
    assert 4 * values < raw.bytes_each < 4 * values + 1
    assert whole.bytes_each == data.test.inputs[0].numel()
    packed, coded = by_method["reduction, packed"], by_method["reduction"]
    assert packed.accuracy == coded.accuracy
    assert packed.bytes_each == int(packed.bytes_each) > coded.bytes_each
    rising = [found["entropic", f"beta {beta:g}"].bytes_each for beta in SMALL.betas]
    assert rising[1] < rising[0]
    made = as_pictures(data.test, "webp", 10)
    assert by_method["webp"].bytes_alone == made.files / 100


def raw_shape(data: Data) -> tuple[int, ...]:
    task = Digits()
    assert task.cut_at is not None
    features = task.prepare(data.test.inputs[:1])
    model = task.build()
    assert isinstance(model, torch.nn.Sequential)
    for name, part in model.named_children():
        features = part(features)
        if name == task.cut_at:
            return tuple(features.shape)
    raise AssertionError(task.cut_at)


def stopping(at: int) -> Callable[[str], Tick]:
    """Return what is told of trainings, and ends the command at the ``at``-th epoch."""
    seen = 0

    def training(name: str) -> Tick:
        def tick(stage: str, done: int, due: int, loss: float) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise KeyboardInterrupt

        return tick

    return training


@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_comparison_that_was_stopped_goes_on_to_the_same_points(
    measured: tuple[Path, list[Point]], data: Data, tmp_path: Path, at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure_seed(Digits(), data, SMALL, 3, tmp_path, tick=stopping(at))
    before = read_points(seed_folder(tmp_path, 3) / "points.csv")
    told: list[Point] = []
    assert measure_seed(Digits(), data, SMALL, 3, tmp_path, said=told.append) == measured[1]
    assert before + told == measured[1]


def test_a_network_that_gets_used_to_pictures_goes_on_from_its_last_epoch(
    data: Data, tmp_path: Path
) -> None:
    task, clean = Digits(), data.train.take(np.arange(128))
    poor = as_pictures(clean, "jpeg", 1, count=False).samples
    torch.manual_seed(0)
    teacher = task.build()
    told: list[int] = []

    def learn(checkpoint: Path | None, last: int = 3) -> torch.nn.Module:
        def tick(stage: str, done: int, due: int, loss: float) -> None:
            told.append(done)
            if done == last < due:
                raise KeyboardInterrupt

        return retuned(teacher, task, clean, poor, epochs=3, checkpoint=checkpoint, tick=tick)

    whole = learn(None)
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "state", last=2)
    again = learn(tmp_path / "state")
    assert told == [1, 2, 3, 1, 2, 3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(ConfigError, match="another training"):
        retuned(teacher, task, clean, poor, epochs=4, checkpoint=tmp_path / "state")


def test_more_points_of_the_same_kind_may_be_asked_for(
    data: Data, tmp_path: Path, measured: tuple[Path, list[Point]]
) -> None:
    methods = ("teacher", "plain", "pca")
    asked = replace(SMALL, methods=methods)
    first = measure_seed(Digits(), data, asked, 3, tmp_path)
    assert first == [point for point in measured[1] if point.method in methods]
    more = measure_seed(Digits(), data, replace(asked, bits=(4, 8)), 3, tmp_path)
    assert [point.key for point in more[len(first) :]] == [("plain", "plain(bits=8)")]
    with pytest.raises(ConfigError, match="another comparison"):
        measure_seed(Digits(), data, replace(asked, epochs=2), 3, tmp_path)
    with pytest.raises(ConfigError, match="unknown methods: png"):
        replace(SMALL, methods=("png",))
    with pytest.raises(ConfigError, match="a beta stands twice"):
        replace(SMALL, betas=(1e-3, 1e-3))


def test_pictures_are_what_a_reader_makes_of_the_files() -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    shade = np.linspace(0, 255, 32).astype(np.uint8)
    array = np.stack([np.tile(shade, (32, 1)), np.tile(shade[:, None], (1, 32))], -1)
    array = np.concatenate([array, rng.integers(0, 40, (32, 32, 1), dtype=np.uint8)], -1)
    samples = Samples(torch.from_numpy(array[None]), torch.zeros(1, dtype=torch.int64))
    for form, options in (("jpeg", {"subsampling": "4:2:0"}), ("webp", {"method": 6})):
        out = io.BytesIO()
        image.fromarray(array).save(out, form, quality=60, **options)
        made = as_pictures(samples, form, 60)
        assert made.bare < made.files <= len(out.getvalue())
        with image.open(io.BytesIO(out.getvalue())) as written:
            assert np.array_equal(made.samples.inputs[0].numpy(), np.asarray(written))


# What is made of the points


def points_of(method: str, *curve: tuple[float, float], seed: int = 0) -> list[Point]:
    return [
        Point(seed, method, f"setting {at}", accuracy, size, 2 * size, 100, 1000)
        for at, (size, accuracy) in enumerate(curve)
    ]


POINTS = [
    *points_of("teacher", (3000, 0.88)),
    *points_of("teacher, tuned", (3000, 0.9)),
    *points_of("entropic", (10, 0.8), (20, 0.88), (40, 0.9)),
    *points_of("reduction", (40, 0.84), (80, 0.9)),
    *points_of("webp", (100, 0.5), (400, 0.86)),
]


def test_bytes_at_equal_accuracy() -> None:
    rows = dict(at_equal_accuracy(POINTS))
    # The best network that is not cut counts: 0.9, less 0.5, 1, 2, 5 and 10 points.
    ours, reduced, webp = rows["entropic"], rows["reduction"], rows["webp"]
    assert ours[0] == pytest.approx(20 * 2**0.75)
    assert ours[2] == pytest.approx(20)
    assert ours[4] == 10
    assert reduced[1] == pytest.approx(40 * 2 ** (5 / 6))
    assert reduced[4] == 40
    assert webp[:3] == [None, None, None]
    assert webp[3] == pytest.approx(100 * 4 ** (0.35 / 0.36))
    alone = dict(at_equal_accuracy(POINTS, alone=True))
    assert alone["entropic"][2] == pytest.approx(40)
    cells = {row[0]: row[1:] for row in equal_cells(POINTS, alone=False)}
    assert cells["reduction"][LOSSES.index(0.1)] == "40.0 (4.00x)"
    assert cells["webp"][0] == "–"
    # The better one of the learned bottlenecks is what others are compared with.
    both = [*POINTS, *points_of("vq", (5, 0.8), (8, 0.85))]
    cells = {row[0]: row[1:] for row in equal_cells(both, alone=False)}
    assert cells["reduction"][LOSSES.index(0.1)] == "40.0 (8.00x)"
    assert cells["reduction"][LOSSES.index(0.02)] == f"{40 * 2 ** (2 / 3):.1f} (3.17x)"
    assert cells["entropic"][LOSSES.index(0.1)] == "10.0"


def test_curves_may_fall() -> None:
    curve = [(10.0, 0.5), (20.0, 0.4), (40.0, 0.7)]
    assert bytes_at(0.45, curve) == 10
    assert bytes_at(0.6, curve) == pytest.approx(20)
    assert bytes_at(0.71, curve) is None
    assert bytes_at(0.5, []) is None


def test_means_are_over_seeds() -> None:
    points = [
        p for seed in (0, 1) for p in points_of("webp", (100 + seed, 0.5 + seed / 10), seed=seed)
    ]
    (mean,) = means(points)
    assert (mean.seeds, mean.low, mean.high) == (2, 0.5, 0.6)
    assert mean.accuracy == pytest.approx(0.55)
    assert mean.bytes_each == 100.5


LINK = Link(uplink=1e6, downlink=1e7, latency=0.05)


def test_work_is_where_the_layers_are(measured: tuple[Path, list[Point]], data: Data) -> None:
    points = measured[1]
    found = works(Digits(), data, SMALL, {point.key for point in points})
    assert found.keys() == {point.key for point in points}
    whole = found["teacher", "input"]
    assert whole == found["webp", "quality 10"]
    assert whole.device == 0
    assert whole.answer == 4 * 10
    raw = found["features", "none"]
    assert raw.device + raw.server == whole.server
    for channels in (1, 2):
        # What a bottleneck computes comes on top, on both sides.
        text = f"reduction(channels={channels},bits=8)"
        (own,) = works(Digits(), data, SMALL, [("reduction", text)]).values()
        assert own.device > raw.device
        assert own.server > raw.server
    mean = means([point for point in points if point.key == ("features", "none")])
    (cells,) = cost_cells(mean, found, LINK)
    bits = 8 * mean[0].bytes_alone / 1e6 + 8 * 40 / 1e7
    seconds = bits + 0.05 + raw.device / 1.1e11 + raw.server / 1e12
    assert cells[5] == f"{1e3 * seconds:,.2f}"


def test_a_page_shows_every_point(measured: tuple[Path, list[Point]], data: Data) -> None:
    folder, points = measured
    work = works(Digits(), data, SMALL, {point.key for point in points})
    page = write_curve_report(folder, "digits", work, LINK, "a slow link").read_text()
    assert "estimated mJ" in page
    assert "over a slow link" in page
    assert page.count("<svg") == 2
    for point in points:
        assert point.setting in page
    for name in ("curve.png", "alone.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert len(read_points(folder / "points.csv")) == len(points)
    with pytest.raises(ConfigError, match="holds no points"):
        write_curve_report(folder / "nothing", "digits", work, LINK, "a slow link")


def test_a_row_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(
        "seed,method,setting,accuracy,bytes_each,bytes_alone,batch,samples\n"
        "0,webp,quality 1,0.5,90.0,117.0,100,1000\n0,webp,quali"
    )
    assert [point.setting for point in read_points(path)] == ["quality 1"]
    assert path.read_text().endswith("1000\n")
    path.write_text("seed,method\n0,webp\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_points(path)
