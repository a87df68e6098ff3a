"""Envelopes from people who mean harm: a typed error or a sound update, and little memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowerpress.compression import (
    DTYPES,
    ChecksumError,
    Context,
    FormatError,
    Frame,
    LimitError,
    Limits,
    Manifest,
    ManifestError,
    NonFiniteError,
    TensorSpec,
    TruncatedError,
    WireError,
    Writer,
    apply_frames,
    decode_frames,
    encode_frames,
    preset,
)
from flowerpress.compression.pipeline import Pipeline
from flowerpress.compression.stages import Exact, Half, TopK
from flowerpress.protos import update_pb2 as pb
from flowerpress.protos.delivery import MAX_UPDATES, join_updates, split_updates
from flowerpress.protos.envelope import (
    MAGIC,
    MAX_RECIPE_BYTES,
    Kind,
    Update,
    largest_blob,
    pack,
    unpack,
)

ARRAYS: dict[str, NDArray[Any]] = {
    "w": np.random.default_rng(1).standard_normal((6, 50)).astype(np.float32),
    "b": np.random.default_rng(2).standard_normal(7).astype(np.float32),
    "n": np.arange(3),
    "h": np.random.default_rng(3).standard_normal((2, 9)).astype(np.float16),
}
MANIFEST = Manifest.of(ARRAYS)
PRESETS = [
    "none",
    "lossless",
    "lossless(coder=rans)",
    "fp16(coder=rans)",
    "int8",
    "int8(coder=huffman)",
    "topk(density=0.1)",
    "qsgd(levels=3, bucket=64)",
    "stc(density=0.1, positions=address)",
    "stc(density=0.1, positions=golomb)",
    "stc(density=0.1, positions=rans)",
    "stc(density=0.1, positions=bitmap)",
    "fedzip",
]


def update_of(text: str, *, with_manifest: bool = False) -> Update:
    plan = preset(text).plan(MANIFEST)
    frames, _ = encode_frames(MANIFEST, plan, ARRAYS, np.random.default_rng(0))
    kind, base = (Kind.MODEL, b"") if with_manifest else (Kind.DELTA, bytes(16))
    own = MANIFEST if with_manifest else None
    return Update(kind, 1, 2, 3, 4, MANIFEST.digest, frames, base, manifest=own)


def seal(rest: bytes) -> bytes:
    """Return the envelope with a right checksum over ``rest`` (header length, header, bodies)."""
    checksum = hashlib.sha256(MAGIC + rest).digest()[:8]
    return MAGIC + checksum + rest


def sealed(header: pb.UpdateHeader | bytes, bodies: bytes = b"") -> bytes:
    out = Writer()
    out.blob(header if isinstance(header, bytes) else header.SerializeToString())
    out.raw(bodies)
    return seal(out.getvalue())


def opened(update: Update) -> tuple[pb.UpdateHeader, bytes]:
    """Return the header and the bodies of an update, to be changed."""
    rest = pack(update)[12:]
    size, start = rest[0], 1
    if size >= 0x80:
        size, start = size & 0x7F | rest[1] << 7, 2
    header = pb.UpdateHeader.FromString(rest[start : start + size])
    return header, rest[start + size :]


def receive(blob: bytes | memoryview, manifest: Manifest | None = MANIFEST) -> None:
    """Do all that a receiver does; what it accepts must be sound."""
    update = unpack(blob, manifest)
    known = manifest or update.manifest
    assert known is not None
    for index, decoded in decode_frames(known, update.frames):
        dense = decoded.dense()
        assert dense.shape == (known.specs[index].size,)
        assert np.isfinite(dense).all()
    if len(update.frames) == len(known):
        out = apply_frames(known, {}, update.frames, change=False)
        known.match(out)
        assert all(np.isfinite(array).all() for array in out.values())


def complaint(blob: bytes, manifest: Manifest | None = MANIFEST) -> str | None:
    """Return the field that a receiver finds at fault, or None where it accepts."""
    try:
        receive(blob, manifest)
    except WireError as error:
        return error.field
    return None


@contextmanager
def no_more_than(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak} bytes were allocated, not {limit}"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A warning of NumPy means that an invalid number got further than it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# --- damage, with the checksum in place -------------------------------------------------------


@pytest.mark.parametrize("text", ["stc(density=0.1)", "none"])
def test_truncation_at_every_length(text: str) -> None:
    blob = pack(update_of(text))
    for size in range(len(blob)):
        with pytest.raises((TruncatedError, ChecksumError)):
            unpack(blob[:size], MANIFEST)
    receive(blob)


def test_every_flipped_bit_is_an_error() -> None:
    blob = pack(update_of("stc(density=0.1)", with_manifest=True))
    assert len(blob) < 500
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError if bit < 32 else ChecksumError):
            unpack(bytes(damaged), None)
    receive(blob, None)


@pytest.mark.parametrize("text", PRESETS)
def test_random_damage_is_an_error(text: str) -> None:
    blob = pack(update_of(text))
    rng = np.random.default_rng(7)
    for _ in range(100):
        damaged = np.frombuffer(blob, np.uint8).copy()
        where = rng.integers(0, damaged.size, rng.integers(1, 9))
        damaged[where] ^= rng.integers(1, 256, where.size, np.uint8)
        if damaged.tobytes() != blob:
            with pytest.raises((ChecksumError, FormatError)):
                unpack(damaged.tobytes(), MANIFEST)
    for other in (blob + b"\0", blob[1:], blob * 2, b"FPU2" + blob[4:], blob[::-1]):
        with pytest.raises(WireError):
            unpack(other, MANIFEST)


# --- damage behind a right checksum -----------------------------------------------------------


def mutated(rest: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(rest)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(data)))
        match rng.integers(0, 6):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 5)))
            case 3:
                del data[at : at + int(rng.integers(1, 5))]
            case 4:
                data[at : at + 4] = np.float32(rng.choice([np.nan, np.inf, -1e38, 1e-40])).tobytes()
            case _:
                part = data[at : at + int(rng.integers(1, 20))]
                data[at:at] = part
        data = data or bytearray(1)
    return bytes(data)


@pytest.mark.parametrize("text", PRESETS)
def test_mutants_never_crash(text: str) -> None:
    update = update_of(text, with_manifest=text == "int8")
    rest = pack(update)[12:]
    _, bodies = opened(update)
    start = len(rest) - len(bodies)
    rng = np.random.default_rng(PRESETS.index(text))
    refused = 0
    for turn in range(300):
        # The whole, or the bodies alone: most changes of a header are found there and then.
        whole = seal(
            mutated(rest, rng) if turn % 3 == 0 else rest[:start] + mutated(rest[start:], rng)
        )
        field = complaint(whole, None if text == "int8" else MANIFEST)
        assert field != ""
        refused += field is not None
    assert refused > 100
    # A sender that keeps the lengths right gets every mutant body to its decoder.
    reached = 0
    for _ in range(400):
        index = int(rng.integers(0, len(update.frames)))
        if not len(update.frames[index].body):
            continue
        body = mutated(bytes(update.frames[index].body), rng)
        frames = list(update.frames)
        frames[index] = replace(frames[index], body=body)
        changed = pack(replace(update, frames=frames))
        reached += 1
        field = complaint(changed, None if text == "int8" else MANIFEST)
        assert field in (None, "update") or MANIFEST.specs[index].name in field
    assert reached > 200


def test_mutants_of_recipes_never_crash() -> None:
    rng = np.random.default_rng(11)
    blank = [opened(update_of(text)) for text in PRESETS]
    for turn in range(3000):
        first, bodies = blank[turn % len(PRESETS)]
        header = pb.UpdateHeader()
        header.CopyFrom(first)
        index = int(rng.integers(0, len(header.recipe)))
        header.recipe[index] = mutated(header.recipe[index], rng)
        assert complaint(sealed(header, bodies)) != ""


def test_random_bytes_as_every_body() -> None:
    """Whatever a body holds, every stage and coder answers with values or a WireError."""
    rng = np.random.default_rng(12)
    for text in PRESETS:
        update = update_of(text)
        for size in [*range(12), 40, 200, 900]:
            frames = [replace(frame, body=rng.bytes(size)) for frame in update.frames]
            for index, frame in enumerate(frames):
                alone = replace(update, frames=[replace(frame, tensor=index)])
                field = complaint(pack(alone))
                assert field is None or MANIFEST.specs[index].name in field


# --- one rule at a time -----------------------------------------------------------------------


def test_another_magic() -> None:
    blob = pack(update_of("none"))
    with pytest.raises(FormatError, match="magic: not a flowerpress update, or one of another"):
        unpack(b"PK\3\4" + blob[4:], MANIFEST)
    for size in (0, 3, 11):
        with pytest.raises(TruncatedError, match=f"{size} bytes are too few"):
            unpack(blob[:size], MANIFEST)


def test_a_blob_larger_than_the_model() -> None:
    most = largest_blob(MANIFEST)
    with pytest.raises(LimitError, match=f"update: {most + 1} bytes for a model of"):
        unpack(bytes(most + 1), MANIFEST)
    with pytest.raises(TruncatedError):
        unpack(b"", MANIFEST)
    tight = Limits(slack_bytes_per_tensor=0, header_bytes=0, header_bytes_per_tensor=0)
    assert largest_blob(MANIFEST, tight) == MANIFEST.nbytes
    with pytest.raises(LimitError, match="update"):
        unpack(pack(update_of("none")), MANIFEST, tight)


Change = Callable[[pb.UpdateHeader], Any]


def clear(*names: str) -> Change:
    return lambda header: [header.ClearField(name) for name in names]


def put(**fields: Any) -> Change:
    def change(header: pb.UpdateHeader) -> None:
        for name, value in fields.items():
            header.ClearField(name)
            if isinstance(value, list):
                getattr(header, name).extend(value)
            else:
                setattr(header, name, value)

    return change


RULES: list[tuple[Change, type[WireError], str]] = [
    (put(kind=0), FormatError, "kind: 0 is neither"),
    (put(kind=3), FormatError, "kind: 3 is neither"),
    (put(base=b""), FormatError, "base: 0 bytes"),
    (put(base=bytes(15)), FormatError, "base: 15 bytes"),
    (put(kind=2, base=bytes(17)), FormatError, "base: 17 bytes"),
    (put(result=bytes(1)), FormatError, "result: 1 bytes"),
    (put(manifest_digest=bytes(8)), ManifestError, "manifest_digest: made for a model with other"),
    (clear("manifest_digest"), ManifestError, "manifest_digest"),
    (lambda h: h.length.append(0), LimitError, "length: 5 frames for 4 tensors"),
    (put(length=[2**63, 1, 1, 1]), TruncatedError, "header: needs 9223372036854775808 bytes"),
    (lambda h: put(length=[h.length[0] + 1, *h.length[1:]])(h), TruncatedError, "header: needs"),
    (lambda h: put(length=[*h.length[:3], h.length[3] - 1])(h), FormatError, "1 bytes beyond"),
    (put(tensor=[0, 1, 2]), FormatError, "tensor: 3 indices for 4 frames"),
    (put(tensor=[0, 1, 3, 2]), FormatError, "tensor: indices are not increasing"),
    (put(tensor=[0, 1, 1, 2]), FormatError, "tensor: indices are not increasing"),
    (put(tensor=[0, 1, 2, 4]), FormatError, "tensor: .* beyond the manifest"),
    (put(tensor=[0, 1, 2, 2**32 - 1]), FormatError, "tensor: .* beyond the manifest"),
    (lambda h: h.recipe.extend([b"\x01\x01\x02\x01"] * 3), LimitError, "recipe: 5 codecs for 4"),
    (put(recipe=[]), FormatError, "codec: does not name one listed codec"),
    (put(recipe=[b"\x4d", b"\x4d"]), FormatError, "recipe: unknown codec tag 77"),
    (put(recipe=[bytes(MAX_RECIPE_BYTES + 1)]), LimitError, "recipe: longer than 256 bytes"),
    (put(codec=[0, 0, 1]), FormatError, "codec: does not name"),
    (put(codec=[0, 0, 1, 2]), FormatError, "codec: does not name"),
    (clear("codec"), WireError, "a lossy codec for a tensor of int64|frame"),
]


@pytest.mark.parametrize(("change", "error", "message"), RULES)
def test_rules_of_the_header(change: Change, error: type[WireError], message: str) -> None:
    header, bodies = opened(update_of("int8"))
    change(header)
    with pytest.raises(error, match=message):
        receive(sealed(header, bodies))


def test_a_header_that_is_no_protobuf() -> None:
    with pytest.raises(FormatError, match="header: not a protobuf message"):
        unpack(sealed(b"\xff\xff\xff"), MANIFEST)
    deep = b"\x0b" * 200 + b"\x0c" * 200  # groups within groups
    with pytest.raises(FormatError, match="header: not a protobuf message"):
        unpack(sealed(deep), MANIFEST)
    with pytest.raises(TruncatedError, match="header"):
        unpack(seal(b"\x50"), MANIFEST)
    with pytest.raises(TruncatedError, match="header"):
        unpack(seal(b""), MANIFEST)
    with pytest.raises(FormatError, match="padded with zeros"):
        unpack(seal(b"\x80\x00"), MANIFEST)


def test_fields_of_a_later_version_are_skipped() -> None:
    header, bodies = opened(update_of("int8"))
    receive(sealed(header.SerializeToString() + b"\xa2\x06\x03abc", bodies))


def test_a_receiver_without_a_model_needs_a_manifest() -> None:
    with pytest.raises(ManifestError, match="manifest: missing from an update for a receiver"):
        unpack(pack(update_of("none")), None)
    receive(pack(update_of("none", with_manifest=True)), None)
    receive(pack(update_of("none", with_manifest=True)), MANIFEST)


def test_another_manifest() -> None:
    other = Manifest((*MANIFEST.specs[:3], TensorSpec("other", (2, 9), "float16")))
    with pytest.raises(ManifestError, match="made for a model with other tensors"):
        unpack(pack(update_of("none")), other)
    two_faced = replace(update_of("none"), manifest=other)
    with pytest.raises(ManifestError, match="made for a model with other tensors"):
        unpack(pack(two_faced), MANIFEST)
    shorter = replace(update_of("none"), manifest=Manifest(MANIFEST.specs[:3]))
    with pytest.raises(ManifestError, match="has not the 4 tensors of the model"):
        unpack(pack(shorter), MANIFEST)


@pytest.mark.parametrize(
    ("specs", "error", "message"),
    [
        ([("a", (2,), len(DTYPES))], FormatError, r"manifest\['a'\].dtype: unknown dtype 13"),
        ([("a", (2,), 0), ("a", (3,), 0)], FormatError, "manifest: two tensors .* same name"),
        ([("a", (1,) * 17, 0)], LimitError, r"manifest\['a'\].shape: more than 16 dimensions"),
        ([("a", (2**63,), 0)], LimitError, "shape: more than 8589934592 elements"),
        ([("a", (2**64 - 1, 0), 0)], LimitError, "shape: more than 8589934592 elements"),
        ([("a", (2**32,), 0), ("b", (2**33,), 0)], LimitError, "12884901888 elements"),
    ],
)
def test_manifests_over_the_wire(
    specs: list[tuple[str, tuple[int, ...], int]], error: type[WireError], message: str
) -> None:
    header = pb.UpdateHeader(kind=pb.UpdateHeader.MODEL, manifest_digest=bytes(8))
    for name, shape, dtype in specs:
        header.manifest.tensor.add(name=name, shape=shape, dtype=dtype)
    with pytest.raises(error, match=message), no_more_than(1 << 20):
        unpack(sealed(header), None)


def test_too_many_tensors() -> None:
    header = pb.UpdateHeader(kind=pb.UpdateHeader.MODEL)
    for _ in range(101):
        header.manifest.tensor.add()
    with pytest.raises(LimitError, match="manifest: 101 tensors"):
        unpack(sealed(header), None, Limits(max_tensors=100))


def test_non_finite_values_of_exact_tensors() -> None:
    for dtype in ("float16", "float32", "float64"):
        for bad in (np.nan, np.inf, -np.inf):
            manifest = Manifest((TensorSpec("w", (3,), dtype),))
            body = np.array([1, bad, 2], dtype).tobytes()
            frame = Frame(0, Pipeline([Exact()], "raw"), body)
            update = Update(Kind.MODEL, 1, 1, 0, 1, manifest.digest, [frame])
            with pytest.raises(NonFiniteError, match=r"frame\['w'\]"):
                receive(pack(update), manifest)


# --- bombs ------------------------------------------------------------------------------------

MODEL = Manifest(tuple(TensorSpec(f"layer{i}.weight", (250, 100)) for i in range(4)))
ROOM = 2 * MODEL.nbytes + (1 << 20)


def test_headers_longer_than_a_model_can_need() -> None:
    limits = Limits()
    most = limits.header_bytes + limits.header_bytes_per_tensor * len(MODEL)
    with no_more_than(ROOM), pytest.raises(LimitError, match=f"header: {most + 1} bytes"):
        unpack(sealed(bytes(most + 1)), MODEL)
    with pytest.raises(LimitError, match="header"):
        unpack(sealed(bytes(100)), None, Limits(max_tensors=1, header_bytes=10,
                                                header_bytes_per_tensor=89))  # fmt: skip


def _padded(tag: bytes, one: bytes, header: pb.UpdateHeader) -> bytes:
    """Return ``header`` with as many packed or repeated values as the limits admit."""
    start: bytes = header.SerializeToString()
    n = (Limits().header_bytes + Limits().header_bytes_per_tensor * len(MODEL) - len(start)) - 6
    if tag == b"":
        return start + one * (n // len(one))
    out = Writer()
    out.raw(start + tag)
    out.blob(one * (n // len(one)))
    return out.getvalue()


@pytest.mark.parametrize(
    ("tag", "one"),
    [
        (b"\x6a", b"\0"),  # lengths
        (b"\x6a", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (b"\x52", b"\0"),  # indices
        (b"\x62", b"\0"),  # codecs
        (b"", b"\x5a\x00"),  # empty recipes
        (b"\x4a", b"\x0a\x00"),  # tensors of a manifest
        (b"", b"\x4a\x02\x0a\x00"),  # manifests, to be merged
        (b"\x4a", b"\x0a\x06\x12\x04\x01\x01\x01\x01"),
        (b"", b"\xa2\x06\x00"),  # fields that nobody knows
    ],
)
def test_counts_that_do_not_fit_the_model(tag: bytes, one: bytes) -> None:
    header = pb.UpdateHeader(
        kind=pb.UpdateHeader.MODEL, manifest_digest=MODEL.digest, recipe=[b"\x01\x01\x02\x01"]
    )
    blob = sealed(_padded(tag, one, header))
    with no_more_than(ROOM):
        if one == b"\xa2\x06\x00":
            assert not unpack(blob, MODEL).frames
        else:
            with pytest.raises(WireError):
                unpack(blob, MODEL)


@pytest.mark.parametrize("one", [r"\x0a\x00", r"\x5a\x00", r"\x6a\x01\x00"])
def test_parsing_takes_at_most_32_times_the_header(one: str) -> None:
    """Empty submessages, empty strings and lists: memory that Python's allocator does not see."""
    code = f"""
from flowerpress.protos import update_pb2 as pb
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
data = b"{one}" * (1 << 20)
kind = pb.Manifest if b"{one}" == b"\\x0a\\x00" else pb.UpdateHeader
before = peak()
message = kind.FromString(data)
assert peak() - before < 32 * len(data), (peak() - before) / len(data)
"""
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    subprocess.run([sys.executable, "-c", code], check=True)


