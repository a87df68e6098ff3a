"""Plans on their way to clients: whole, or as the difference to one that the client has.

A plan crosses as a table of codec texts and, for each tensor that changes, which of them it gets.
Everything is checked against the receiver's own manifest before anything is built, and a text goes
through the same parser as a user's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flowerpress.compression.errors import (
    ConfigError,
    FormatError,
    LimitError,
    ManifestError,
    SequenceError,
)
from flowerpress.compression.grouped import MOST_GROUPS
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.spec import Manifest
from flowerpress.compression.wire import Reader, Writer

__all__ = ["DIGEST_BYTES", "pack_plan", "plan_digest", "unpack_plan"]

DIGEST_BYTES = 8
_VERSION = 1
_FIELD = "plan"
_LONGEST_TEXT = 300
_MOST_TEXTS = 4096
_LARGEST_MENU = 64


def plan_digest(plan: RatePlan) -> bytes:
    """Return eight bytes that two plans share only if they code alike, at whatever budget."""
    return hashlib.sha256(_whole(plan)).digest()[:DIGEST_BYTES]


def pack_plan(plan: RatePlan, held: RatePlan | None = None) -> bytes:
    """Return the plan as bytes; with ``held``, only what differs from that one.

    The budget is not in it: each client has its own.
    """
    if held is None or held.manifest != plan.manifest:
        return _whole(plan)
    return min(_written(plan, held), _whole(plan), key=len)


def unpack_plan(body: bytes, manifest: Manifest, held: RatePlan | None) -> RatePlan:
    """Return the plan that ``pack_plan`` packed.

    Args:
        body: hostile.
        manifest: the receiver's own.
        held: the plan that the receiver has, if any.

    Raises:
        SequenceError: a difference to another plan than ``held``.
        WireError: anything else that no sender writes.
    """
    reader = Reader(memoryview(body), _FIELD)
    version = reader.varint()
    if version != _VERSION:
        raise FormatError(_FIELD, f"version {version}; the sender is newer, upgrade this side")
    base = bytes(reader.blob())
    if bytes(reader.blob()) != manifest.digest:
        raise ManifestError(_FIELD, "it is for a model with other tensors")
    if base and (held is None or base != plan_digest(held)):
        raise SequenceError(_FIELD, "it changes another plan than the one held here")
    texts = [_text(reader) for _ in range(_count(reader, _MOST_TEXTS, "codec texts"))]
    entries: list[Entry | None] = list(held.entries) if base and held else [None] * len(manifest)
    at = 0
    for _ in range(_count(reader, len(manifest), "tensors")):
        at += reader.varint()
        if at >= len(manifest):
            raise FormatError(_FIELD, f"names tensor {at} of {len(manifest)}")
        packed = _count(reader, 2 * MOST_GROUPS + 1, "groups of rows")
        groups, kept = packed >> 1, bool(packed & 1)
        own = tuple(_one(reader, texts) for _ in range(max(1, groups)))
        name = manifest.specs[at].name
        entries[at] = Entry(name, own[0], own if groups else (), kept=kept)
        at += 1
    menu = tuple(_one(reader, texts) for _ in range(_count(reader, _LARGEST_MENU, "menu")))
    reader.finish()
    whole = tuple(entry for entry in entries if entry is not None)
    if len(whole) != len(manifest):
        raise FormatError(_FIELD, "says nothing of some tensors")
    try:
        plan = RatePlan(whole, manifest.digest.hex(), menu=menu)
        plan.plan(manifest)
    except ConfigError as error:
        raise FormatError(_FIELD, str(error)) from error
    return plan


def _whole(plan: RatePlan) -> bytes:
    return _written(plan, None)


def _written(plan: RatePlan, held: RatePlan | None) -> bytes:
    before = [_codecs(entry) for entry in held.entries] if held else [None] * len(plan.entries)
    changed = [i for i, entry in enumerate(plan.entries) if _codecs(entry) != before[i]]
    used = [text for i in changed for text in _codecs(plan.entries[i])[1]]
    texts = list(dict.fromkeys([*used, *plan.menu]))
    out = Writer()
    out.varint(_VERSION)
    out.blob(plan_digest(held) if held else b"")
    out.blob(bytes.fromhex(plan.manifest))
    out.varint(len(texts))
    for text in texts:
        out.blob(text.encode())
    out.varint(len(changed))
    at = 0
    for i in changed:
        out.varint(i - at)
        grouped, own, kept = _codecs(plan.entries[i])
        out.varint((2 * len(own) if grouped else 0) + kept)
        for text in own:
            out.varint(texts.index(text))
        at = i + 1
    out.varint(len(plan.menu))
    for text in plan.menu:
        out.varint(texts.index(text))
    return out.getvalue()


def _codecs(entry: Entry) -> tuple[bool, tuple[str, ...], bool]:
    return bool(entry.groups), entry.groups or (entry.codec,), entry.kept


def _count(reader: Reader, most: int, what: str) -> int:
    count = reader.varint()
    if count > most:
        raise LimitError(_FIELD, f"{count} {what}, at most {most} are accepted")
    return count


def _text(reader: Reader) -> str:
    body = bytes(reader.blob())
    if len(body) > _LONGEST_TEXT:
        raise LimitError(_FIELD, f"a codec text of {len(body)} bytes")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise FormatError(_FIELD, "a codec text is not UTF-8") from None


def _one(reader: Reader, texts: Sequence[str]) -> str:
    index = reader.varint()
    if index >= len(texts):
        raise FormatError(_FIELD, f"codec text {index} of {len(texts)}")
    return texts[index]
