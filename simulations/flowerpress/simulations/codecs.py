"""The codecs that a configuration names: presets, policies and plans, checked before a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.spelling import is_file_name

if TYPE_CHECKING:
    from flowerpress.compression import Manifest
    from flowerpress.simulations.config import SimulationConfig

__all__ = ["absolute_codec", "check_codecs", "codec_name", "up_and_down", "with_absolute_codecs"]


def absolute_codec(text: str) -> str:
    """Return ``text``, with the path of a policy or plan made absolute.

    A run's processes need not start in the folder that the command was given in.
    """
    return str(Path(text.strip()).expanduser().absolute()) if is_file_name(text) else text


def with_absolute_codecs(config: SimulationConfig) -> SimulationConfig:
    """Return ``config`` with absolute paths of policies and plans."""
    change = {"uplink": absolute_codec(config.uplink), "downlink": absolute_codec(config.downlink)}
    return config.model_copy(update=change)


def codec_name(text: str) -> str:
    """Return how a codec is called in tables: of a file, its name without the ending."""
    return Path(text.strip()).stem if is_file_name(text) else text


def up_and_down(label: str) -> tuple[str, str]:
    """Split ``a/b`` into what goes up and what goes down; the latter is empty where there is one.

    Paths may have slashes: a file's name ends at ``.toml`` or ``.json``.
    """
    from flowerpress.compression import PRESETS

    parts = label.split("/")
    if is_file_name(label) and (len(parts) < 2 or Path(label).expanduser().is_file()):
        return label, ""
    for at in range(1, len(parts)):
        up, down = "/".join(parts[:at]).strip(), "/".join(parts[at:]).strip()
        if is_file_name(up) or (at == 1 and up.partition("(")[0].strip() in PRESETS):
            return up, down
    if is_file_name(label):
        return label, ""
    up, _, down = label.partition("/")
    return up.strip(), down.strip()


def check_codecs(config: SimulationConfig) -> None:
    """Refuse codecs that cannot be used, and policies and plans that are for another model.

    Raises:
        ConfigError: what is wrong, and with which file.
    """
    from flowerpress.compression.rates.choice import choose

    manifest: Manifest | None = None
    for text in dict.fromkeys((config.uplink, config.downlink)):
        if text == "same":
            continue
        choice = choose(text)
        if is_file_name(text):
            manifest = manifest or _manifest(config)
            try:
                choice.plan(manifest)
            except ConfigError as error:
                if str(error).startswith(text):
                    raise
                raise ConfigError(f"{text}: {error}") from error


def _manifest(config: SimulationConfig) -> Manifest:
    from flowerpress.compression import Manifest
    from flowerpress.simulations.loaded import load

    state = load(config).task.build().state_dict()
    return Manifest.of({name: tensor.numpy() for name, tensor in state.items()})
