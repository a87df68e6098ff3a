"""A decoder by somebody who has only read docs/wire-format.md: plain, slow, and trusting.

It uses NumPy for float formats, protobuf-free header parsing, and no code of flowerpress.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import math
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

DTYPES = [
    *("float32", "float16", "float64", "int8", "int16", "int32"),
    *("int64", "uint8", "uint16", "uint32", "uint64", "bool", "bfloat16"),
]
NF4 = [
    *(-1.0, -0.6961928, -0.52507293, -0.39491743, -0.28444132, -0.1847734, -0.09104998, 0.0),
    *(0.079580314, 0.16093014, 0.24611226, 0.33791512, 0.44070974, 0.5626169, 0.72295666, 1.0),
]
Spec = tuple[str, tuple[int, ...], str]
KEPT = (0, 1, 2, 3, 4, 6, 8, 11)
CENTROIDS = (
    (0.797884561,),
    (0.452780035, 1.510417608),
    (0.245094179, 0.756005281, 1.343909279, 2.151945705),
    (
        *(0.128395030, 0.388048299, 0.656759119, 0.942340456),
        *(1.256231197, 1.618046386, 2.069017227, 2.732589571),
    ),
)


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        assert self.at + n <= len(self.data)
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def blob(self) -> bytes:
        return self.take(self.varint())

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def f32(self, n: int) -> NDArray[np.float32]:
        return np.frombuffer(self.take(4 * n), "<f4")


class Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.at = int.from_bytes(data, "little"), 0

    def get(self, n: int) -> int:
        self.at += n
        return self.value >> (self.at - n) & ((1 << n) - 1)

    def unary(self) -> int:
        n = 0
        while self.get(1):
            n += 1
        return n

    def gamma(self) -> int:
        m = self.unary()
        return (1 << m) + self.get(m) - 1

    def whole_bytes(self) -> int:
        return (self.at + 7) // 8


def width(alphabet: int) -> int:
    return (alphabet - 1).bit_length()


# --- envelope ---------------------------------------------------------------------------------


def fields(data: bytes) -> dict[int, list[Any]]:
    """Protobuf, as far as the header needs it."""
    source, found = Bytes(data), dict[int, list[Any]]()
    while source.at < len(data):
        number, kind = divmod(source.varint(), 8)
        match kind:
            case 0:
                value: Any = source.varint()
            case 1:
                value = int.from_bytes(source.take(8), "little")
            case _:
                assert kind == 2
                value = source.blob()
        found.setdefault(number, []).append(value)
    return found


def packed(values: list[Any]) -> list[int]:
    out = []
    for value in values:
        source = Bytes(value)
        while source.at < len(value):
            out.append(source.varint())
    return out


def manifest_digest(specs: list[Spec]) -> bytes:
    h = hashlib.sha256(b"fp-manifest")
    for name, shape, dtype in specs:
        text = name.encode()
        h.update(len(text).to_bytes(4, "little") + text + bytes([DTYPES.index(dtype), len(shape)]))
        h.update(b"".join(extent.to_bytes(8, "little") for extent in shape))
    return h.digest()[:8]


def decode(
    blob: bytes,
    specs: list[Spec] | None,
    references: dict[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the values of every frame by tensor name."""
    source = Bytes(blob)
    assert source.take(4) == b"FPU1"
    checksum = source.take(8)
    rest = blob[12:]
    assert hashlib.sha256(b"FPU1" + rest).digest()[:8] == checksum
    header = fields(source.blob())
    if specs is None:
        specs = []
        for entry in fields(header[9][0]).get(1, []):
            spec = fields(entry)
            dtype = DTYPES[spec.get(3, [0])[0]]
            specs.append((spec[1][0].decode(), tuple(packed(spec.get(2, []))), dtype))
    assert header[8] == [manifest_digest(specs)]
    lengths = packed(header[13])
    tensors = packed(header.get(10, [])) or range(len(lengths))
    choices = packed(header.get(12, [])) or [0] * len(lengths)
    out = {}
    for tensor, choice, length in zip(tensors, choices, lengths, strict=True):
        name, shape, dtype = specs[tensor]
        body, known = Bytes(source.take(length)), (references or {}).get(name)
        flat = frame(body, header[11][choice], shape, dtype, known)
        own = nearest_bfloat16(flat) if dtype == "bfloat16" else flat.astype(dtype)
        out[name] = own.reshape(shape)
    assert source.rest() == b""
    return out


def nearest_bfloat16(values: NDArray[Any]) -> NDArray[np.float32]:
    bits = values.astype("<f4").view("<u4").astype(np.int64)
    below, rest = bits >> 16, bits & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (below & 1 == 1))
    return np.asarray((below + up) << 16).astype("<u4").view(np.float32)


# --- frames -----------------------------------------------------------------------------------


