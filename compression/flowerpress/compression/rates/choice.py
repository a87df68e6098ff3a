"""What a user may say where a codec is asked for: a name, a policy, or a plan."""

from __future__ import annotations

from pathlib import Path

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.spelling import is_file_name

__all__ = ["choose"]


def choose(what: str | Path | Preset) -> Preset:
    """Return the preset, policy or plan that ``what`` stands for.

    Args:
        what: a codec such as ``"stc(density=0.01)"``, the path of a policy (``.toml``) or of a
            plan (``.json``), or any of them read already.

    Never to be called with what somebody sent: ``preset`` is for that, it opens no files.

    Raises:
        ConfigError: a file that cannot be read or used, an unknown codec or parameter.
    """
    if isinstance(what, Preset):
        return what
    if not isinstance(what, str | Path):
        raise ConfigError(f"a codec is a name, a policy or a plan, not a {type(what).__name__}")
    if isinstance(what, Path) or is_file_name(what):
        from flowerpress.compression.rates.plan import RatePlan
        from flowerpress.compression.rates.policy import Policy

        path = Path(what).expanduser()
        if path.suffix == ".toml":
            return Policy.read(path)
        if path.suffix == ".json":
            return RatePlan.read(path)
        raise ConfigError(f"{path}: is neither a policy (.toml) nor a plan (.json)")
    return preset(what)
