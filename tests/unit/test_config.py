"""Configurations: from TOML and words, to JSON and back, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.config import (
    SimulationConfig,
    StrategyName,
    TrainingConfig,
    load_config,
)


def test_nothing_gives_the_defaults() -> None:
    config = load_config(None)
    assert config == SimulationConfig()
    assert (config.task, config.uplink, config.downlink, config.engine) == (
        "digits",
        "stc",
        "same",
        "inline",
    )


def test_words_lie_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'rounds = 7\nclients = 3\nuplink = "int8"\n[training]\nlr = 0.5\nepochs = 2\n'
        "[strategy_options]\nserver_momentum = 0.9\n"
    )
    words = ["rounds=9", "training.lr=1", "strategy_options.eta=0.1", "uplink=topk(density=0.02)"]
    config = load_config(file, [*words, "clients=", "data=/some/where"])
    assert (config.rounds, config.clients, config.uplink) == (9, None, "topk(density=0.02)")
    assert config.training == TrainingConfig(lr=1.0, epochs=2)
    assert config.strategy_options == {"server_momentum": 0.9, "eta": 0.1}
    assert config.data == Path("/some/where")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("task=digits", "digits"),
        ('task="digits"', "digits"),
        ("task = digits ", "digits"),
        ("task=my_task.py:My Task", "my_task.py:My Task"),
        ("task=a\nrounds=3", "a\nrounds=3"),
        ('task="a"\nrounds=3', '"a"\nrounds=3'),
    ],
)
def test_plain_text_needs_no_quotes_and_stays_one_value(word: str, value: str) -> None:
    config = load_config(None, [word])
    assert config.task == value
    assert config.rounds == SimulationConfig().rounds


configs = st.builds(
    SimulationConfig,
    task=st.text(min_size=1),
    data=st.none() | st.just(Path("/data/mnist")),
    clients=st.none() | st.integers(1, 10**6),
    fraction=st.floats(0, 1, exclude_min=True),
    seed=st.integers(0, 2**63 - 1),
    uplink=st.text(min_size=1),
    strategy=st.sampled_from(get_args(StrategyName)),
    strategy_options=st.dictionaries(
        st.text(), st.booleans() | st.integers(-(2**60), 2**60) | st.floats(-1e9, 1e9) | st.text()
    ),
    training=st.builds(
        TrainingConfig,
        lr=st.none() | st.floats(0, 10, exclude_min=True),
        max_samples=st.none() | st.integers(1, 10**6),
    ),
    out=st.none() | st.just(Path("runs/one")),
)


@given(configs)
def test_json_and_back(config: SimulationConfig) -> None:
    again = SimulationConfig.from_json(config.to_json())
    assert again == config
    # 1, 1.0 and True are equal; an option's type must survive, too.
    assert again.to_json() == config.to_json()


@pytest.mark.parametrize(
    ("words", "name", "nearest"),
    [
        (["round=3"], "round", "rounds"),
        (["trainig.lr=0.1"], "trainig.lr", "training.lr"),
        (["xyz=0.1"], "xyz", None),
        (["training.epoch=1"], "training.epoch", "training.epochs"),
        (["strategy=fedadm"], "fedadm", "fedadam"),
        (["engine=inlin"], "inlin", "inline"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(
    words: list[str], name: str, nearest: str | None
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_config(None, words)
    assert caught.value.name == name
    assert ("did you mean" in str(caught.value)) is (nearest is not None)
    if nearest:
        assert f"did you mean {nearest!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("rounds=0", ["rounds = 0", "at least 1"]),
        ("rounds=ten", ["rounds = 'ten'", "a whole number"]),
        ("rounds=true", ["rounds = True", "a whole number"]),
        ("rounds=2.0", ["rounds = 2.0", "a whole number"]),
        ("fraction=1.5", ["fraction = 1.5", "at most 1"]),
        ("fraction=nan", ["fraction = nan", "above 0"]),
        ("training.lr=-1", ["training.lr = -1", "above 0"]),
        ("training=3", ["training = 3", "a table"]),
        ("workers=0", ["workers = 0", "1 to 1024"]),
        ("strategy=3", ["strategy = 3", "the name of a strategy"]),
        ("strategy_options.eta=[1]", ["strategy_options.eta = [1]", "a number, true"]),
        ("data=3", ["data = 3", "the folder"]),
        ("seed=-1", ["seed = -1", "from 0"]),
        ("rounds", ["'rounds' is not key=value"]),
        ("=3", ["'=3' is not key=value"]),
        ("training..lr=3", ["not key=value"]),
    ],
)
def test_wrong_values_name_the_key_the_value_and_what_is_allowed(
    word: str, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [word])
    for part in parts:
        assert part in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_value_cannot_become_a_table() -> None:
    with pytest.raises(ConfigError, match="training is not a table"):
        load_config(None, ["training=3", "training.lr=0.1"])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("rounds = = 3")
    with pytest.raises(ConfigError, match=r"broken\.toml is not valid TOML.*line 1"):
        load_config(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(broken)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rounds": "x"}', '{"nope": 1}'])
def test_json_from_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        SimulationConfig.from_json(text)
