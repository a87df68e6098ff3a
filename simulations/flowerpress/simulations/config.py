"""What one simulation is: the configuration, read from TOML and ``key=value`` words.

``SimulationConfig`` is frozen and travels as JSON, to worker processes and to Flower's own
engine alike. ``load_config`` is the way in for a user: a TOML file, then overrides on top.
Whatever is wrong comes back as a ``ConfigError`` that names the key, the value and what is
allowed there; a key that does not exist comes back with the nearest one that does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowerpress.compression.errors import ConfigError, UnknownNameError

__all__ = [
    "EngineName",
    "SimulationConfig",
    "SplitConfig",
    "StrategyName",
    "TrainingConfig",
    "load_config",
]

EngineName = Literal["inline", "ray"]
StrategyName = Literal[
    "bulyan",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedmedian",
    "fedprox",
    "fedtrimmedavg",
    "fedyogi",
    "krum",
    "multikrum",
]

# TOML and JSON have no paths, so strings are accepted here although the model is strict.
_FilePath = Annotated[Path, Field(strict=False)]
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TrainingConfig(BaseModel):
    """What to change of the task's own training; ``None`` keeps the task's value."""

    model_config = _STRICT

    epochs: int | None = Field(default=None, ge=1, description="a whole number, at least 1")
    batch_size: int | None = Field(default=None, ge=1, description="a whole number, at least 1")
    lr: float | None = Field(default=None, gt=0, description="a number above 0")
    momentum: float | None = Field(
        default=None, ge=0, lt=1, description="a number from 0 to below 1"
    )
    weight_decay: float | None = Field(default=None, ge=0, description="a number, at least 0")
    max_samples: int | None = Field(
        default=None, ge=1, description="a whole number, at least 1 (examples per round and client)"
    )


class SplitConfig(BaseModel):
    """A network that is cut between the clients and the server; see docs/split.md."""

    model_config = _STRICT

    at: str | None = Field(default=None, min_length=1, description="a place where the task cuts")
    mode: Literal["vanilla", "u-shaped"] = Field(
        default="vanilla", description="vanilla (labels go up) or u-shaped (labels stay)"
    )
    sharing: Literal["v1", "v2"] = Field(
        default="v1",
        description="v1 (the server has a copy for each client) or v2 (clients share one)",
    )
    bottleneck: str = Field(
        default="entropic(channels=12)",
        min_length=1,
        description="a bottleneck, such as entropic(channels=12), plain(bits=8) or none",
    )
    features: str = Field(
        default="none",
        min_length=1,
        description="a codec, for features of a bottleneck that has no tables of its own",
    )
    gradients: str = Field(
        default="int8(stochastic=true)", min_length=1, description="a codec for gradients"
    )
    beta: float = Field(
        default=0.001, ge=0, description="a number, at least 0 (loss for each bit of an example)"
    )
    start: _FilePath | None = Field(
        default=None, description="the folder of a distilled cut to start from"
    )
    patience: float = Field(
        default=120.0, gt=0, description="seconds without an answer after which a client gives up"
    )


_TABLES: Mapping[str, type[BaseModel]] = {"training": TrainingConfig, "split": SplitConfig}


class SimulationConfig(BaseModel):
    """One federated run on one machine. ``None`` means: what the task says."""

    model_config = _STRICT

    task: str = Field(default="digits", min_length=1, description="a task's name, or file.py:Class")
    data: _FilePath | None = Field(
        default=None, description="the folder that holds the task's data"
    )
    clients: int | None = Field(default=None, ge=1, description="a whole number, at least 1")
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="the share of clients in each round, above 0 and at most 1",
    )
    rounds: int = Field(default=20, ge=1, description="a whole number, at least 1")
    seed: int = Field(default=0, ge=0, lt=2**63, description="a whole number from 0 to 2^63 - 1")
    uplink: str = Field(default="stc", min_length=1, description="a codec or preset, such as stc")
    downlink: str = Field(
        default="same", min_length=1, description="a codec or preset, or same (as up)"
    )
    partition: str | None = Field(
        default=None, min_length=1, description="a partitioner, such as dirichlet(alpha=0.5)"
    )
    engine: EngineName = Field(default="inline", description="inline or ray")
    workers: int = Field(
        default=1, ge=1, le=1024, description="a whole number of processes, 1 to 1024"
    )
    threads: int = Field(
        default=1, ge=1, le=1024, description="torch threads per client, 1 to 1024"
    )
    strategy: StrategyName = Field(default="fedavg", description="the name of a strategy")
    strategy_options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="a table of the strategy's own options"
    )
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="a table of training settings"
    )
    split: SplitConfig | None = Field(default=None, description="a table of a cut network")
    links: str | None = Field(
        default=None,
        min_length=1,
        description="simulated links, such as 3g or loguniform(low=64k,high=20M), or a file",
    )
    deadline: float | None = Field(
        default=None, gt=0, description="seconds of simulated time for a round, above 0"
    )
    decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="what residuals are multiplied by each round, above 0 and at most 1",
    )
    defence: str | None = Field(
        default=None,
        min_length=1,
        description="what stands before the mean, such as examples+clip or clip+trimmed(share=0.2)",
    )
    attack: str | None = Field(
        default=None,
        min_length=1,
        description="what some simulated clients do, such as signflip(share=0.2,scale=10)",
    )
    evaluate_every: int = Field(default=1, ge=1, description="a whole number of rounds, at least 1")
    checkpoint: bool = Field(
        default=True, description="true or false: whether the run can go on after it was killed"
    )
    out: _FilePath | None = Field(default=None, description="the folder to write the run to")

    def to_json(self) -> str:
        """Return the configuration as one line of JSON; ``from_json`` reads it back."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> SimulationConfig:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: it is not JSON, or not a configuration.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise _explain(error) from error


