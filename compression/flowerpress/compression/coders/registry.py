"""All coders by wire tag and by name; importing this fails when two claim the same one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from flowerpress.compression.coders.background import Background
from flowerpress.compression.coders.base import Coder
from flowerpress.compression.coders.golomb import Golomb
from flowerpress.compression.coders.huffman import Huffman
from flowerpress.compression.coders.pack import Pack
from flowerpress.compression.coders.rans import Rans
from flowerpress.compression.coders.raw import Raw
from flowerpress.compression.coders.zstd import Zstd
from flowerpress.compression.errors import FormatError, UnknownNameError

__all__ = ["REGISTRY", "coder", "coder_named"]


def registered(coders: Iterable[Coder]) -> Mapping[int, Coder]:
    """Return coders by tag; ``RuntimeError`` when a tag or name is taken twice or out of range."""
    by_tag: dict[int, Coder] = {}
    names: set[str] = set()
    for each in coders:
        if not 1 <= each.tag <= 0x7F:
            raise RuntimeError(f"coder {each.name!r} has tag {each.tag}, not one of 1 to 127")
        if each.tag in by_tag or each.name in names:
            raise RuntimeError(f"coder {each.name!r} takes a tag or name twice (tag {each.tag})")
        by_tag[each.tag] = each
        names.add(each.name)
    return MappingProxyType(by_tag)


REGISTRY: Mapping[int, Coder] = registered(
    [Raw(), Pack(), Zstd(), Rans(), Huffman(), Golomb(), Background()]
)
"""Every coder by its tag. A tag that was ever released is never given to another coder."""


def coder(tag: int) -> Coder:
    """Return the coder that received bytes name by ``tag``, or raise ``FormatError``."""
    found = REGISTRY.get(tag)
    if found is None:
        raise FormatError("coder tag", f"{tag} is unknown; is the sender a newer version?")
    return found


def coder_named(name: str) -> Coder:
    """Return the coder that a user named, or raise ``UnknownNameError``."""
    for each in REGISTRY.values():
        if each.name == name:
            return each
    raise UnknownNameError("coder", name, (each.name for each in REGISTRY.values()))
