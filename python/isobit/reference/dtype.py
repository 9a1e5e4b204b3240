"""Element types: names, wire codes, sizes, and the anatomy of the floating-point formats.

Tensors are numpy arrays of raw bits (``uint8`` to ``uint64``) wherever bits matter, because numpy
lacks half of these types and because a float register may quieten a NaN on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]
"""An array of unsigned integers, each the bits of one element."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: sign, exponent field, mantissa field, from the top."""

    exponent_bits: int
    mantissa_bits: int
    nan: int
    """The canonical quiet NaN."""
    has_infinity: bool = True

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def min_exponent(self) -> int:
        """The exponent of the smallest normal number, and of all subnormal ones."""
        return 1 - self.bias

    @property
    def least_exponent(self) -> int:
        """The exponent of the least positive number."""
        return self.min_exponent - self.mantissa_bits

    @property
    def sign_bit(self) -> int:
        return 1 << (self.exponent_bits + self.mantissa_bits)

    @property
    def exponent_mask(self) -> int:
        return (1 << self.exponent_bits) - 1

    @property
    def mantissa_mask(self) -> int:
        return (1 << self.mantissa_bits) - 1

    @property
    def infinity(self) -> int:
        """The bits above the largest finite number: infinity, or NaN in a format without one."""
        return self.max_finite + 1

    @property
    def max_finite(self) -> int:
        top = self.exponent_mask << self.mantissa_bits
        return top - 1 if self.has_infinity else top + self.mantissa_mask - 1

    @property
    def max_non_nan(self) -> int:
        """The largest magnitude, as bits, that is not a NaN."""
        return self.max_finite + int(self.has_infinity)


class Dtype(Enum):
    """The type of a tensor's elements; the value is its name."""

    F8E4M3FN = "f8e4m3fn"
    F8E5M2 = "f8e5m2"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    BOOL = "bool"

    @property
    def code(self) -> int:
        """The code on the wire."""
        return _CODES[self]

    @classmethod
    def from_code(cls, code: int) -> Dtype | None:
        return next((dtype for dtype in cls if dtype.code == code), None)

    @property
    def size(self) -> int:
        """Bytes an element."""
        return _SIZES[self]

    @property
    def is_float(self) -> bool:
        return self in _FORMATS

    @property
    def format(self) -> Format:
        """The anatomy of a floating-point type."""
        return _FORMATS[self]

    @property
    def bits(self) -> np.dtype[Any]:
        """The unsigned numpy type that holds an element's bits, little-endian."""
        return np.dtype(f"<u{self.size}")

    @property
    def native(self) -> np.dtype[Any]:
        """The numpy type in which elements can be computed with; raw bits where numpy has none."""
        if self in (Dtype.F16, Dtype.F32, Dtype.F64):
            return np.dtype(f"<f{self.size}")
        if self.value[0] == "i":
            return np.dtype(f"<i{self.size}")
        return self.bits


_CODES: dict[Dtype, int] = {
    dtype: code for dtype, code in zip(Dtype, [*range(1, 7), *range(16, 20), *range(24, 28), 32], strict=True)
}
_SIZES: dict[Dtype, int] = dict(zip(Dtype, [1, 1, 2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1], strict=True))
_FORMATS = {
    Dtype.F8E4M3FN: Format(4, 3, nan=0x7F, has_infinity=False),
    Dtype.F8E5M2: Format(5, 2, nan=0x7E),
    Dtype.F16: Format(5, 10, nan=0x7E00),
    Dtype.BF16: Format(8, 7, nan=0x7FC0),
    Dtype.F32: Format(8, 23, nan=0x7FC00000),
    Dtype.F64: Format(11, 52, nan=0x7FF8000000000000),
}

FLOATS = tuple(_FORMATS)
"""The floating-point types, narrowest first."""


def as_bits(tensor: bytes | bytearray | memoryview | NDArray[Any], dtype: Dtype) -> Bits:
    """The bits of a tensor of ``dtype``, given as bytes or as an array of the right item size."""
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.itemsize != dtype.size:
            raise ValueError(f"an element of {dtype.value} has {dtype.size} bytes, not {tensor.dtype.itemsize}")
        return np.ascontiguousarray(tensor).view(dtype.bits)
    return np.frombuffer(bytes(tensor), dtype.bits)
