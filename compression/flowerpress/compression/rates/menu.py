"""Menus of settings, and what each of their settings costs on each tensor."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.codec import Codec, Context, encodable
from flowerpress.compression.errors import ConfigError, EncodeError, UnknownNameError
from flowerpress.compression.grouped import rows_of
from flowerpress.compression.moments import squares
from flowerpress.compression.presets import Preset, preset
from flowerpress.compression.presets.ratedistortion import RateDistortionBudget
from flowerpress.compression.rates.blocks import blocked
from flowerpress.compression.rates.points import Points
from flowerpress.compression.rd.codec import RateDistortion, subject
from flowerpress.compression.spec import Manifest, TensorSpec

__all__ = ["MENUS", "MOST_SETTINGS", "measure", "menu"]

MOST_SETTINGS = 64

# Finer where they are coarse: there a step decides about whole singular vectors of a tensor.
_STEPS = (
    *("0.03", "0.06", "0.12", "0.25", "0.5", "0.7", "1", "1.4", "2", "2.8", "4", "5.6", "8"),
    *("11", "13", "16", "19", "22", "27", "40", "64"),
)
_DENSITIES = (
    *("0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.004", "0.007"),
    *("0.01", "0.02", "0.04", "0.07", "0.1", "0.2", "0.4"),
)
_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

_INTEGERS = ("int8", *(f"intn(bits={bits})" for bits in (7, 6, 5, 4)), "int4")
_FLOATS = ("fp16", "bf16", "fp8", "fp8(format=e5m2)", "nf4")
_RD = tuple(f"rd(relative={step},scope=tensor)" for step in _STEPS)
_TOPK = tuple(f"topk(density={density})" for density in _DENSITIES)
_STC = tuple(f"stc(density={density})" for density in _DENSITIES)

MENUS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rd": _RD,
        "topk": _TOPK,
        "stc": _STC,
        "qsgd": tuple(f"qsgd(bits={bits})" for bits in range(1, 9)),
        "powersgd": tuple(f"powersgd(rank={rank})" for rank in _RANKS),
        "integers": _INTEGERS,
        "floats": _FLOATS,
        "formats": (*_FLOATS, *_INTEGERS),
        "mixed": (*_FLOATS, *_INTEGERS, *_RD, *_STC[::2], *_TOPK[1::2]),
    }
)
"""Named menus, each from one family of codecs but ``formats`` and ``mixed``."""

Arrays = Mapping[str, NDArray[Any]]
_NONE: Mapping[str, Any] = MappingProxyType({})
_PROBE = Manifest((TensorSpec("a", (4, 4)), TensorSpec("b", (4, 4))))


def menu(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Return the settings of a named menu, or those of a list after checking them.

    Raises:
        UnknownNameError: no menu of that name, or an unknown codec or parameter in the list.
        ConfigError: an empty or too long list, a setting given twice or that cannot be read, or
            one whose codec looks at several tensors together (``scope=global``).
    """
    if isinstance(chosen, str):
        if chosen not in MENUS:
            raise UnknownNameError("menu", chosen, MENUS)
        return MENUS[chosen]
    texts = tuple(chosen)
    if not 1 <= len(texts) <= MOST_SETTINGS:
        raise ConfigError(f"a menu has 1 to {MOST_SETTINGS} settings, not {len(texts)}")
    for text in texts:
        if not isinstance(text, str):
            raise ConfigError(f"a setting of a menu is a codec's text, not {text!r}")
        if texts.count(text) > 1:
            raise ConfigError(f"{text!r} is twice in the menu")
        _check_alone(text, preset(text))
    return texts


