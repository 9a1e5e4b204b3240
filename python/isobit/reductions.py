"""The collectives that combine: all_reduce, reduce, reduce_scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isobit import _native
from isobit.arrays import Array, as_array, call
from isobit.blocks import Blocks
from isobit.dtypes import DtypeLike, dtype_of, name_of
from isobit.lists import each, is_list
from isobit.outputs import output_array, result_array
from isobit.session import Op, Order, Session, collective, shortcut


class Reductions(Session):
    """What a communicator combines."""

    __slots__ = ()

    @shortcut
    @collective
    def all_reduce(
        self,
        tensor: Any,
        out: Any = None,
        *,
        op: Op = "sum",
        order: Order = "tree",
        accumulate: DtypeLike = None,
        out_dtype: DtypeLike = None,
        divisor: int | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Combines the tensors of all ranks; every rank gets the result.

        In place unless `out` (of the tensor's shape) or another `out_dtype` says otherwise. Returns the
        array with the result. Of a list of tensors each is combined, in one call for all.

        >>> comm = isobit.init()
        >>> comm.all_reduce(np.array([1.5, 2.5], np.float32), op="mean", out_dtype="f64", divisor=2)
        array([0.75, 1.25])
        """
        if accumulate is not None:
            accumulate = name_of(accumulate)
        if is_list(tensor):
            to = None if out_dtype is None else dtype_of(out_dtype)

            def flat(given: Array, memory: Array, shape: list[int]) -> _native.Work | None:
                rest = (op, order, accumulate, divisor, shape, timeout, async_op)
                return self._native.all_reduce(given, memory, *rest)

            return each(flat, tensor, out, dtype=to)
        if out_dtype is not None:
            out = result_array("out", tensor, out, out_dtype)
        elif out is None:
            out = tensor
        rest = (op, order, accumulate, divisor, None, timeout, async_op)
        return call(self._native.all_reduce, tensor, out, *rest, result=out)

    @shortcut
    @collective
    def reduce(
        self,
        tensor: Any,
        out: Any = None,
        *,
        root: int = 0,
        op: Op = "sum",
        order: Order = "tree",
        accumulate: DtypeLike = None,
        out_dtype: DtypeLike = None,
        divisor: int | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Combines the tensors of all ranks; rank `root` gets the result, the same bits as `all_reduce`'s.

        At the root as `all_reduce`; elsewhere `tensor` is only read, `out` is ignored, and `None` is returned.

        >>> isobit.init().reduce(np.array([3, 4]), op="max")
        array([3, 4])
        """
        accumulate = None if accumulate is None else name_of(accumulate)
        if self.rank != root:
            # Every rank states the dtype of the result, and it is part of the contract.
            to = None if out_dtype is None else name_of(out_dtype)
            out = None
        else:
            to = None
            if out_dtype is not None:
                out = result_array("out", tensor, out, out_dtype)
            elif out is None:
                out = tensor
        rest = (op, order, accumulate, to, divisor, root, timeout, async_op)
        return call(self._native.reduce, tensor, out, *rest, result=out)

    @shortcut
    @collective
    def reduce_scatter(
        self,
        tensor: Any,
        out: Any = None,
        *,
        op: Op = "sum",
        order: Order = "tree",
        accumulate: DtypeLike = None,
        out_dtype: DtypeLike = None,
        divisor: int | None = None,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Combines the tensors of all ranks; each rank gets its block of the rows of the result.

        `tensor` is `(rows, ...)`, the same shape on every rank. Rank `i` gets rows `i * rows / N` and on,
        or `counts[i]` rows after those of the ranks before it. Returns `out`, a new array unless given.
        The bits are those of `all_reduce`.

        >>> isobit.init().reduce_scatter(np.array([[1, 2], [3, 4]]))
        array([[1, 2],
               [3, 4]])
        """
        array = as_array("tensor", tensor)
        blocks = Blocks.split(self.world_size, array.shape, counts)
        dtype = array.dtype if out_dtype is None else dtype_of(out_dtype)
        result = output_array("out", out, blocks.shape_of(self.rank), dtype, checked=out_dtype is not None)
        accumulate = None if accumulate is None else name_of(accumulate)
        rest = (op, order, accumulate, divisor, blocks.elements, timeout, async_op)
        own = blocks.rows_of(self.rank)
        return call(self._native.reduce_scatter, array, result, *rest, result=result, own=own)
