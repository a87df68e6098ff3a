"""Compiled loops: no decisions, no Python objects, nothing that can fail but by a status code.

Every kernel is safe for hostile input: it never reads or writes outside the arrays it is given,
whatever the bits say. What a status means to the caller is decided by the coders. numba itself is
imported by the first kernel that runs, not by importing a module.
"""

from __future__ import annotations

__all__ = [
    "STATUS_OK",
    "STATUS_RANGE",
    "STATUS_STATE",
    "STATUS_SURPLUS",
    "STATUS_TRUNCATED",
    "STATUS_VALUE",
]

STATUS_OK = 0
STATUS_TRUNCATED = 1
"""The bits ended before the last symbol."""
STATUS_SURPLUS = 2
"""All symbols were decoded and bits are left over."""
STATUS_STATE = 3
"""The coder did not end in the state in which every encoder starts."""
STATUS_RANGE = 4
"""A decoded value is larger than the receiver's alphabet allows."""
STATUS_VALUE = 5
"""A magnitude that no encoder writes."""
