"""Readers of data files: right on good files, typed errors on damaged and hostile ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowerpress.compression.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    TruncatedError,
    WireError,
)
from flowerpress.simulations.tasks.idx import read_idx
from flowerpress.simulations.tasks.npz import read_npz

VALUES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
GOOD = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 3, 4) + VALUES.tobytes()
SHAPE = (None, 3, 4)


def idx(folder: Path, content: bytes, name: str = "a-idx3-ubyte") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_idx_is_read_plain_and_packed(tmp_path: Path, name: str) -> None:
    content = gzip.compress(GOOD) if name.endswith(".gz") else GOOD
    values = read_idx(idx(tmp_path, content, name), SHAPE)
    np.testing.assert_array_equal(values, VALUES)
    assert values.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", TruncatedError, "0 of 4"),
        (GOOD[:9], TruncatedError, "of 12"),
        (GOOD[:-1], TruncatedError, "23 of 24"),
        (GOOD + b"\0", FormatError, "more bytes follow"),
        (b"\1" + GOOD[1:], FormatError, "00 00 08"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], FormatError, "00 00 08"),
        (GOOD[:3] + b"\xff" + GOOD[4:], FormatError, "255 axes; 3"),
        (GOOD[:4] + struct.pack(">3I", 2, 4, 3) + GOOD[16:], FormatError, "(N, 3, 4)"),
        (GOOD[:4] + struct.pack(">3I", 2**32 - 1, 3, 4), LimitError, "claims"),
        (b"PK\3\4" + GOOD, FormatError, "50 4b 03"),
    ],
)
def test_idx_that_is_not_right_is_refused(
    tmp_path: Path, content: bytes, error: type[WireError], says: str
) -> None:
    with pytest.raises(error) as caught:
        read_idx(idx(tmp_path, content), SHAPE)
    assert says in str(caught.value)
    assert caught.value.field == "a-idx3-ubyte"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (gzip.compress(GOOD, mtime=0)[:-9], TruncatedError),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, ChecksumError),
        (GOOD, ChecksumError),
    ],
    ids=["cut", "wrong-sum", "not-gzip"],
)
def test_damaged_gzip_is_refused(tmp_path: Path, content: bytes, error: type[WireError]) -> None:
    with pytest.raises(error) as caught:
        read_idx(idx(tmp_path, content, "a.gz"), SHAPE)
    assert caught.value.field == "a.gz"


def test_a_claim_within_the_limit_costs_no_memory_before_it_is_kept(tmp_path: Path) -> None:
    content = struct.pack(">BBBB3I", 0, 0, 8, 3, 80_000_000, 3, 4)  # 960 MB, none of it there
    path = idx(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(TruncatedError):
            read_idx(path, SHAPE)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = idx(tmp_path, gzip.compress(GOOD + bytes(50_000_000)), "a.gz")
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="more bytes follow"):
            read_idx(path, SHAPE)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


ARRAYS: dict[str, np.ndarray] = {"images": VALUES, "labels": np.array([4, 1], np.int64)}
WANTED: dict[str, tuple[int | None, ...]] = {"images": SHAPE, "labels": (None,)}


def npz(folder: Path, content: bytes) -> Path:
    path = folder / "a.npz"
    path.write_bytes(content)
    return path


def packed(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def with_member(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def header(descr: str, shape: str, order: str = "False") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)
    arrays = read_npz(path, WANTED)
    for key, values in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], values)
        assert arrays[key].dtype == values.dtype


def test_npz_of_the_other_byte_order_is_read_in_native_order(tmp_path: Path) -> None:
    content = packed(labels=np.array([1, 300], ">i4"))
    labels = read_npz(npz(tmp_path, content), {"labels": (None,)})["labels"]
    assert labels.tolist() == [1, 300]
    assert labels.dtype == np.dtype(np.int32)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"no zip at all", ChecksumError, "damaged"),
        (packed(images=VALUES), FormatError, "holds no array 'labels'; it holds: images"),
        (packed(images=VALUES[0], labels=VALUES[0, 0]), FormatError, "(N, 3, 4)"),
        (packed(images=VALUES, labels=np.zeros(2)), FormatError, "integers are expected"),
        (
            packed(images=VALUES, labels=np.array([None, 1], object)),
            FormatError,
            "integers are expected",
        ),
    ],
)
def test_npz_with_something_else_is_refused(
    tmp_path: Path, content: bytes, error: type[WireError], says: str
) -> None:
    with pytest.raises(error) as caught:
        read_npz(npz(tmp_path, content), WANTED)
    assert says in str(caught.value)
    assert caught.value.field.startswith("a.npz")


@pytest.mark.parametrize(
    ("member", "error"),
    [
        (header("|u1", "(9000000000000,)"), LimitError),
        (header("|u1", "(-5,)"), FormatError),
        (header("|u1", "(4,)", "True") + b"abcd", FormatError),
        (header("|u1", "(4,)") + b"abc", TruncatedError),
        (header("|u1", "(4,)") + b"abcde", FormatError),
        (header("|u1", "__import__('os').abort()"), FormatError),
        (header("|u1", "(1,)").replace(b"\x01", b"\x09", 1) + b"a", FormatError),
        (b"\x93NUM", TruncatedError),
        (b"", TruncatedError),
        (header("|u1", "(" * 9000), FormatError),
    ],
)
def test_hostile_array_headers_are_refused(
    tmp_path: Path, member: bytes, error: type[WireError]
) -> None:
    with pytest.raises(error) as caught:
        read_npz(npz(tmp_path, with_member("labels.npy", member)), {"labels": (None,)})
    assert caught.value.field == "a.npz[labels]"


def test_other_zip_methods_are_refused(tmp_path: Path) -> None:
    content = with_member("labels.npy", header("|u1", "(0,)"), zipfile.ZIP_LZMA)
    with pytest.raises(FormatError, match="method 14"):
        read_npz(npz(tmp_path, content), {"labels": (None,)})


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_idx(tmp_path, SHAPE)


_FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_FUZZ
@given(data=st.data())
def test_changed_files_give_typed_errors_only(tmp_path: Path, data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([GOOD, gzip.compress(GOOD, mtime=0), packed(**ARRAYS)]))
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.integers(len(changed) // 2, len(changed))) :]
    path = tmp_path / ("a.gz" if good[:2] == b"\x1f\x8b" else "a")
    path.write_bytes(changed)
    # Nothing but a WireError may come out; what is read in spite of the change has its shape.
    with contextlib.suppress(WireError):
        if good[:2] == b"PK":
            assert read_npz(path, WANTED)["images"].shape[1:] == (3, 4)
        else:
            assert read_idx(path, SHAPE).shape[1:] == (3, 4)