def _alone(codec: Pipeline | bytes, body: bytes, manifest: Manifest = MODEL) -> bytes:
    recipe = codec if isinstance(codec, bytes) else b""
    header = pb.UpdateHeader(
        kind=pb.UpdateHeader.MODEL,
        manifest_digest=manifest.digest,
        recipe=[recipe],
        length=[len(body)],
    )
    return sealed(header, body)


def _topk_all(values: bytes) -> bytes:
    """All positions are kept (an empty list says so); then their values."""
    out = Writer()
    out.varint(25_000)
    out.blob(b"")
    return out.getvalue() + values


BOMBS = {
    # A bucket of 2**31 - 1 for a tensor of 25,000.
    "qsgd bucket": (b"\x01\x01\x07\x01\xff\xff\xff\xff\x07\x04", bytes(4) + b"\x00\x00"),
    # One symbol, 25,000 times: constant rANS; the same as positions, all of them kept.
    "constant": (b"\x01\x01\x02\x04", b"\x00\x00"),
    "all positions": (b"\x01\x02\x04\x02\x04", _topk_all(b"\x00\x00")),
    # Zstandard that declares 2**62 bytes in a few.
    "zstd": (b"\x01\x01\x02\x03", b"\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"),
    "golomb": (b"\x01\x01\x02\x06", b"\x80\x80\x04" + bytes(3125)),
    "many positions": (b"\x01\x02\x04\x06\x02", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bodies_that_want_memory(name: str) -> None:
    """Decoding one frame takes a fixed multiple of its tensor, whatever the body says."""
    codec, body = BOMBS[name]
    blob = _alone(codec, body)
    first = MODEL.specs[0]
    with no_more_than(8 * first.nbytes + (1 << 20)):
        try:
            update = unpack(blob, MODEL)
            for _, decoded in decode_frames(MODEL, update.frames):
                field = None if decoded.is_finite() else "not finite"
        except WireError as error:
            field = error.field
    assert field is None or first.name in field


@pytest.mark.parametrize("density", [1.0, 0.9, 0.1])
@pytest.mark.parametrize("mode", ["address", "golomb", "rans", "bitmap"])
def test_the_largest_lists_of_positions(mode: str, density: float) -> None:
    spec = TensorSpec("w", (500_000,))
    x = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    codec = Pipeline([TopK(density, mode), Half()], "rans")
    body = memoryview(codec.encode(x, spec, Context()))
    codec.decode(body, spec)  # compiles
    with no_more_than(6 * spec.nbytes):
        codec.decode(body, spec)


def test_a_flood_of_frames_shares_one_view_of_the_bytes() -> None:
    manifest = Manifest(tuple(TensorSpec(f"t{i}", (1000,)) for i in range(200)))
    arrays = {spec.name: np.ones(spec.shape, np.float32) for spec in manifest.specs}
    frames, _ = encode_frames(manifest, preset("none").plan(manifest), arrays, None)
    blob = pack(Update(Kind.MODEL, 1, 1, 0, 1, manifest.digest, frames))
    with no_more_than(300_000):
        update = unpack(blob, manifest)
    assert all(frame.body.obj is blob for frame in update.frames)  # type: ignore[union-attr]


# --- deliveries -------------------------------------------------------------------------------


def test_deliveries() -> None:
    parts = [b"", b"one", b"x" * 300]
    blob = join_updates(parts)
    assert [bytes(part) for part in split_updates(blob)] == parts
    assert split_updates(join_updates([])) == []
    for size in range(len(blob)):
        with pytest.raises(TruncatedError, match="delivery"):
            split_updates(blob[:size])
    with pytest.raises(FormatError, match="delivery: 1 bytes left over"):
        split_updates(blob + b"\0")
    out = Writer()
    out.varint(MAX_UPDATES + 1)
    with pytest.raises(LimitError, match="4097 updates, at most 4096"):
        split_updates(out.getvalue())
    huge = Writer()
    huge.varint(1)
    huge.varint(2**63 - 1)
    with pytest.raises(TruncatedError), no_more_than(1 << 16):
        split_updates(huge.getvalue())


def test_half_precision_stage_is_what_the_bombs_name() -> None:
    """The recipes above are spelled in bytes; this one must mean what they assume."""
    from flowerpress.compression import CODECS, read_recipe

    for codec, text in (
        (b"\x01\x01\x02\x04", "fp16 > rans"),
        (BOMBS["qsgd bucket"][0], "qsgd 1 levels, buckets of 2147483647 > rans"),
        (BOMBS["all positions"][0], "top-k > fp16 > rans"),
        (BOMBS["many positions"][0], "top-k > ternary > pack"),
    ):
        assert read_recipe(memoryview(codec), CODECS).describe() == text
    assert isinstance(Half(), Half)
