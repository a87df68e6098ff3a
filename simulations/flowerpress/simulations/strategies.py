"""Flower's strategies by name, with their own options checked against what they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.config import SimulationConfig

__all__ = ["check_strategy", "make_strategy"]

_CLASSES: dict[str, type[Strategy]] = {
    "bulyan": flower.Bulyan,
    "fedadagrad": flower.FedAdagrad,
    "fedadam": flower.FedAdam,
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedmedian": flower.FedMedian,
    "fedprox": flower.FedProx,
    "fedtrimmedavg": flower.FedTrimmedAvg,
    "fedyogi": flower.FedYogi,
    "krum": flower.Krum,
    "multikrum": flower.MultiKrum,
}


def make_strategy(
    config: SimulationConfig,
    clients: int,
    aggregate_metrics: Callable[[list[RecordDict], str], MetricRecord] | None = None,
) -> Strategy:
    """Return the strategy that ``config`` names, for ``clients`` clients.

    Every round takes ``round(fraction * clients)`` of them, at least one. Evaluation is left to
    the server. ``aggregate_metrics`` sees the metrics of the clients' training.

    Raises:
        UnknownNameError: an option that the strategy does not have.
        ConfigError: an option that has not the right type or that the strategy refuses.
    """
    choice = _CLASSES[config.strategy]
    wanted = max(1, round(config.fraction * clients))
    own = {
        # Flower rounds down; its minimum makes the number exact.
        "fraction_train": wanted / clients,
        "min_train_nodes": wanted,
        "min_available_nodes": clients,
        "fraction_evaluate": 0.0,
        "train_metrics_aggr_fn": aggregate_metrics,
    }
    parameters = inspect.signature(choice).parameters
    known = {name: p for name, p in parameters.items() if _is_option(name)}
    for name, value in config.strategy_options.items():
        if name not in known:
            raise UnknownNameError(f"option of strategy {config.strategy}", name, known)
        _check(config.strategy, name, value, known[name].default)
    try:
        made = cast(Callable[..., Strategy], choice)(**own, **config.strategy_options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"strategy {config.strategy} refuses {config.strategy_options}: {error}"
        ) from error
    return made


def check_strategy(config: SimulationConfig, clients: int) -> None:
    """Refuse a strategy, a defence or an attack that cannot be used.

    Raises:
        ConfigError: what is wrong with which.
    """
    from flowerpress.server import Pressed
    from flowerpress.simulations.attacks import read_attack

    Pressed(make_strategy(config, clients), uplink=config.uplink, defence=config.defence)
    if config.attack is not None:
        read_attack(config.attack)


def _is_option(name: str) -> bool:
    ours = ("fraction_", "min_")
    plumbing = ("_key", "_fn", "_rule")
    return not name.startswith(ours) and not name.endswith(plumbing)


def _check(strategy: str, name: str, value: object, default: object) -> None:
    kind = type(default)
    fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(default, bool)
    if not fits and not (kind is float and type(value) is int):
        raise ConfigError(
            f"strategy_options.{name} = {value!r} is not allowed: strategy {strategy} takes a "
            f"{kind.__name__}, by default {default!r}"
        )
