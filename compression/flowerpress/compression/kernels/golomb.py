"""Golomb codes: a quotient in unary, a remainder in truncated binary.

S. Golomb, "Run-length encodings", IEEE Trans. Inf. Theory 12(3), 1966; a power of two gives the
Rice code. Bit order and words: see :mod:`flowerpress.compression.kernels.words`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowerpress.compression.kernels import STATUS_OK, STATUS_RANGE, STATUS_TRUNCATED
from flowerpress.compression.kernels.jit import jit

__all__ = ["decode", "encode", "size"]


@jit
def size(values: NDArray[np.unsignedinteger], divisor: int) -> np.int64:
    """Exact length in bits of the Golomb code of ``values`` with this divisor (1 to 2**32)."""
    width = 0
    while (1 << width) < divisor:
        width += 1
    short = np.uint64((1 << width) - divisor)
    b = np.uint64(divisor)
    total = np.int64(values.size * (width + 1))
    for i in range(values.size):
        v = np.uint64(values[i])
        quotient = v // b
        total += np.int64(quotient) - np.int64(v - quotient * b < short)
    return total


@jit
def encode(values: NDArray[np.unsignedinteger], divisor: int, words: NDArray[np.uint32]) -> None:
    """Write v // b in unary (ones, then a zero) and v mod b in truncated binary.

    Truncated binary: with 2**(w-1) < b <= 2**w and t = 2**w - b, remainders below t
    take w - 1 bits, the others r + t in w bits, its lowest bit last.
    """
    width = 0
    while (1 << width) < divisor:
        width += 1
    full = np.uint64(32)
    ones = np.uint64(0xFFFFFFFF)
    one = np.uint64(1)
    short = np.uint64((1 << width) - divisor)
    b = np.uint64(divisor)
    hold = np.uint64(0)
    held = np.uint64(0)
    at = np.uint64(0)
    for i in range(values.size):
        v = np.uint64(values[i])
        left = v // b
        remainder = v - left * b
        while left >= full:
            hold |= ones << held
            words[at] = np.uint32(hold & ones)
            at += one
            hold >>= full
            left -= full
        hold |= ((one << left) - one) << held
        held += left + one
        if held >= full:
            words[at] = np.uint32(hold & ones)
            at += one
            hold >>= full
            held -= full
        if width > 0:
            length = np.uint64(width)
            if remainder < short:
                length -= one
            else:
                high = remainder + short
                remainder = (high >> one) | ((high & one) << (length - one))
            hold |= remainder << held
            held += length
            if held >= full:
                words[at] = np.uint32(hold & ones)
                at += one
                hold >>= full
                held -= full
    words[at] = np.uint32(hold)


@jit
def decode(
    words: NDArray[np.uint32],
    bits: int,
    divisor: int,
    largest: int,
    out: NDArray[np.unsignedinteger],
) -> tuple[int, np.int64]:
    """Fill ``out`` from hostile bits; return (status, bits used).

    A value above ``largest`` ends with STATUS_RANGE, bits that run out with STATUS_TRUNCATED.
    """
    width = 0
    while (1 << width) < divisor:
        width += 1
    one = np.uint64(1)
    end = np.uint64(bits)
    b = np.uint64(divisor)
    short = np.uint64((1 << width) - divisor)
    top = np.uint64(largest)
    most = top // b
    bit = np.uint64(0)
    for i in range(out.size):
        quotient = np.uint64(0)
        while True:
            if bit >= end:
                return STATUS_TRUNCATED, np.int64(bit)
            one_more = (words[bit >> np.uint64(5)] >> np.uint32(bit & np.uint64(31))) & np.uint32(1)
            bit += one
            if one_more == np.uint32(0):
                break
            quotient += one
            if quotient > most:
                return STATUS_RANGE, np.int64(bit)
        value = quotient * b
        if width > 0:
            length = np.uint64(width)
            if bit + length - one > end:
                return STATUS_TRUNCATED, np.int64(bit)
            at = bit >> np.uint64(5)
            window = np.uint64(words[at]) | (np.uint64(words[at + one]) << np.uint64(32))
            window >>= bit & np.uint64(31)
            high = window & ((one << (length - one)) - one)
            bit += length - one
            if high < short:
                value += high
            else:
                if bit >= end:
                    return STATUS_TRUNCATED, np.int64(bit)
                last = (window >> (length - one)) & one
                bit += one
                value += ((high << one) | last) - short
            if value > top:
                return STATUS_RANGE, np.int64(bit)
        out[i] = value
    return STATUS_OK, np.int64(bit)