def measure(
    manifest: Manifest,
    tensors: Arrays,
    settings: Sequence[str],
    *,
    rng: np.random.Generator | None,
    references: Arrays = _NONE,
    warm: Mapping[str, NDArray[np.float32]] = _NONE,
    groups: Mapping[str, int] = _NONE,
    progress: Callable[[int, int], None] | None = None,
) -> Points:
    """Return what each setting costs on each tensor, by coding and decoding it.

    Args:
        manifest: the model's tensors; those of integers are left out, and those that ``tensors``
            does not have.
        tensors: name -> values, such as an update with its residual.
        settings: codec texts.
        rng: for stochastic codecs.
        references: name -> tensor that the decoder holds, too.
        warm: name -> what ``Codec.warmth`` made of the tensor's previous body.
        groups: name -> number of blocks of rows to measure each by itself; the points have them
            under names such as ``fc.weight[0:64]``.
        progress: called with the number of points done and of all, after each.

    Raises:
        ConfigError: a bad setting, or more blocks than rows.
        EncodeError: NaN, infinity, or another shape than the manifest's.
    """
    presets = [preset(text) for text in settings]
    parts: list[tuple[TensorSpec, NDArray[Any], Context]] = []
    for spec in manifest.specs:
        if spec.is_float and spec.name in tensors:
            context = Context(rng, references.get(spec.name), warm=warm.get(spec.name))
            parts += _blocks(spec, tensors[spec.name], context, groups.get(spec.name, 0))
    costs = np.full((len(parts), len(presets)), np.inf)
    errors = np.full((len(parts), len(presets)), np.inf)
    energies = np.zeros(len(parts))
    done = 0
    for row, (spec, x, context) in enumerate(parts):
        energies[row] = _energy(x, spec)
        one = _One(spec, x, context)
        for column, choice in enumerate(presets):
            with contextlib.suppress(EncodeError):  # this setting is not for this tensor
                costs[row, column], errors[row, column] = one.cost(choice)
            done += 1
            if progress is not None:
                progress(done, costs.size)
    return Points(
        tuple(spec.name for spec, _, _ in parts),
        tuple(settings),
        costs,
        errors,
        energies,
        np.array([spec.size for spec, _, _ in parts], np.int64),
    )


class _One:
    """One tensor to be coded with several settings.

    What ``rd`` finds out about a tensor does not depend on the step, and is kept for all of them.
    """

    def __init__(self, spec: TensorSpec, x: NDArray[Any], context: Context) -> None:
        self.spec, self.x, self.context = spec, x, context
        self._subject: Any = None

    def cost(self, choice: Preset) -> tuple[float, float]:
        """Return bytes of the body and squared error."""
        if _relative_step(choice) is not None:
            codec, body = self._shared(choice)
        else:
            coded = choice.plan(Manifest((self.spec,))).encode(
                Manifest((self.spec,)), [self.x], [self.context]
            )[0]
            codec, body = coded.codec, coded.body
        decoded = codec.decode(memoryview(body), self.spec, self.context.reference)
        rest = np.array(self.x, np.promote_types(self.x.dtype, np.float32)).reshape(-1)
        decoded.add_to(rest, -1.0)
        return len(body), squares(rest)

    def _shared(self, choice: Preset) -> tuple[Codec, bytes]:
        if self._subject is None:
            self._subject = subject(self.x, self.spec, self.context)
        step = _relative_step(choice)
        energy = self._subject.energy
        if not energy or step is None:
            return RateDistortion(1.0), b""
        codec = RateDistortion(max(step * math.sqrt(energy / self.spec.size), 1e-30))
        return codec, self._subject.encode(codec.step)


def _relative_step(choice: Preset) -> float | None:
    """Return the step of an ``rd`` setting that is relative to the tensor alone."""
    if not isinstance(choice, RateDistortionBudget) or choice.fast or choice.weight != 1:
        return None
    return choice.relative if choice.scope == "tensor" else None


def _blocks(
    spec: TensorSpec, x: NDArray[Any], context: Context, count: int
) -> list[tuple[TensorSpec, NDArray[Any], Context]]:
    encodable(x, spec)
    if count < 2:
        return [(spec, x, context)]
    reference = context.reference
    return [
        (block, x[a:b], Context(context.rng, None if reference is None else reference[a:b]))
        for block, (a, b) in zip(
            blocked(Manifest((spec,)), [count]).specs, rows_of(spec, count), strict=True
        )
    ]


def _energy(x: NDArray[Any], spec: TensorSpec) -> float:
    with np.errstate(over="ignore"):
        energy = squares(np.ascontiguousarray(x).reshape(-1))
    if not math.isfinite(energy):
        raise EncodeError(spec.name, "its squares do not fit a double; nothing can be measured")
    return energy


def _check_alone(text: str, choice: Preset) -> None:
    own_step = isinstance(choice, RateDistortionBudget) and choice.step is not None
    if not own_step and any(len(each.tensors) > 1 for each in choice.plan(_PROBE).together):
        raise ConfigError(
            f"{text!r} looks at all tensors together, and a menu is about each by itself; "
            "write scope=tensor"
        )
