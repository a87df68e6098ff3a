"""What a defence did to one client in the record of a round."""

from __future__ import annotations

from dataclasses import dataclass

from flowerpress.simulations.fields import Fields

__all__ = ["Treated"]


@dataclass(frozen=True)
class Treated:
    """What a defence made of one client's update.

    ``factor`` is what its change was multiplied with (1: left alone, 0: rejected), ``claimed`` and
    ``counted`` its weight before and after a cap, ``share`` how many of its values were within
    what a trimmed mean or median averaged.
    """

    client: int
    factor: float
    claimed: float
    counted: float
    share: float

    @classmethod
    def from_json(cls, data: object, where: str) -> Treated:
        read = Fields(data, where)
        treated = cls(
            read.integer("client"),
            read.number("factor"),
            read.number("claimed"),
            read.number("counted"),
            read.number("share"),
        )
        read.done()
        return treated
