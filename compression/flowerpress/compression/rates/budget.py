"""The budget of a policy: the bytes, or the error, that tensors without own codec share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from flowerpress.compression.errors import ConfigError
from flowerpress.compression.presets.ratedistortion import ENVELOPE
from flowerpress.compression.rates.menu import MOST_SETTINGS
from flowerpress.compression.rates.menu import menu as named_menu
from flowerpress.compression.rates.reading import choice, number, setting, shown, table, text, whole
from flowerpress.compression.spec import Manifest

__all__ = ["ERRORS", "BudgetSpec", "least_bytes"]

ERRORS = ("squared", "norm")
"""How the errors of tensors add up: as squares, or as L-GreCo has them, as norms."""

_KINDS = ("target_bytes", "target_ratio", "max_nmse", "deadline")
_MOST_BYTES = 1 << 40
_MOST_RATIO = 1e9
_LONGEST_DEADLINE = 1e6
_RATES = (1.0, 1e12)
_MOST_ROUNDS = 1_000_000


@dataclass(frozen=True)
class BudgetSpec:
    """What is to be met, and how; exactly one of the first four is given.

    Attributes:
        target_bytes: of the whole message of one client and round, from 1 to 2**40.
        target_ratio: how many times smaller than the uncompressed model that message is, above 1.
        max_nmse: squared error over squared norm of all that the budget decides about, from 0 to 1.
        deadline: seconds that the message may take, with ``rate``.
        rate: bits a second of a client that says nothing of its own.
        allocator: one of ``ALLOCATORS``.
        error: one of ``ERRORS``; ``norm`` is for the allocator ``dp`` only.
        menu: the name of a menu, or codec texts.
        every: rounds until the server solves again; 0: once.
        split: elements above which a tensor is cut into blocks of rows that choose each by itself;
            0: never.

    Raises:
        ConfigError: none or several of the four, or a value that is not allowed.
    """

    target_bytes: int | None = None
    target_ratio: float | None = None
    max_nmse: float | None = None
    deadline: float | None = None
    rate: float | None = None
    allocator: str = "lambda"
    error: str = "squared"
    menu: str | tuple[str, ...] = "rd"
    every: int = 0
    split: int = 0

    def __post_init__(self) -> None:
        given = {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        _check(given, "budget")

    @classmethod
    def parse(cls, value: object, where: str) -> BudgetSpec:
        """Read a TOML table; ``where`` begins the messages.

        Raises:
            UnknownNameError: a key, menu, allocator or codec that does not exist.
            ConfigError: as the class.
        """
        given = table(value, where, _FIELDS)
        _check(given, where)
        if isinstance(given.get("menu"), list):
            given = {**given, "menu": tuple(given["menu"])}
        return cls(**given)

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The codec texts of the menu."""
        return named_menu(self.menu)

    def target(self, manifest: Manifest, rate: float | None = None) -> int | None:
        """Return the bytes of a whole message; None where the budget is one of error.

        A fast link is no reason to send more than helps: a deadline gives at most a sixteenth of
        the uncompressed model beside what an empty message takes.

        Args:
            manifest: the model, for ``target_ratio``.
            rate: bits a second that a client has measured, for ``deadline``; None: the budget's.

        Raises:
            ConfigError: ``rate`` is not a number of bits a second from 1 to 1e12.
        """
        if rate is not None:
            number(rate, "rate", *_RATES, unit="of bits a second")
        if self.target_ratio is not None:
            return int(manifest.nbytes / self.target_ratio)
        if self.deadline is not None:
            # Beyond two bits an element there is nothing left to be gained.
            most = least_bytes(manifest) + manifest.nbytes // 16
            return min(int(self.deadline * (rate or self.rate or 0.0) / 8), most)
        return self.target_bytes

    def check(self, manifest: Manifest) -> None:
        """Refuse a target that a message of this model exceeds with nothing in it.

        Raises:
            ConfigError: as it says.
        """
        target, least = self.target(manifest), least_bytes(manifest)
        if target is not None and target < least:
            asked = next(name for name in _KINDS if getattr(self, name) is not None)
            raise ConfigError(
                f"budget.{asked} = {getattr(self, asked):g} makes {target} bytes a message; for "
                f"this model of {len(manifest)} tensors an empty one takes up to {least}"
            )


_FIELDS = (*_KINDS, "rate", "allocator", "error", "menu", "every", "split")


def least_bytes(manifest: Manifest) -> int:
    """Return the bytes of a message in which nothing is said of any floating-point tensor.

    An upper bound: the envelope, the frames, and the tensors of integers, which are sent exactly.
    """
    exact = sum(spec.nbytes for spec in manifest.specs if not spec.is_float)
    return ENVELOPE + 4 * len(manifest) + exact


def _check(given: dict[str, object], where: str) -> None:
    kinds = [name for name in _KINDS if name in given]
    if len(kinds) != 1:
        said = f"has {' and '.join(kinds)}" if kinds else "does not say what is to be met"
        raise ConfigError(f"{where} {said}; give exactly one of {', '.join(_KINDS)}")
    for name, value in given.items():
        _check_value(name, value, f"{where}.{name}")
    if ("deadline" in given) != ("rate" in given):
        raise ConfigError(
            f"{where}: a deadline (seconds) and a rate (bits a second) need each other; "
            f"{'rate' if 'deadline' in given else 'deadline'} is missing"
        )
    if given.get("error") == "norm" and given.get("allocator", "lambda") != "dp":
        raise ConfigError(f'{where}: error = "norm" is for allocator = "dp" only')


def _check_value(name: str, value: object, at: str) -> None:
    match name:
        case "target_bytes":
            whole(value, at, 1, _MOST_BYTES, "bytes of the whole message")
        case "target_ratio":
            if number(value, at, 0.0, _MOST_RATIO, "above 1, of times") <= 1:
                raise ConfigError(
                    f"{at} is {shown(value)}; it is how many times smaller than the model a "
                    "message shall be, such as 100"
                )
        case "max_nmse":
            if number(value, at, 0.0, 1.0) == 0:
                raise ConfigError(f'{at} is 0; for no error at all use codec = "lossless"')
        case "deadline":
            number(value, at, 1e-3, _LONGEST_DEADLINE, "of seconds")
        case "rate":
            number(value, at, *_RATES, unit="of bits a second")
        case "allocator":
            # Not needed otherwise, and it brings a compiler.
            from flowerpress.compression.rates.solve import ALLOCATORS

            choice(value, at, ALLOCATORS)
        case "error":
            choice(value, at, ERRORS)
        case "menu":
            _check_menu(value, at)
        case "every":
            whole(value, at, 0, _MOST_ROUNDS, "rounds")
        case "split":
            whole(value, at, 0, _MOST_BYTES, "elements")


def _check_menu(value: object, at: str) -> None:
    if isinstance(value, list | tuple):
        if not 1 <= len(value) <= MOST_SETTINGS:
            raise ConfigError(
                f"{at} is a list of {len(value)}; it must have 1 to {MOST_SETTINGS} codecs"
            )
        written = [setting(one, f"{at}[{i}]") for i, one in enumerate(value)]
        if len(set(written)) < len(written):
            twice = next(one for one in written if written.count(one) > 1)
            raise ConfigError(f"{at} has {twice!r} twice")
        named_menu(tuple(written))
        return
    try:
        named_menu(text(value, at))
    except ConfigError as error:
        raise ConfigError(f"{at}: {error}") from None
