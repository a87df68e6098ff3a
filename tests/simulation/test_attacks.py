"""Simulated hostile clients, and defences in a simulation's configuration and records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowerpress.compression import ConfigError
from flowerpress.simulations.attacks import ATTACKS, hostile, read_attack
from flowerpress.simulations.config import SimulationConfig, load_config
from flowerpress.simulations.engines import run
from flowerpress.simulations.record import read_run
from flowerpress.simulations.report import write_report


def test_who_is_hostile_depends_on_the_seed_and_nothing_else() -> None:
    drawn = [hostile(0.2, 10, seed) for seed in range(20)]
    assert drawn == [hostile(0.2, 10, seed) for seed in range(20)]
    assert all(len(chosen) == 2 and chosen <= set(range(10)) for chosen in drawn)
    assert len(set(drawn)) > 5
    assert len(hostile(0.01, 10, 0)) == 1


def test_what_attacks_send() -> None:
    rng = np.random.default_rng(0)
    model = rng.standard_normal((5, 4)).astype("f4")
    change = rng.standard_normal((5, 4)).astype("f4")

    def sent(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return read_attack(text).change(change.copy(), model, np.random.default_rng(1))

    np.testing.assert_array_equal(sent("signflip(scale=3)"), -3 * change)
    np.testing.assert_array_equal(sent("scale(factor=7)"), 7 * change)
    np.testing.assert_array_equal(model + sent("zeros"), 0 * model)
    assert np.isnan(sent("nan")).sum() == 1
    assert np.linalg.norm(sent("noise(scale=5)")) == pytest.approx(
        5 * np.linalg.norm(change), rel=0.4
    )
    random = sorted((model + sent("counts")).reshape(-1))
    np.testing.assert_allclose(random, sorted(model.reshape(-1)), atol=1e-6)
    assert read_attack("counts(value=5)").examples == 5
    assert all(attack().share == 0.2 for attack in ATTACKS.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("signflop", "did you mean 'signflip'"),
        ("signflip(share=1)", "between 0 and 1"),
        ("scale(factor=inf)", "finite"),
    ],
)
def test_attacks_that_do_not_exist_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_attack(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["attack=nun"], "unknown attack 'nun'"),
        (["defence=clap"], "unknown defence 'clap'"),
        (["uplink=stc", "defence=median"], "dense uplink such as int8"),
        (["strategy=krum", "defence=clip"], "aggregates in a way of its own"),
    ],
)
def test_a_run_is_refused_before_it_starts(words: list[str], message: str, tmp_path: Path) -> None:
    config = load_config(None, [*words, f"out={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match=message):
        run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["secagg", "SecAgg+", "secaggplus"])
def test_secure_aggregation_in_a_configuration_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match="masks cancel only in a sum of vectors with the same"):
        load_config(None, [f"strategy={name}"])


def simulate(folder: Path, **change: object) -> Path:
    config = SimulationConfig(
        task="digits", rounds=2, uplink="int8", partition="iid", seed=3, out=folder
    )
    return run(config.model_copy(update=change))


def test_a_run_records_what_its_defence_did(tmp_path: Path) -> None:
    attack, bad = "signflip(share=0.2,scale=8)", hostile(0.2, 10, 3)
    folder = simulate(tmp_path / "run", attack=attack, defence="clip+trimmed(share=0.2)")
    records = read_run(folder).records
    assert records[0].treated == ()
    for record in records[1:]:
        assert [t.client for t in record.treated] == list(range(10))
        for treated in record.treated:
            if treated.client in bad:
                assert treated.factor < 0.5
                assert treated.share < 0.6
            else:
                assert treated.factor > 0.5
                assert treated.share > 0.5
    assert "What the defence did" in write_report(folder).read_text(encoding="utf-8")
    again = simulate(tmp_path / "again", attack=attack, defence="clip+trimmed(share=0.2)")
    assert [r.accuracy for r in read_run(again).records] == [r.accuracy for r in records]


def test_clients_that_send_nan_are_left_out_and_named(tmp_path: Path) -> None:
    folder = simulate(tmp_path / "run", attack="nan", rounds=1)
    record = read_run(folder).records[1]
    assert {left.client for left in record.left_out} == hostile(0.2, 10, 3)