def frame(
    body: Bytes,
    text: bytes,
    shape: tuple[int, ...],
    dtype: str,
    reference: NDArray[Any] | None = None,
) -> NDArray[Any]:
    recipe = Bytes(text)
    codec = recipe.varint()
    if codec == 2:
        step = recipe.f32(1)[0]
        assert recipe.rest() == b""
        return rate_distortion(body, step, shape, reference)
    if codec in (3, 4):
        form = recipe.varint(), recipe.take(1)[0], recipe.varint()
        out = np.zeros(shape, np.float32)
        if codec == 4:
            out = pipeline(Bytes(body.blob()), recipe, shape, "float32")
        assert recipe.rest() == b""
        return factors(body, form, out.reshape(shape[0], -1))
    if codec == 5:
        return groups_of_rows(body, recipe, shape, dtype, reference)
    assert codec == 1
    out = pipeline(body, recipe, shape, dtype)
    assert recipe.rest() == b""
    return out


def groups_of_rows(
    body: Bytes,
    recipe: Bytes,
    shape: tuple[int, ...],
    dtype: str,
    reference: NDArray[Any] | None,
) -> NDArray[Any]:
    count = recipe.varint()
    names: list[bytes] = []
    for _ in range(count):
        names.append(recipe.blob() or names[-1])
    assert recipe.rest() == b""
    whole = shape or (1,)
    known = None if reference is None else reference.reshape(whole)
    out, start = [], 0
    for i, name in enumerate(names):
        stop = start + whole[0] // count + (i < whole[0] % count)
        own = Bytes(body.blob() if i + 1 < count else body.rest())
        rows = None if known is None else known[start:stop]
        out.append(frame(own, name, (stop - start, *whole[1:]), dtype, rows))
        assert own.rest() == b""
        start = stop
    return np.concatenate(out)


