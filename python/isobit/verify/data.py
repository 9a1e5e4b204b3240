"""The leaves: for each dtype and leaf number the same bits on every machine, traps among them.

A leaf repeats one period of elements. The period's length is a prime, so that an element meets every place in a
vector register, a cache line and a chunk; the law gives it the same result in all of them.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isobit.dtypes import dtype_of
from isobit.reference.dtype import Bits, Dtype

#: Elements before a leaf repeats itself.
PERIOD = 61

_GAMMA, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def random_words(stream: int, count: int) -> NDArray[np.uint64]:
    """Random 64-bit words, the same on every platform and under every release of numpy (splitmix64).

    >>> [hex(word) for word in random_words(0, 2)]
    ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']
    """
    word = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)) * _GAMMA
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return np.asarray(word ^ (word >> np.uint64(31)))


@functools.cache
def leaf(number: int, dtype: Dtype) -> Bits:
    """One period of leaf `number`, as bits."""
    kinds = _float_kinds(number, dtype) if dtype.is_float else _integer_kinds(number, dtype)
    column = np.arange(PERIOD)
    chosen = np.choose(column % len(kinds), kinds)
    bits: Bits = chosen.astype(dtype.bits)
    bits.flags.writeable = False
    return bits


@functools.lru_cache(maxsize=512)
def tensor(number: int, dtype: str, count: int) -> NDArray[Any]:
    """Leaf `number` as an array of `count` elements, to be copied before it is written to."""
    array = repeat(leaf(number, Dtype(dtype)).view(dtype_of(dtype)), count)
    array.flags.writeable = False
    return array


def repeat(period: NDArray[Any], count: int) -> NDArray[Any]:
    """The first `count` elements of the endless repetition of `period`."""
    return np.resize(period, count) if count else period[:0].copy()


def _float_kinds(number: int, dtype: Dtype) -> list[Bits]:
    """What the columns of a float leaf are drawn from; each kind is a trap of its own."""
    fmt = dtype.format
    stream = dtype.code << 16
    word, other = random_words(stream + number + 1, PERIOD), random_words(stream + number + 0x8001, PERIOD)
    # Of the column, not of the leaf.
    fate = random_words(stream, PERIOD)
    sign = (word & np.uint64(1)) * np.uint64(fmt.sign_bit)
    mantissa = other & np.uint64(fmt.mantissa_mask)
    everyday = sign | ((word >> np.uint64(1)) % np.uint64(6) + np.uint64(fmt.bias - 3)) << fmt.mantissa_bits | mantissa
    any_finite = sign | other % np.uint64(fmt.max_finite + 1)
    subnormal = sign | other % np.uint64(4 << fmt.mantissa_bits)
    pair = random_words(stream + 0x4001 + number // 2, PERIOD) % np.uint64(fmt.max_finite + 1)
    cancelling = pair | np.uint64(fmt.sign_bit * (number % 2))
    one, half_step = fmt.bias << fmt.mantissa_bits, (fmt.bias - fmt.mantissa_bits - 1) << fmt.mantissa_bits
    ties = np.array([one, half_step, one + 1, half_step + (1 << fmt.mantissa_bits)], np.uint64)
    tie = sign | ties[(word >> np.uint64(1)) % np.uint64(4)]
    # Some columns are -0 in every leaf, others have a +0 in one of the first.
    is_plus = (fate % np.uint64(2) == 0) & (fate >> np.uint64(1) & np.uint64(7) == number)
    zero = np.where(is_plus, np.uint64(0), np.uint64(fmt.sign_bit))
    any_bits = other & np.uint64(2 * fmt.sign_bit - 1)
    payload = fmt.sign_bit | fmt.exponent_mask << fmt.mantissa_bits | fmt.mantissa_mask
    specials = np.array(
        [fmt.infinity, fmt.sign_bit | fmt.infinity, payload, fmt.max_finite, fmt.sign_bit | fmt.max_finite], np.uint64
    )
    # Each column meets two of them, in two of the first leaves; both infinities in one column, for instance.
    first = fate % np.uint64(8)
    second = (first + np.uint64(1) + fate // np.uint64(8) % np.uint64(7)) % np.uint64(8)
    which = np.arange(PERIOD) // 8 + (second == number)
    is_special = (first == number) | (second == number)
    rarely_special = np.where(is_special, specials[which % 5], everyday)
    return [everyday, any_finite, subnormal, cancelling, tie, zero, any_bits, rarely_special]


def _integer_kinds(number: int, dtype: Dtype) -> list[Bits]:
    """For integers and truth values, of which any byte but 0 is true."""
    word = random_words((dtype.code << 16) + number + 1, PERIOD)
    every = np.uint64((1 << 8 * dtype.size) - 1)
    falling = np.full(PERIOD, every - np.uint64(number))
    return [word & every, word % np.uint64(2), falling, (word & every) | np.uint64(1)]
