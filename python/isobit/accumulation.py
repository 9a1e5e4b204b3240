"""Leaves added one by one, in any order, and the collective that ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from types import TracebackType
from typing import Any, Self

import numpy as np

from isobit import _native
from isobit.arrays import as_array, call, call_in, writable_array
from isobit.blocks import Blocks, check_shape
from isobit.dtypes import name_of
from isobit.errors import Error
from isobit.session import Session, collective


class Accumulation(Session):
    """The leaves of one reduction; `Communicator.accumulate` makes it, one collective ends it.

    A leaf's gradient is combined with its neighbours as soon as four of these are there, so that memory holds, of
    leaves added in order, at most three as they came and some log2 of their number as partial sums in the
    accumulator's dtype, not all leaves. That memory is kept for the next accumulation, until the communicator is
    closed. The order in which leaves are added changes no bit.
    """

    def __init__(
        self,
        native: _native.Communicator,
        num_leaves: int,
        *,
        order: str,
        accumulate: str | None,
        out_dtype: np.dtype[Any] | None,
        shape: tuple[int, ...] | None,
        dtype: np.dtype[Any] | None,
    ) -> None:
        super().__init__(native)
        self._num_leaves = num_leaves
        self._order = order
        self._accumulate = accumulate
        self._out_dtype = out_dtype
        self._shape = shape
        self._dtype = dtype
        self._accumulator: _native.Accumulator | None = None
        self._ended = False
        runs = native.leaves(num_leaves)
        #: The leaves that this rank owns, ascending.
        self.leaves: Sequence[int] = range(*runs[0]) if len(runs) == 1 else tuple(chain(*(range(*run) for run in runs)))

    def add(self, leaf: int, tensor: Any) -> None:
        """Adds leaf number `leaf`, one of `leaves`, once.

        `ValueError` for a leaf that another rank owns, that was added before, or that is not of the
        first one's shape and dtype.
        """
        if self._accumulator is None:
            array = as_array("tensor", tensor)
            self._shape = array.shape if self._shape is None else self._shape
            self._dtype = array.dtype if self._dtype is None else self._dtype
            self._accumulator = self._open()
        call_in(partial(self._accumulator.add, leaf), tensor)

    @collective
    def all_reduce(
        self,
        op: str = "sum",
        out: Any = None,
        *,
        divisor: int | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """The sum or mean of all leaves, on every rank; in `out`, a new array unless given.

        `ValueError` if a leaf of this rank is missing. A mean divides by the number of leaves unless
        `divisor` is given.
        """
        if out is not None and self._shape is None:
            self._shape = as_array("out", out).shape
        if out is not None and self._dtype is None and self._out_dtype is None:
            self._dtype = as_array("out", out).dtype
        shape, dtype = self._expected()
        result = _output(out, shape, dtype)
        ending = self._ending(self._native.accumulated_all_reduce)
        return call(ending, None, result, op, divisor, timeout, async_op, result=result, absent=True)

    @collective
    def reduce_scatter(
        self,
        op: str = "sum",
        out: Any = None,
        *,
        divisor: int | None = None,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """The sum or mean of all leaves; each rank gets its block of rows, as in `Communicator.reduce_scatter`."""
        shape, dtype = self._expected()
        blocks = Blocks.split(self.world_size, shape, counts)
        result = _output(out, blocks.shape_of(self.rank), dtype)
        ending = self._ending(self._native.accumulated_reduce_scatter)
        return call(ending, None, result, op, divisor, blocks.elements, timeout, async_op, result=result, absent=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None and not self._ended:
            # The others may be in the collective that this rank will not call.
            self._refuse("accumulate", value)
        self._accumulator = None
        self._ended = True

    def _open(self) -> _native.Accumulator:
        if self._ended:
            raise Error("this accumulation has ended: start another one with accumulate()")
        assert self._dtype is not None
        assert self._shape is not None
        to = None if self._out_dtype is None else name_of(self._out_dtype)
        kind = (self._order, self._accumulate, to, name_of(self._dtype))
        return self._native.accumulator(self._num_leaves, *kind, self._shape)

    def _expected(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape and the dtype of the result."""
        if self._shape is None or self._dtype is None:
            raise ValueError(
                f"rank {self.rank} has added no leaf, so shape and dtype are unknown: give accumulate(shape=, dtype=)"
            )
        return self._shape, self._dtype if self._out_dtype is None else self._out_dtype

    def _ending(self, native: Callable[..., _native.Work | None]) -> Callable[..., _native.Work | None]:
        """`native` over this accumulation, with the arguments that `arrays.call` passes."""
        accumulator = self._open() if self._accumulator is None else self._accumulator

        def ending(_: None, out: Any, *rest: Any) -> _native.Work | None:
            work = native(accumulator, out, *rest)
            self._accumulator = None
            self._ended = True
            return work

        return ending


def _output(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    if out is None:
        return np.empty(shape, dtype)
    array = writable_array("out", out)
    check_shape("out", array, shape)
    if array.dtype != dtype:
        raise TypeError(f"out is {array.dtype}, but the result is {dtype}")
    return out
