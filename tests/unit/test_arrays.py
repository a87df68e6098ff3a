"""Views of Flower's arrays hold what Flower itself would return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from flowerpress.compression import ConfigError, Manifest
from flowerpress.protos import to_numpy, to_record

CASES: dict[str, NDArray[Any]] = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scalar": np.asarray(3, np.int64),
    "empty": np.zeros((0, 4), np.float16),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
    "strided": np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
    "big endian": np.arange(5, dtype=">f4"),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("case", CASES)
def test_views_equal_flowers_own_reading(case: str) -> None:
    record = ArrayRecord({"x": Array(CASES[case])})
    np.testing.assert_array_equal(to_numpy(record)["x"], record["x"].numpy(), strict=True)
    np.testing.assert_array_equal(to_record({"x": CASES[case]})["x"].numpy(), CASES[case])


def test_the_common_case_is_a_view_and_read_only() -> None:
    record = ArrayRecord({"x": Array(CASES["matrix"])})
    view = to_numpy(record)["x"]
    assert not view.flags.writeable
    assert not view.flags.owndata


def test_data_that_contradicts_the_array_is_left_to_flower() -> None:
    whole = Array(CASES["matrix"])
    longer = Array(whole.dtype, whole.shape, whole.stype, whole.data + b"more")
    wrong = Array("float64", whole.shape, whole.stype, whole.data)
    for array in (longer, wrong):
        np.testing.assert_array_equal(
            to_numpy(ArrayRecord({"x": array}))["x"], CASES["matrix"], strict=True
        )


def test_a_dtype_that_numpy_does_not_know_is_refused_with_advice() -> None:
    """As ml_dtypes has it saved: two bytes without a meaning."""
    data = Array(np.arange(6, dtype=np.uint16).view("V2")).data
    record = ArrayRecord({"x": Array("bfloat16", (6,), "numpy.ndarray", data)})
    with pytest.raises(ConfigError, match=r"'x' has dtype void16.*bfloat16 to float32"):
        Manifest.of(to_numpy(record))