def load_config(toml: Path | None, overrides: Sequence[str] = ()) -> SimulationConfig:
    """Read a configuration from a TOML file and lay ``key=value`` words over it.

    A dotted key reaches into a table (``training.lr=0.1``). A value is read as TOML and, where
    it is none, taken as plain text (``uplink=topk(0.01)``). An empty value (``clients=``) puts
    the default back.

    Raises:
        UnknownNameError: a key, engine or strategy that does not exist; the nearest is named.
        ConfigError: the file cannot be read, or a value is not allowed.
    """
    values = _read(toml) if toml is not None else {}
    for word in overrides:
        _override(values, word)
    _refuse_unknown(values)
    try:
        return SimulationConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _override(values: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"{word!r} is not key=value, such as rounds=10 or training.lr=0.1")
    table = values
    for depth, part in enumerate(path[:-1], start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{word!r}: {'.'.join(path[:depth])} is not a table")
    if text.strip():
        table[path[-1]] = _value(text.strip())
    else:
        table.pop(path[-1], None)


def _value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # Text with a line break in it could smuggle in a second key: then it is only text.
    return parsed["value"] if parsed.keys() == {"value"} else text


def _known() -> list[str]:
    top = [name for name in SimulationConfig.model_fields if name not in _TABLES]
    return top + [f"{key}.{name}" for key, table in _TABLES.items() for name in table.model_fields]


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in SimulationConfig.model_fields:
            # A table of which nothing is known is named by what is written in it.
            inner = next(iter(value), None) if isinstance(value, Mapping) else None
            name = key if inner is None else f"{key}.{inner}"
            raise UnknownNameError("configuration key", name, _known())
        if key in _TABLES and isinstance(value, Mapping):
            for inner in value:
                if inner not in _TABLES[key].model_fields:
                    raise UnknownNameError("configuration key", f"{key}.{inner}", _known())


def _explain(error: ValidationError) -> ConfigError:
    """Turn the first of pydantic's findings into a message for the person who wrote the value."""
    first = error.errors(include_url=False)[0]
    # Only names of fields say where it is; unions append the name of the type they tried.
    where = (
        first["loc"][:2]
        if first["loc"] and first["loc"][0] in {*_TABLES, "strategy_options"}
        else ()
    )
    key = ".".join(str(part) for part in where or first["loc"][:1])
    value = first["input"]
    if first["type"] == "extra_forbidden":
        return UnknownNameError("configuration key", key, _known())
    if not key:
        return ConfigError(f"not a configuration in JSON: {first['msg']}")
    if key == "strategy" and isinstance(value, str):
        if value.lower().startswith("secagg"):
            from flowerpress.server.secure_aggregation import REFUSAL

            return ConfigError(f"strategy = {value!r} is not allowed: {REFUSAL}")
        return UnknownNameError("strategy", value, get_args(StrategyName))
    if key == "engine" and isinstance(value, str):
        return UnknownNameError("engine", value, get_args(EngineName))
    return ConfigError(f"{key} = {value!r} is not allowed: it must be {_allowed(key)}")


def _allowed(key: str) -> str:
    name, _, inner = key.partition(".")
    if name in _TABLES and inner:
        return str(_TABLES[name].model_fields[inner].description)
    if name == "strategy_options" and inner:
        return "a number, true, false or text"
    return str(SimulationConfig.model_fields[name].description)
