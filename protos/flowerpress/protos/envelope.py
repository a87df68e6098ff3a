"""One update as bytes, and the checks that bytes must pass before they are one.

    magic "FPU1" | checksum 8 | header length (varint) | header (protobuf) | bodies

The checksum is 8 bytes of a SHA-256 over everything else, so one flipped bit anywhere is an
error, whatever a codec's own format could notice. Sizes are checked against the receiver's
manifest before the checksum, the checksum before anything is parsed, and every body is a view of
the received bytes. Parsing takes at most 32 times the header's size (empty submessages are the
worst that protobuf has), and the header is capped by ``Limits``; so what a sender writes decides
how much is allocated only where a receiver knows no tensors yet and takes the sender's, up to
``Limits.max_elements``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from google.protobuf.message import DecodeError

from flowerpress.compression import (
    CODECS,
    DEFAULT_LIMITS,
    DTYPES,
    ChecksumError,
    ConfigError,
    FormatError,
    Frame,
    LimitError,
    Limits,
    Manifest,
    ManifestError,
    Reader,
    TensorSpec,
    TruncatedError,
    Writer,
    read_recipe,
    recipe,
)
from flowerpress.protos import update_pb2 as pb

__all__ = ["MAGIC", "Kind", "Update", "largest_blob", "pack", "parts", "unpack"]

MAGIC = b"FPU1"
CHECKSUM_BYTES = 8
DIGEST_BYTES = 16
MAX_RECIPE_BYTES = 256


class Kind(IntEnum):
    """What the frames hold."""

    DELTA = pb.UpdateHeader.DELTA
    MODEL = pb.UpdateHeader.MODEL


@dataclass(frozen=True)
class Update:
    """The frames of one message, and which exchange they belong to.

    Uplink: ``client`` and ``sequence`` name the sender and its strictly increasing count, ``base``
    is the digest of the model it trained from. Downlink: ``client`` is 0, ``sequence`` the version
    that the update leads to, ``result`` that version's digest; ``base`` is empty for a model.
    ``manifest`` is set where a model travels to somebody who may not know its tensors. ``metadata``
    is text for whoever made the update; nothing in here reads it.
    """

    kind: Kind
    run: int
    round: int
    client: int
    sequence: int
    manifest_digest: bytes
    frames: Sequence[Frame]
    base: bytes = b""
    result: bytes = b""
    manifest: Manifest | None = None
    metadata: str = ""


def largest_blob(manifest: Manifest, limits: Limits = DEFAULT_LIMITS) -> int:
    """Return the most bytes that an update of this model may have."""
    bodies = manifest.nbytes + limits.slack_bytes_per_tensor * len(manifest)
    return bodies + _largest_header(len(manifest), limits)


def pack(update: Update) -> bytes:
    """Return the envelope of ``update``."""
    return b"".join(parts(update))


def parts(update: Update) -> list[bytes | memoryview]:
    """Return the envelope of ``update`` in parts, in order; bodies are not copied."""
    header = pb.UpdateHeader(
        kind=int(update.kind),  # type: ignore[arg-type]
        run=update.run,
        round=update.round,
        client=update.client,
        sequence=update.sequence,
        base=update.base,
        result=update.result,
        manifest_digest=update.manifest_digest,
        metadata=update.metadata,
    )
    if update.manifest is not None:
        header.manifest.tensor.extend(
            pb.TensorSpec(name=s.name, shape=s.shape, dtype=DTYPES.index(s.dtype))
            for s in update.manifest.specs
        )
    recipes = [recipe(frame.codec) for frame in update.frames]
    distinct = list(dict.fromkeys(recipes))
    header.recipe.extend(distinct)
    if len(distinct) > 1:
        header.codec.extend(distinct.index(r) for r in recipes)
    tensors = [frame.tensor for frame in update.frames]
    if tensors != list(range(len(tensors))):
        header.tensor.extend(tensors)
    header.length.extend(len(frame.body) for frame in update.frames)

    text = header.SerializeToString(deterministic=True)
    start = Writer()
    start.blob(text)
    rest = [start.getvalue(), *(frame.body for frame in update.frames)]
    return [MAGIC, _checksum(rest), *rest]


def unpack(
    blob: bytes | memoryview, manifest: Manifest | None, limits: Limits = DEFAULT_LIMITS
) -> Update:
    """Return the update in ``blob``; bodies are views of it and not decoded yet.

    Args:
        blob: bytes that anybody may have sent.
        manifest: the receiver's own. With None, the update must bring one (a first model).
        limits: the receiver's caps.

    Raises:
        WireError: which rule was broken, and in which field.
    """
    view = memoryview(blob)
    if manifest is not None and len(view) > largest_blob(manifest, limits):
        raise LimitError("update", f"{len(view)} bytes for a model of {manifest.nbytes}")
    if len(view) < len(MAGIC) + CHECKSUM_BYTES:
        raise TruncatedError("update", f"{len(view)} bytes are too few for an envelope")
    if view[: len(MAGIC)] != MAGIC:
        raise FormatError("magic", "not a flowerpress update, or one of another format version")
    rest = view[len(MAGIC) + CHECKSUM_BYTES :]
    if view[len(MAGIC) : len(MAGIC) + CHECKSUM_BYTES] != _checksum([rest]):
        raise ChecksumError("checksum", "the bytes changed on the way, or some are missing")

    reader = Reader(rest, "header")
    size = reader.varint()
    if size > _largest_header(len(manifest) if manifest else limits.max_tensors, limits):
        raise LimitError("header", f"{size} bytes")
    header = pb.UpdateHeader()
    try:
        header.ParseFromString(bytes(reader.take(size)))
    except DecodeError as error:
        raise FormatError("header", "not a protobuf message") from error
    return _update(header, reader, manifest, limits)


def _update(
    header: pb.UpdateHeader, reader: Reader, manifest: Manifest | None, limits: Limits
) -> Update:
    if header.kind not in (pb.UpdateHeader.DELTA, pb.UpdateHeader.MODEL):
        raise FormatError("kind", f"{header.kind} is neither a delta nor a model")
    for name, value, sizes in (
        (
            "base",
            header.base,
            (DIGEST_BYTES,) if header.kind == pb.UpdateHeader.DELTA else (0, DIGEST_BYTES),
        ),
        ("result", header.result, (0, DIGEST_BYTES)),
    ):
        if len(value) not in sizes:
            raise FormatError(name, f"{len(value)} bytes; a digest has {DIGEST_BYTES}")

    sent = None
    if header.HasField("manifest"):
        if manifest is not None and len(header.manifest.tensor) != len(manifest):
            raise ManifestError("manifest", f"has not the {len(manifest)} tensors of the model")
        sent = _manifest(header.manifest, limits)
    known = manifest or sent
    if known is None:
        raise ManifestError("manifest", "missing from an update for a receiver that has no model")
    if header.manifest_digest != known.digest or (sent and sent.digest != known.digest):
        raise ManifestError("manifest_digest", "made for a model with other tensors")

    return Update(
        kind=Kind(header.kind),
        run=header.run,
        round=header.round,
        client=header.client,
        sequence=header.sequence,
        manifest_digest=header.manifest_digest,
        frames=_frames(header, reader, known),
        base=header.base,
        result=header.result,
        manifest=sent,
        metadata=header.metadata,
    )


def _frames(header: pb.UpdateHeader, reader: Reader, manifest: Manifest) -> tuple[Frame, ...]:
    n = len(header.length)
    if n > len(manifest):
        raise LimitError("length", f"{n} frames for {len(manifest)} tensors")
    tensors = list(header.tensor) or list(range(n))
    if len(tensors) != n:
        raise FormatError("tensor", f"{len(tensors)} indices for {n} frames")
    if any(b <= a for a, b in pairwise(tensors)) or (n and tensors[-1] >= len(manifest)):
        raise FormatError("tensor", "indices are not increasing, or beyond the manifest")
    if len(header.recipe) > max(n, 1):
        raise LimitError("recipe", f"{len(header.recipe)} codecs for {n} frames")
    if any(len(r) > MAX_RECIPE_BYTES for r in header.recipe):
        raise LimitError("recipe", f"longer than {MAX_RECIPE_BYTES} bytes")
    codecs = [read_recipe(memoryview(r), CODECS) for r in header.recipe]
    choices = list(header.codec) or [0] * n
    if len(choices) != n or any(c >= len(codecs) for c in choices):
        raise FormatError("codec", "does not name one listed codec for each frame")
    bodies = [reader.take(length) for length in header.length]
    if reader.remaining:
        raise FormatError("bodies", f"{reader.remaining} bytes beyond the last frame")
    return tuple(Frame(t, codecs[c], b) for t, c, b in zip(tensors, choices, bodies, strict=True))


def _manifest(message: pb.Manifest, limits: Limits) -> Manifest:
    specs = []
    if len(message.tensor) > limits.max_tensors:
        raise LimitError("manifest", f"{len(message.tensor)} tensors")
    for t in message.tensor:
        if t.dtype >= len(DTYPES):
            raise FormatError(f"manifest[{t.name!r}].dtype", f"unknown dtype {t.dtype}")
        specs.append(TensorSpec(t.name, tuple(t.shape), DTYPES[t.dtype]))
    try:
        manifest = Manifest(tuple(specs))
    except ConfigError as error:
        raise FormatError("manifest", str(error)) from error
    manifest.check_limits(limits)
    return manifest


def _checksum(rest: Iterable[bytes | memoryview]) -> bytes:
    # Processors have instructions for SHA-256: no other strong hash of hashlib is as fast.
    h = hashlib.sha256(MAGIC)
    for part in rest:
        h.update(part)
    return h.digest()[:CHECKSUM_BYTES]


def _largest_header(tensors: int, limits: Limits) -> int:
    return limits.header_bytes + limits.header_bytes_per_tensor * tensors