def pipeline(body: Bytes, recipe: Bytes, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    (stages,) = recipe.take(1)
    size = count = math.prod(shape)
    alphabet, undo = 0, []
    for _ in range(stages):
        count, alphabet, restore = stage(recipe, body, count, shape, dtype)
        undo.append(restore)
    values: NDArray[Any] = np.array(coded(recipe.varint(), body.rest(), count, alphabet), np.int64)
    for restore in reversed(undo):
        values = restore(values)
    assert values.size == size
    return values


def factors(body: Bytes, form: tuple[int, int, int], out: NDArray[Any]) -> NDArray[Any]:
    rank, half, coder = form
    rows, columns = out.shape
    k = min(rank, rows, columns)
    count = k * (rows + columns)
    if half:
        scales = body.f32(k)
        levels = np.array(coded(coder, body.rest(), count, 1 << 16), np.uint16)
        numbers = levels.astype("<u2").view("<f2").astype(np.float32)
    else:
        scales = np.ones(k, np.float32)
        octets = np.array(coded(coder, body.rest(), 4 * count, 256), np.uint8)
        numbers = np.frombuffer(octets.reshape(4, -1).T.tobytes(), "<f4")
    left = numbers[: rows * k].reshape(rows, k)
    right = numbers[rows * k :].reshape(k, columns) * scales[:, None]
    for j in range(k):
        out = out + left[:, j : j + 1] * right[j]
    return out.reshape(-1)


def stage(recipe: Bytes, body: Bytes, n: int, shape: tuple[int, ...], dtype: str) -> Any:
    match recipe.varint():
        case 1:
            planes = recipe.take(1) == b"\x01"
            stored = np.dtype("u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
            itemsize = stored.itemsize

            def exact(levels: NDArray[Any]) -> NDArray[Any]:
                octets = levels.astype(np.uint8)
                octets = octets.reshape(itemsize, -1).T if planes else octets
                own = np.frombuffer(octets.tobytes(), stored)
                return (own.astype("<u4") << 16).view("<f4") if dtype == "bfloat16" else own

            return n * itemsize, 256, exact
        case 2:
            return n, 1 << 16, lambda v: v.astype("<u2").view("<f2").astype(np.float32)
        case 3:
            one = len(shape) < 2 or n < 4 * shape[0] or n == 0
            scales = body.f32(1 if one else shape[0])
            each = np.repeat(scales, n // scales.size)
            return n, 255, lambda v: (v - 127).astype(np.float32) * each
        case 4:
            k = body.varint()
            where = positions(body.blob(), k, n)

            def select(values: NDArray[Any]) -> NDArray[Any]:
                out = np.zeros(n, np.float32)
                out[where] = values
                return out

            return k, 0, select
        case 5:
            return n, 0, lambda v: v
        case 6:
            magnitude = body.f32(1)[0]
            return n, 2, lambda v: np.where(v == 1, -magnitude, magnitude).astype(np.float32)
        case 7:
            s, b = recipe.varint(), recipe.varint()
            steps = body.f32(-(-n // b))
            step = steps[np.arange(n) // b]
            return n, 2 * s + 1, lambda v: (v - s).astype(np.float32) * step
        case 9:
            return n, 1 << 16, lambda v: (v.astype("<u4") << 16).view("<f4")
        case 10:
            e5m2 = recipe.take(1) == b"\x01"
            each = shared_scales(recipe.varint(), body, n, shape)
            numbers = np.array([float8(p, 2 if e5m2 else 3) for p in range(256)], np.float32)
            return n, 256, lambda v: numbers[v] * each
        case 11:
            (bits,) = recipe.take(1)
            each = shared_scales(recipe.varint(), body, n, shape)
            middle = 2 ** (bits - 1) - 1
            return n, 2 * middle + 1, lambda v: (v - middle).astype(np.float32) * each
        case 12:
            each = shared_scales(recipe.varint(), body, n, shape)
            return n, 16, lambda v: np.array(NF4, np.float32)[v] * each
        case 13:
            return n, 1 << 32, lambda v: v.astype("<u4").view("<f4")
        case 14:
            k = body.varint()
            drawn = random_positions(int.from_bytes(body.take(8), "little"), k, n)

            def scatter(values: NDArray[Any]) -> NDArray[Any]:
                out = np.zeros(n, np.float32)
                out[drawn] = values
                return out

            return k, 0, scatter
        case 15:
            rows = (shape[0] if shape else 1) if n else 0
            k = body.varint()
            kept = positions(body.blob(), k, rows)

            def fill(values: NDArray[Any]) -> NDArray[Any]:
                out = np.zeros((rows, n // rows if rows else 0), np.float32)
                out[kept] = values.reshape(k, -1) if k else out[kept]
                return out.reshape(-1)

            return k * (n // rows if rows else 0), 0, fill
        case 30:
            flags, m = recipe.take(2)
            return rotation(body, n, flags, m, recipe.varint())
        case 31:
            size = recipe.take(1)[0] + 1
            group = recipe.varint()
            tables = body.f32(-(-n // group) * size).reshape(-1, size)
            return n, size, lambda v: tables[np.arange(n) // group, v]
        case 50:
            step, most = body.f32(1)[0], body.take(1)[0]
            return n, 2 * most + 1, lambda v: (v - most).astype(np.float32) * step
        case tag:
            assert tag == 8
            centroids = body.f32(body.take(1)[0] + 1)
            return n, centroids.size, lambda v: centroids[v]


def shared_scales(group: int, body: Bytes, n: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The scale of each value."""
    one = len(shape) < 2 or n < 4 * shape[0] or n == 0
    length = group if group > 1 else n if group == 0 or one else n // shape[0]
    groups = -(-n // length) if n else 0
    if group < 2:
        found = body.f32(groups)
    else:
        patterns = np.array(coded(4, body.blob(), groups, 1 << 15), "<u4")
        found = (patterns << 16).view("<f4")
    return found[np.arange(n) // max(length, 1)]


def float8(pattern: int, mantissa: int) -> float:
    exponent, fraction = divmod(pattern & 127, 1 << mantissa)
    bias = 15 if mantissa == 2 else 7
    value = (fraction / (1 << mantissa) + (exponent > 0)) * 2.0 ** (max(exponent, 1) - bias)
    return -value if pattern & 128 else value


def random_positions(seed: int, k: int, n: int) -> list[int]:
    out: list[int] = []
    for i in range(n):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        z ^= z >> 31
        if (z >> 32) * (n - i) >> 32 < k - len(out):
            out.append(i)
    return out


def rotation(body: Bytes, n: int, flags: int, m: int, share: int) -> Any:
    bits, rounds = (flags & 3) + 1, (flags >> 2 & 1) + 1
    chunks, left = [1 << m] * (n >> m), n & ((1 << m) - 1)
    while left > 0:
        chunks.append(max(64, 1 << (left.bit_length() - 1)))
        left -= chunks[-1]
    sent = [-(-d * share // 4096) for d in chunks]
    seed = int.from_bytes(body.take(8 if n else 0), "little")
    scales = body.f32(len(chunks))
    positive = np.array(CENTROIDS[bits - 1], np.float32)
    table = np.concatenate([-positive[::-1], positive])

    def restore(levels: NDArray[Any]) -> NDArray[Any]:
        out, done, start = [np.zeros(0, np.float32)], 0, 0
        for d, k, scale in zip(chunks, sent, scales, strict=True):
            y = np.zeros(d, np.float32)
            y[:k] = table[levels[done : done + k]]
            for t in reversed(range(rounds)):
                h = 1
                while h < d:
                    pairs = y.reshape(-1, 2, h)
                    y = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1)
                    y, h = y.reshape(-1), 2 * h
                words = [number(seed, 2 * w + t) for w in range(start // 64, (start + d) // 64)]
                flips = np.array([word >> b & 1 for word in words for b in range(64)])
                y = np.where(flips, -y, y)
            power = np.float32(2.0 ** -(rounds * (d.bit_length() - 1) // 2))
            out.append(y * power * scale)
            done, start = done + k, start + d
        return np.concatenate(out)[:n]

    return sum(sent), 1 << bits, restore


def number(seed: int, k: int) -> int:
    whole = (1 << 64) - 1
    z = seed + (k + 1) * 0x9E3779B97F4A7C15 & whole
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & whole
    z = (z ^ z >> 27) * 0x94D049BB133111EB & whole
    return z ^ z >> 31


def positions(body: bytes, k: int, n: int) -> list[int]:
    if k in (0, n):
        assert body == b""
        return list(range(k))
    mode, body = body[0], body[1:]
    if mode == 0:
        return coded(2, body, k, n)
    if mode in (1, 2):
        gaps = coded(6 if mode == 1 else 4, body, k, n - k + 1)
        return [int(p) for p in np.cumsum(np.array(gaps) + 1) - 1]
    octets = (n + 7) // 8
    if mode == 4:
        body = bytes(coded(4, body, octets, 256))
    elif mode == 5:
        halves = coded(4, body, 2 * octets, 16)
        body = bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))
    where = [i for i in range(n) if body[i // 8] >> i % 8 & 1]
    assert len(where) == k
    return where


# --- rate-distortion bodies -------------------------------------------------------------------

Grid = list[list[int]]
NEXT = (0, 2, 5, 7, 1, 3, 4, 6, 2, 0, 7, 5, 3, 1, 6, 4)
SINGLE = np.float32
NO_ROWS = np.zeros((0, 0), np.float32)


def rate_distortion(
    body: Bytes, step: np.float32, shape: tuple[int, ...], reference: NDArray[Any] | None
) -> NDArray[Any]:
    if not body.data:
        return np.zeros(math.prod(shape), np.float32)
    kind, coding = body.take(2)
    view = kind & 3
    if kind & 64:
        step = body.f32(1)[0]
    digest = body.take(4) if kind & 128 else None
    all_rows, all_columns = view_shape(shape, view)
    rows, columns = list(range(all_rows)), list(range(all_columns))
    if kind & 16:
        k = body.varint()
        rows = positions(body.blob(), k, all_rows)
    if kind & 32:
        k = body.varint()
        columns = positions(body.blob(), k, all_columns)
    m, n = len(rows), len(columns)
    exponents: list[int] = []
    if kind & 4:
        rank = body.varint()
        exponents = [body.take(1)[0]]
        halves = [half for pair in body.take(rank // 2) for half in (pair & 15, pair >> 4)]
        for half in halves[: rank - 1]:
            exponents.append(exponents[-1] - half)
    shifts = [0] * 4
    if kind & 8:
        halves = [half for pair in body.take(2) for half in (pair & 15, pair >> 4)]
        shifts = [half - 16 if half > 7 else half for half in halves]

    left_basis, right_basis = NO_ROWS, NO_ROWS
    if digest is not None:
        assert reference is not None
        known = reference.astype("<f4")
        assert hashlib.sha256(known.tobytes()).digest()[:4] == digest
        x = as_matrix(known, view)[rows][:, columns]
        left_basis, right_basis = bases(x)
    r = len(exponents)
    sizes: dict[str, tuple[int, int]] = {}
    if coding & 16:
        sizes["left coordinates"] = r, len(left_basis)
    if r:
        sizes["left"] = r, m
    if coding & 32:
        sizes["right coordinates"] = r, len(right_basis)
    if r:
        sizes["right"] = r, n
    if kind & 8:
        sizes["rest"] = m, n
    low = body.take(len(sizes)) if coding & 8 else bytes(len(sizes))
    steps = Steps(body, coding & 3)
    of_factors, of_rest = Contexts(12, True), Contexts(8, bool(coding & 4))
    planes = {}
    for (name, size), bits in zip(sizes.items(), low, strict=True):
        model = of_rest if name == "rest" else of_factors
        planes[name] = plane_of(steps, model, bits, *size)
    steps.finish()

    out = np.zeros((m, n), np.float32)
    if r:
        left = factor(planes["left"], planes.get("left coordinates"), left_basis)
        right = factor(planes["right"], planes.get("right coordinates"), right_basis)
        for v, e in enumerate(exponents):
            scale = SINGLE(2.0 ** (-(e % 4) / 4)) * SINGLE(2.0 ** (1 - e // 4))
            out = out + (left[v] * scale)[:, None] * right[v]
    if "rest" in planes:
        points = np.array(planes["rest"])
        beyond = np.zeros(points.shape, np.float32)
        for p, d in enumerate(shifts, 1):
            beyond[np.abs(points) == p] = d / 32
        out = out + (points.astype(np.float32) * SINGLE(0.5) + np.sign(points) * beyond).astype(
            "f4"
        )
    whole = np.zeros((all_rows, all_columns), np.float32)
    whole[np.ix_(rows, columns)] = out * step
    return undone(whole, shape, view)


def view_shape(shape: tuple[int, ...], view: int) -> tuple[int, int]:
    if view > 1:
        return math.prod(shape) // shape[1], shape[1]
    size = math.prod(shape)
    if len(shape) > 1:
        flat = shape[0], size // shape[0]
    else:
        rows = 1
        if size >= 16384:
            rows = next(rows for rows in (64, 32, 16, 8, 4, 2, 1) if size % rows == 0)
        flat = rows, size // rows
    return flat if view == 0 else (flat[1], flat[0])


def cosine(extent: int) -> NDArray[np.float32]:
    out = np.zeros((extent, extent), np.float32)
    for f in range(extent):
        for p in range(extent):
            weight = math.sqrt(2 / extent) * math.cos(math.pi * (2 * p + 1) * f / (2 * extent))
            out[f, p] = round((weight / math.sqrt(2) if f == 0 else weight) * 2**20) / 2**20
    return out


def along(x: NDArray[Any], axis: int, weights: NDArray[Any]) -> NDArray[Any]:
    """Sum over the axis: new[.., a, ..] = sum of weights[a][b] old[.., b, ..]."""
    x = np.moveaxis(x, axis, 0)
    out = []
    for row in weights:
        total = row[0] * x[0]
        for b in range(1, len(row)):
            total = total + row[b] * x[b]
        out.append(total)
    return np.moveaxis(np.stack(out), 0, axis)


def as_matrix(x: NDArray[Any], view: int) -> NDArray[Any]:
    rows, columns = view_shape(x.shape, view)
    if view < 2:
        return x.reshape(rows, columns) if view == 0 else x.reshape(columns, rows).T
    places = x.transpose(*range(2, x.ndim), 0, 1)
    for axis, extent in enumerate(x.shape[2:]):
        if view == 3 and extent > 1:
            places = along(places, axis, cosine(extent))
    return places.reshape(rows, columns)


def undone(values: NDArray[Any], shape: tuple[int, ...], view: int) -> NDArray[Any]:
    if view < 2:
        return (values if view == 0 else values.T).reshape(-1)
    places = values.reshape(*shape[2:], *shape[:2])
    for axis, extent in enumerate(shape[2:]):
        if view == 3 and extent > 1:
            places = along(places, axis, cosine(extent).T)
    return np.moveaxis(places, (-2, -1), (0, 1)).reshape(-1)


def averages() -> list[int]:
    """V: the averages of all bytes, exactly."""
    out = [0]
    for s in range(238):
        # The largest integer v with v**20 <= 2**(s + 480).
        low, high = 1 << 24 + s // 20, 1 << 25 + s // 20
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**20 <= 1 << (s + 480) else (low, middle)
        out.append(low)
    return out


AVERAGES = averages()
MIDDLES = [(a + b) // 2 for a, b in itertools.pairwise(AVERAGES)]


@functools.cache
def follow(t: int, s: int, h: int) -> int:
    v = AVERAGES[s] + ((512 * h * 2**24 - AVERAGES[s]) >> (t + 1))
    return sum(middle <= v for middle in MIDDLES)


@functools.cache
def scale_of(weight: int, a: int, b: int) -> int:
    above, left = (AVERAGES[min(4 * (x >> 2) + 2, 238) if x >> 2 else 1] for x in (a, b))
    both = (weight * left + (16 - weight) * above) >> 4
    return (logarithm(above) + logarithm(left) + 2 * logarithm(both) + 2) >> 2


def logarithm(v: int) -> int:
    return ((v >> 24) ** 2).bit_length()


def first_counts(scale: int, u: int) -> list[int]:
    mu = 1 << 19
    if scale:
        w, x = divmod(2 * scale - 1, 4)
        mu = math.isqrt(math.isqrt(1 << (x + 160))) * 2 ** (21 + w) // 2**40
    one = 1 << 30
    t = (math.isqrt(one * one + mu * mu) - one) * one // mu
    p = (one - t) * one // (one + t)
    out = [max(1, 320 * p // one)]
    for _ in range(7):
        p = p * t // one
        g = p * (0, 2, 5)[u] // 16
        out += [max(1, 320 * (p + g) // one), max(1, 320 * (p - g) // one)]
    last = (2 * p * t // one) * one // (one - t)
    return [*out, max(1, 320 * last // one)]


class Contexts:
    def __init__(self, weight: int, signs: bool) -> None:
        self.weight, self.signs, self.seen, self.due = weight, signs, 0, 64
        keys = itertools.product(range(2), range(25), range(3))
        self.counts = {key: first_counts(*key[1:]) for key in keys}
        self.frequencies: dict[tuple[int, int, int], list[int]] = {}
        self.fresh = set(self.counts)
        self.refresh()

    def refresh(self) -> None:
        for key in self.fresh:
            counts = self.counts[key]
            if sum(counts) > 1 << 17:
                counts[:] = [(count + 1) // 2 for count in counts]
            total = sum(counts)
            f = [1 + 32752 * count // total for count in counts]
            f[counts.index(max(counts))] += 32768 - sum(f)
            self.frequencies[key] = f
        self.fresh.clear()


class Steps:
    """The interleaved coder, one step at a time."""

    def __init__(self, body: Bytes, lanes: int) -> None:
        if lanes:
            self.states = [int.from_bytes(body.take(6), "little") for _ in range(1 << lanes)]
        else:
            self.states = [body.varint()]
        self.words = np.frombuffer(body.rest(), "<u2").tolist()
        self.word = self.step = 0

    def advance(self, start: int, frequency: int) -> None:
        lane = self.step % len(self.states)
        x = frequency * (self.states[lane] >> 15) + self.states[lane] % 32768 - start
        if x < 1 << 32 and self.word < len(self.words):
            x = 65536 * x + self.words[self.word]
            self.word += 1
        self.states[lane] = x
        self.step += 1

    def slot(self) -> int:
        return self.states[self.step % len(self.states)] % 32768

    def symbol(self, frequencies: list[int]) -> int:
        slot, start, y = self.slot(), 0, 0
        while slot >= start + frequencies[y]:
            start += frequencies[y]
            y += 1
        self.advance(start, frequencies[y])
        return y

    def plain(self, bits: int) -> int:
        value = 0
        while bits:
            c = min(bits, 15)
            part = self.slot() >> (15 - c)
            self.advance(part << (15 - c), 1 << (15 - c))
            value, bits = value << c | part, bits - c
        return value

    def finish(self) -> None:
        assert self.word == len(self.words)
        assert set(self.states) == {0 if len(self.states) == 1 else 1 << 32}


def plane_of(steps: Steps, model: Contexts, low: int, m: int, n: int) -> Grid:
    out = [[0] * n for _ in range(m)]
    above, leaning, left = [0] * n, [0] * n, [0] * 8
    for base in range(0, m, 8):
        band = min(8, m - base)
        state, tilt = [0] * band, [0] * band
        for t in range(n + band - 1):
            for r in range(band):
                i, j = base + r, t - r
                if not 0 <= j < n:
                    continue
                a, b, q = above[j], left[r], state[r] & 1
                u, expected = 0, 1
                if model.signs:
                    lean = leaning[j] + tilt[r]
                    u = 0 if abs(lean) <= 6 else 1 if abs(lean) <= 24 else 2
                    expected = -1 if lean < 0 else 1
                key = q, scale_of(model.weight, a if i else b, b), u
                y = steps.symbol(model.frequencies[key])
                model.counts[key][y] += 16
                model.fresh.add(key)
                h, sign = (y + 1) // 2, expected if y % 2 else -expected
                if y == 15:
                    e = steps.plain(3)
                    e += steps.plain(5) if e == 7 else 0
                    assert e <= 30
                    h = 7 + 2**e + steps.plain(e)
                tail = steps.plain(low)
                if y == 15 or (h == 0 and tail > 0):
                    sign = -1 if steps.plain(1) else 1
                k = h * 2**low + tail
                assert k < 1 << 30
                out[i][j] = sign * (2 * k - q) if k else 0
                state[r] = NEXT[2 * state[r] + k % 2]
                above[j] = follow(min(i, 3), a, min(h, 7))
                left[r] = follow(min(j, 3) if base == 0 else 3, b, min(h, 7))
                if model.signs and k:
                    leaning[j] += (64 * sign - leaning[j]) >> 3
                    tilt[r] += (64 * sign - tilt[r]) >> 3
                model.seen += 1
            if model.seen >= model.due:
                model.refresh()
                model.due = model.seen + min(model.seen, 32768)
    return out


def factor(points: Grid, coordinates: Grid | None, basis: NDArray[Any]) -> NDArray[Any]:
    own: NDArray[Any] = np.array(points).astype(np.float32) * SINGLE(0.5)
    if coordinates is None:
        return own
    half = np.array(coordinates).astype(np.float32) * SINGLE(0.5)
    out: NDArray[Any] = product(half, basis) + own
    return out


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros((len(a), b.shape[1]), np.float32)
    for v in range(len(b)):
        out = out + a[:, v : v + 1] * b[v]
    return out


def bases(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    m, n = x.shape
    k = min(16, m, n)
    assert k >= 2
    x = x / np.abs(x).max()
    signs = [[1 if number(0, m * a + i) >> 63 else -1 for i in range(m)] for a in range(k)]
    right = product(np.array(signs, np.float32), x)
    for _ in range(2):
        left = orthonormal(product(orthonormal(right), x.T))
        right = product(left, x)
    return left, orthonormal(right)


def orthonormal(rows: NDArray[Any]) -> NDArray[Any]:
    done: list[NDArray[Any]] = []
    for row in rows:
        y = row.astype(np.float64)
        before = inner(y, y)
        for _ in range(2):
            for u in done:
                y = y - inner(y, u.astype(np.float64)) * u.astype(np.float64)
        after = inner(y, y)
        enough = after > 1e-10 * before and after > 0
        done.append((y * (1 / math.sqrt(after) if enough else 0.0)).astype(np.float32))
    return np.stack(done)


def inner(a: NDArray[Any], b: NDArray[Any]) -> float:
    total = 0.0
    for product in (a * b).tolist():
        total += product
    return total


# --- coders -----------------------------------------------------------------------------------


def coded(tag: int, data: bytes, n: int, alphabet: int) -> list[int]:
    if n == 0 or alphabet == 1:
        assert data == b""
        return [0] * n
    octets = 1 if alphabet <= 256 else 2 if alphabet <= 1 << 16 else 4
    match tag:
        case 1:
            return [int(symbol) for symbol in np.frombuffer(data, f"<u{octets}")]
        case 2:
            bits = Bits(data)
            return [bits.get(width(alphabet)) for _ in range(n)]
        case 3:
            plain = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS)
            return coded(1, plain.decompress(data), n, alphabet)
        case 4:
            return rans(Bytes(data), n, alphabet)
        case 5:
            return huffman(Bytes(data), n, alphabet)
        case 6:
            return golomb(Bytes(data), n)
        case _:
            assert tag == 7
            return background(Bytes(data), n, alphabet)


def table(source: Bytes, tokens: int, kept: int) -> tuple[list[int], list[int]]:
    bits = Bits(source.data[source.at :])
    if bits.get(1):
        first, last = bits.get(width(tokens)), bits.get(width(tokens))
    else:
        first = bits.gamma()
        last = tokens - 1 - bits.gamma()
    levels, extras = [0] * tokens, [0] * tokens
    token, level, zeros = first, 0, 0
    while token <= last:
        if zeros == 2:
            token += bits.gamma()
            zeros = 0
        if token == first:
            level = bits.get(4)
        else:
            step = bits.unary()
            falls = step and level and bits.get(1)
            level += -step if falls else step
        levels[token] = level
        if level:
            extras[token] = bits.get(min(kept, level - 1))
        zeros = 0 if level else zeros + 1
        token += 1
    source.take(bits.whole_bytes())
    return levels, extras


def split(code: int, symbol: int) -> tuple[int, int]:
    """Token and number of tail bits of a symbol."""
    if code < 32:
        return symbol >> code, code
    d, m = divmod(code - 32, 4)
    if symbol < 1 << d:
        return symbol, 0
    e = symbol.bit_length() - 1
    return (1 << d) + ((e - d) << m) + (symbol >> (e - m) & ((1 << m) - 1)), e - m


def join(code: int, tokens: list[int], tails: Bits) -> list[int]:
    out = []
    for token in tokens:
        if code < 32:
            out.append(token << code | tails.get(code))
            continue
        d, m = divmod(code - 32, 4)
        if token < 1 << d:
            out.append(token)
            continue
        above, fraction = divmod(token - (1 << d), 1 << m)
        out.append(((1 << m) + fraction) << (above + d - m) | tails.get(above + d - m))
    return out


def frequencies(levels: list[int], extras: list[int], kept: int) -> list[int]:
    weights = []
    for level, extra in zip(levels, extras, strict=True):
        k = min(kept, level - 1)
        r = level - 1 - k
        weights.append(((1 << k) + extra << r) + ((1 << r) // 2) if level else 0)
    total = sum(weights)
    f = [max((4096 * w + total // 2) // total, w > 0) for w in weights]
    while sum(f) > 4096:
        some = [i for i in range(len(f)) if f[i] > 1]
        f[min(some, key=lambda i: weights[i] / (2 * f[i] - 1))] -= 1
    while sum(f) < 4096:
        some = [i for i in range(len(f)) if weights[i]]
        f[max(some, key=lambda i: weights[i] / (2 * f[i] + 1))] += 1
    return f


def rans(source: Bytes, n: int, alphabet: int) -> list[int]:
    (first,) = source.take(1)
    mode, lanes, kept = first & 3, 1 << (first >> 2 & 7), KEPT[first >> 5]
    if mode == 0:
        return [source.varint()] * n
    if mode == 1:
        return coded(2, source.rest(), n, alphabet)
    code = source.take(1)[0] if mode == 3 else 0
    tokens = split(code, alphabet - 1)[0] + 1
    f = frequencies(*table(source, tokens, kept), kept)
    starts = np.cumsum([0, *f])
    tail_bytes = source.varint() if code >= 32 else (code * n + 7) // 8
    coded_bytes = Bytes(source.take(len(source.data) - source.at - tail_bytes))
    sizes = [min(4, len(coded_bytes.data))] if lanes == 1 else [4] * lanes
    states = [int.from_bytes(coded_bytes.take(size), "little") for size in sizes]
    words = np.frombuffer(coded_bytes.rest(), "<u2").tolist()
    out = []
    for j in range(n):
        x = states[j % lanes]
        slot = x % 4096
        token = int(np.searchsorted(starts, slot, side="right")) - 1
        x = f[token] * (x >> 12) + slot - int(starts[token])
        if x < 65536 and words:
            x = 65536 * x + words.pop(0)
        states[j % lanes] = x
        out.append(token)
    assert not words
    assert set(states) == {0 if lanes == 1 else 65536}
    return join(code, out, Bits(source.rest()))


def tables(data: bytes) -> list[tuple[float, float, int, list[int]]]:
    """Centre, step, low and frequencies (the escape's last) of each channel of a cut."""
    source = Bytes(data)
    assert source.take(1) == b"\1"
    assert source.varint() >= 1  # the version
    channels = []
    for _ in range(source.varint()):
        centre, step = source.f32(2).tolist()
        low, own = source.varint(), source.varint()
        row = [source.varint() + 1 for _ in range(own)]
        low = -(low + 1) // 2 if low % 2 else low // 2
        channels.append((centre, step, low, [*row, (1 << 16) - sum(row)]))
    assert not source.rest()
    return channels


def features(data: bytes, table: bytes, n: int) -> tuple[list[list[int]], NDArray[np.float32]]:
    """The symbols of a stream, and what they stand for, both (C, n)."""
    channels = tables(table)
    source = Bytes(data)
    (mode,) = source.take(1)
    size = source.varint() if mode & 8 else 0
    coded = Bytes(source.take(len(data) - source.at - size))
    escapes = Bits(source.rest())
    lanes = 1 << (mode & 7)
    start = 0 if lanes == 1 else 1 << 32
    lengths = [min(6, len(coded.data))] if lanes == 1 else [6] * lanes
    states = [int.from_bytes(coded.take(length), "little") for length in lengths]
    symbols = []
    for _, _, low, row in channels:
        sums = [0, *itertools.accumulate(row)]
        line = []
        for i in range(n):
            x = states[i % lanes]
            slot = x % (1 << 16)
            s = bisect.bisect_right(sums, slot) - 1
            x = row[s] * (x >> 16) + slot - sums[s]
            if x < 1 << 32 and coded.at < len(coded.data):
                x = x << 16 | int.from_bytes(coded.take(2), "little")
            states[i % lanes] = x
            line.append(low + s)
        symbols.append(line)
    assert not coded.rest()
    assert states == [start] * lanes
    for line, (_, _, low, row) in zip(symbols, channels, strict=True):
        end = low + len(row) - 1
        for i in range(n):
            if line[i] == end:
                zeros = 0
                while not escapes.get(1):
                    zeros += 1
                u = 1
                for _ in range(zeros):
                    u = u << 1 | escapes.get(1)
                u -= 1
                line[i] = low - 1 - u // 2 if u % 2 else end + u // 2
    numbers = np.array(symbols, np.float32)
    steps = np.array([[step] for _, step, _, _ in channels], np.float32)
    centres = np.array([[centre] for centre, _, _, _ in channels], np.float32)
    return symbols, numbers * steps + centres


def huffman(source: Bytes, n: int, alphabet: int) -> list[int]:
    (code,) = source.take(1)
    if code == 255:
        return [source.varint()] * n
    tokens = split(code, alphabet - 1)[0] + 1
    lengths, _ = table(source, tokens, 0)
    book, value, before = {}, 0, 0
    for length, token in sorted((length, token) for token, length in enumerate(lengths) if length):
        value <<= length - before
        book[length, value] = token
        value, before = value + 1, length
    bits = Bits(source.data[source.at :])
    out = []
    for _ in range(n):
        value = length = 0
        while (length, value) not in book:
            value, length = value << 1 | bits.get(1), length + 1
        out.append(book[length, value])
    source.take(bits.whole_bytes())
    return join(code, out, Bits(source.rest()))


def golomb(source: Bytes, n: int) -> list[int]:
    b = source.varint()
    w = (b - 1).bit_length()
    t = (1 << w) - b
    bits = Bits(source.rest())
    out = []
    for _ in range(n):
        quotient = bits.unary()
        r = bits.get(w - 1) if w else 0
        if w and r >= t:
            r = (r << 1 | bits.get(1)) - t
        out.append(quotient * b + r)
    return out


def background(source: Bytes, n: int, alphabet: int) -> list[int]:
    (mode,) = source.take(1)
    if mode == 0:
        return huffman(source, n, alphabet)
    (common,) = source.take(1)
    k = source.varint()
    where = positions(source.blob(), k, n)
    out = [common] * n
    for i, symbol in zip(where, coded(2, source.rest(), k, alphabet - 1), strict=True):
        out[i] = symbol + (symbol >= common)
    return out
