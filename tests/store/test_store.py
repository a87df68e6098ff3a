"""Generations on disk: what goes in comes out, one writer, and damage is never loaded."""

from __future__ import annotations

import hashlib
import logging
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load_file

from flowerpress.compression import DTYPES, ConfigError, StorageError
from flowerpress.compression.bfloat16 import rounded
from flowerpress.protos.store import Snapshot, Store

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
ARRAYS = st.sampled_from(DTYPES[:-1]).flatmap(
    lambda dtype: hnp.arrays(
        st.sampled_from([dtype, np.dtype(dtype).newbyteorder(">")]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
SNAPSHOTS = st.builds(
    Snapshot,
    st.dictionaries(st.text(), JSON, max_size=4),
    st.dictionaries(st.text(), ARRAYS, max_size=4),
    st.dictionaries(st.text(), st.binary(max_size=50), max_size=4),
)


def same(left: Snapshot | None, right: Snapshot) -> bool:
    def bits(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
        native = array.astype(array.dtype.newbyteorder("="))
        return native.dtype.str, native.shape, native.tobytes()

    def plain(snapshot: Snapshot) -> tuple[Any, ...]:
        arrays = [(name, bits(array)) for name, array in snapshot.arrays.items()]
        return dict(snapshot.facts), arrays, list(snapshot.blobs.items())

    return left is not None and plain(left) == plain(right)


def numbered(number: int) -> Snapshot:
    rng = np.random.default_rng(number)
    return Snapshot(
        {"round": number, "run": 2**64 - 1},
        {"w": rng.standard_normal((7, 5)).astype(np.float32), "step": np.array(number)},
        {"payload": rng.bytes(200)},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@settings(deadline=None)
@given(st.lists(SNAPSHOTS, min_size=1, max_size=3), st.integers(1, 3))
def test_what_is_committed_is_loaded(folders: Path, snapshots: list[Snapshot], keep: int) -> None:
    folder = folders / "one"
    shutil.rmtree(folder, ignore_errors=True)
    with Store(folder, keep, sync=False) as store:
        assert store.load() is None
        assert [store.commit(snapshot) for snapshot in snapshots] == [
            number + 1 for number in range(len(snapshots))
        ]
        assert same(store.load(), snapshots[-1])
    with Store(folder, keep, sync=False) as store:
        assert same(store.load(), snapshots[-1])
    assert len(list(folder.glob("*.safetensors"))) == min(keep, len(snapshots))


def test_bfloat16_and_a_large_tensor(tmp_path: Path) -> None:
    # Larger than a chunk of reading, and than what one call of write() takes from a pipe.
    large = np.arange(3 << 20, dtype=np.float32).reshape(3, -1).T
    arrays = {"large": large, "bfloat16": rounded(np.linspace(-1, 1, 33))}
    snapshot = Snapshot(arrays=arrays)
    with Store(tmp_path) as store:
        store.commit(snapshot)
        assert same(store.load(), snapshot)


def test_a_generation_is_a_safetensors_file(tmp_path: Path) -> None:
    with Store(tmp_path, sync=False) as store:
        store.commit(numbered(1))
    (path,) = tmp_path.glob("*.safetensors")
    assert sorted(load_file(path)) == ["array/step", "array/w", "blob/payload"]


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot({"x": float("nan")}),
        Snapshot({"x": b"bytes"}),
        Snapshot(arrays={"c": np.zeros(2, np.complex64)}),
        Snapshot(arrays={"o": np.array([object()])}),
        Snapshot(arrays={"s": np.array(["text"])}),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_changes(
    tmp_path: Path, snapshot: Snapshot
) -> None:
    with Store(tmp_path, sync=False) as store:
        store.commit(numbered(1))
        with pytest.raises(StorageError):
            store.commit(snapshot)
        assert same(store.load(), numbered(1))
    with pytest.raises(ConfigError, match="at least one"):
        Store(tmp_path, keep=0)


def test_names_and_facts_have_a_cap(tmp_path: Path) -> None:
    with Store(tmp_path, sync=False) as store, pytest.raises(StorageError, match="more than"):
        store.commit(Snapshot({"text": "x" * 100_000_000}))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    second = f"from flowerpress.protos.store import Store\nStore({str(tmp_path)!r})"
    with Store(tmp_path, sync=False) as store:
        store.commit(numbered(1))
        done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True)
        assert done.returncode == 1
        assert "StorageError" in done.stderr
        assert "another process has it open" in done.stderr
        store.close()
        store.close()  # once more does nothing
    done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("bad", ["file", "file/under", "unwritable"])
def test_a_folder_that_cannot_be_used_is_an_error_in_words(tmp_path: Path, bad: str) -> None:
    (tmp_path / "file").write_text("no folder")
    folder = Path("/proc/nothing/here") if bad == "unwritable" else tmp_path / bad
    with pytest.raises(StorageError, match="cannot open it"):
        Store(folder)


def flipped_in_turn(folder: Path, every: int) -> Iterator[tuple[str, int]]:
    """Flip one bit of each ``every``-th byte of each file of ``folder``, one after the other."""
    rng = random.Random(5)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in range(rng.randrange(every), len(whole), every):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            yield path.name, place


def test_a_flipped_bit_anywhere_leaves_a_generation_that_was_committed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    with Store(whole, sync=False) as store:
        for number in (1, 2, 3):
            store.commit(numbered(number))
    newest = max(path.name for path in whole.glob("*.safetensors"))
    caplog.set_level(logging.ERROR)
    scratch = tmp_path / "scratch"
    shutil.copytree(whole, scratch)
    tried = 0
    for name, _ in flipped_in_turn(scratch, every=61):
        tried += 1
        again = tmp_path / "again"
        shutil.copytree(scratch, again)
        with Store(again, sync=False) as store:
            found = store.load()
            # Damage of the index costs nothing; damage of the newest file costs that one.
            assert same(found, numbered(2 if name == newest else 3))
            assert store.commit(numbered(4)) > 3
            assert same(store.load(), numbered(4))
        with Store(again, sync=False) as store:
            assert same(store.load(), numbered(4))
        shutil.rmtree(again)
        for path in whole.iterdir():
            shutil.copy(path, scratch / path.name)
    assert tried > 150


def test_where_nothing_is_sound_the_error_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(tmp_path, sync=False) as store:
        store.commit(numbered(1))
        store.commit(numbered(2))
        older, newer = sorted(tmp_path.glob("*.safetensors"))
        newer.write_bytes(newer.read_bytes()[:-1])
        assert same(store.load(), numbered(1))
        assert "generation 2 is skipped" in caplog.text
        # The one that is damaged is not what stays beside the next one.
        store.commit(numbered(3))
        assert same(store.load(), numbered(3))
        assert older.exists()
        assert not newer.exists()
        for path in tmp_path.glob("*.safetensors"):
            path.write_bytes(b"")
        with pytest.raises(StorageError, match=r"Restore the folder from a copy, or move it away"):
            store.load()


@pytest.mark.parametrize("damage", ["gone", "empty", "text", "emptied", "other schema"])
def test_an_index_that_is_no_index_is_made_again(tmp_path: Path, damage: str) -> None:
    with Store(tmp_path, sync=False) as store:
        store.commit(numbered(1))
        store.commit(numbered(2))
    index = tmp_path / "index.sqlite"
    if damage in ("emptied", "other schema"):
        statement = "DELETE FROM generation" if damage == "emptied" else "DROP TABLE generation"
        connection = sqlite3.connect(index)
        with connection:
            connection.execute(statement)
        connection.close()
    else:
        index.unlink()
        if damage != "gone":
            index.write_bytes(b"" if damage == "empty" else b"not a database at all" * 100)
    with Store(tmp_path, sync=False) as store:
        assert same(store.load(), numbered(2))
        assert store.commit(numbered(3)) == 3


def test_files_of_other_stores_are_not_loaded(tmp_path: Path) -> None:
    """A file whose name and bytes agree may still be no generation, or another one."""
    with Store(tmp_path / "a", sync=False) as store:
        store.commit(numbered(1))
    (path,) = (tmp_path / "a").glob("*.safetensors")
    for folder, name, body in (
        ("b", path.name.replace("00000001", "00000002"), path.read_bytes()),
        ("c", f"00000001-{hashlib.sha256(b'x').hexdigest()}.safetensors", b"x"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(body)
        with Store(tmp_path / folder, sync=False) as store, pytest.raises(StorageError):
            store.load()
