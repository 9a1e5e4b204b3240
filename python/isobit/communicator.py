"""The communicator: a rank's handle on its group, with every collective."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from isobit import _native
from isobit.accumulation import Accumulation
from isobit.arrays import Array, as_array, call, call_in, call_in_place, writable_array
from isobit.blocks import Blocks, check_shape, checked_counts
from isobit.dtypes import DtypeLike, dtype_of, name_of

Op: TypeAlias = Literal["sum", "mean", "prod", "min", "max", "band", "bor", "bxor"]
Order: TypeAlias = Literal["tree", "exact"]


class Communicator:
    """A rank's handle on its group; `isobit.init` and `isobit.memory_group` make them.

    Every rank makes the same calls in the same order; ranks that do not get `isobit.Desync`.

    **Arrays**: numpy arrays, those of ml_dtypes among them, and anything with a buffer; of float8_e4m3fn,
    float8_e5m2, float16, bfloat16, float32, float64, int8 to int64, uint8 to uint64 or bool; of any shape, zero
    elements and no dimension included; strided ones are copied on the way. Others are a `TypeError`.

    **Reductions** take `op`, `order`, `accumulate`, `out_dtype` and `divisor`. `order="tree"` combines leaf `i`,
    which is rank `i`'s tensor, in a fixed binary tree; `order="exact"` gives the correctly rounded
    sum or mean. `accumulate` is the dtype of the tree's inner nodes: "f32" for 8- and 16-bit floats and
    "f64" for f32 and f64 unless given. `divisor` is what a mean divides by, the number of leaves
    unless given. The bits of a result are a function of the leaves and of these alone (docs/law.md).

    **Deadlines**: `timeout` is in seconds, per call; the group's default unless given.

    **Errors** of every call: `Timeout`, `PeerLost`, `Desync`, `ContractMismatch`, `Corruption`, `Aborted`, all of
    them `isobit.Error`; wrong arguments are `TypeError` and `ValueError`, and nothing is sent then. After an
    `isobit.Error` the group's work is over, and each later call raises it again.

    One thread uses a communicator at a time; a second one, or a forked child, gets a `RuntimeError`.

    >>> with isobit.init() as comm:
    ...     comm.rank, comm.world_size, comm.all_reduce(np.ones(2))
    (0, 1, array([1., 1.]))
    """

    __slots__ = ("_all_reduce", "_native", "local_rank", "rank", "world_size")

    #: This rank's number, from 0.
    rank: int
    #: How many ranks the group has.
    world_size: int
    #: This rank's number among those of its host, from 0.
    local_rank: int

    def __init__(self, native: _native.Communicator, local_rank: int) -> None:
        self._native = native
        self._all_reduce = native.all_reduce
        self.rank = native.rank
        self.world_size = native.world_size
        self.local_rank = local_rank

    @property
    def epoch(self) -> int:
        """The number of the group's view; groups do not change yet, so it is 0."""
        return self._native.epoch

    @property
    def transport(self) -> str:
        """What carries the bytes: `"shm"` or `"memory"`."""
        return self._native.transport

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
    ) -> Any:
        """Combines the tensors of all ranks; every rank gets the result.

        In place unless `out` (of the tensor's shape) or another `out_dtype` says otherwise. Returns the
        array with the result.

        >>> comm = isobit.init()
        >>> comm.all_reduce(np.array([1.5, 2.5], np.float32), op="mean", out_dtype="f64", divisor=2)
        array([0.75, 1.25])
        """
        if accumulate is not None:
            accumulate = name_of(accumulate)
        if out_dtype is not None:
            out = _result("out", tensor, out, out_dtype)
        elif out is None:
            out = tensor
        try:
            self._all_reduce(tensor, out, op, order, accumulate, divisor, timeout)
            return out
        except _native.NeedsCopy:
            pass
        call(self._all_reduce, tensor, out, op, order, accumulate, divisor, timeout)
        return out

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
                out = _result("out", tensor, out, out_dtype)
            elif out is None:
                out = tensor
        call(self._native.reduce, tensor, out, op, order, accumulate, to, divisor, root, timeout)
        return out

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
    ) -> Array:
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
        result = _output("out", out, blocks.shape_of(self.rank), dtype, checked=out_dtype is not None)
        accumulate = None if accumulate is None else name_of(accumulate)
        rest = (op, order, accumulate, divisor, blocks.elements, timeout)
        call(self._native.reduce_scatter, array, result, *rest)
        return result

    def all_gather(
        self,
        tensor: Any,
        out: Any = None,
        *,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Joins the tensors of all ranks along the first axis, in rank order; every rank gets the result.

        `tensor` is `(rows, ...)`, alike on every rank, or of `counts[i]` rows on rank `i`; of no dimension, it counts
        as one row. Returns `out`, a new array of all rows unless given.

        >>> isobit.init().all_gather(np.arange(3))
        array([0, 1, 2])
        """
        array = as_array("tensor", tensor)
        blocks = Blocks.join(self.world_size, self.rank, array.shape, counts)
        result = _output("out", out, blocks.total, array.dtype)
        call(self._native.all_gather, array, result, blocks.total, blocks.elements, timeout)
        return result

    def gather(
        self,
        tensor: Any,
        out: Any = None,
        *,
        root: int = 0,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> Array | None:
        """Joins the tensors of all ranks as `all_gather` does; rank `root` gets the result, the others `None`.

        >>> isobit.init().gather(np.array(7.0))
        array([7.])
        """
        array = as_array("tensor", tensor)
        blocks = Blocks.join(self.world_size, self.rank, array.shape, counts)
        result = _output("out", out, blocks.total, array.dtype) if self.rank == root else None
        call(self._native.gather, array, result, blocks.total, root, blocks.elements, timeout)
        return result

    def scatter(
        self,
        tensor: Any = None,
        out: Any = None,
        *,
        root: int = 0,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Splits rank `root`'s tensor along its first axis; each rank gets its block of rows.

        Only the root gives `tensor`, `(rows, ...)`; the others give `out`, which says what they expect. Blocks
        are as in `reduce_scatter`. Returns `out`, at the root a new array unless given.

        >>> isobit.init().scatter(np.arange(2))
        array([0, 1])
        """
        if self.rank == root:
            if tensor is None:
                raise ValueError(f"rank {root} is the root of this scatter: it must give tensor")
            array = as_array("tensor", tensor)
            blocks = Blocks.split(self.world_size, array.shape, counts)
            result = _output("out", out, blocks.shape_of(self.rank), array.dtype)
            call(self._native.scatter, array, result, blocks.total, root, blocks.elements, timeout)
            return result
        if out is None:
            raise ValueError(
                f"rank {self.rank} is not the root of this scatter: it must give out, to say what it expects"
            )
        result = writable_array("out", out)
        if not result.shape:
            raise ValueError("out has no dimension: a block has at least one, that of its rows")
        blocks = Blocks.join(self.world_size, self.rank, result.shape, counts)
        call(self._native.scatter, None, result, blocks.total, root, blocks.elements, timeout)
        return result

    def broadcast(self, tensor: Any, *, root: int = 0, timeout: float | None = None) -> Any:
        """Copies rank `root`'s tensor into every other rank's, which has the same shape and dtype. Returns it.

        >>> isobit.init().broadcast(np.arange(3))
        array([0, 1, 2])
        """
        call_in_place(self._native.broadcast, tensor, root, timeout)
        return tensor

    def all_to_all(
        self,
        tensor: Any,
        out: Any = None,
        *,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        timeout: float | None = None,
    ) -> Array:
        """Sends block `j` of this rank's rows to rank `j`, and joins those received, in rank order.

        `tensor` is `(rows, ...)`. All blocks are alike, or `send_counts[j]` rows go to rank `j` and
        `recv_counts[j]` come from it; give both or neither. Returns `out`, a new array unless given.

        >>> isobit.init().all_to_all(np.arange(3))
        array([0, 1, 2])
        """
        array = as_array("tensor", tensor)
        if (send_counts is None) != (recv_counts is None):
            raise ValueError("give both send_counts and recv_counts, or neither")
        sends = Blocks.split(self.world_size, array.shape, send_counts)
        if recv_counts is None:
            result = _output("out", out, sends.total, array.dtype)
            call(self._native.all_to_all, array, result, sends.total, None, None, timeout)
            return result
        rows = checked_counts("recv_counts", recv_counts, self.world_size)
        row = array.shape[1:]
        receives = Blocks.split(self.world_size, (sum(rows), *row), rows)
        result = _output("out", out, receives.total, array.dtype)
        # Ranks agree on the shape of a row; how many there are is between each two of them.
        call(self._native.all_to_all, array, result, row, sends.elements, receives.elements, timeout)
        return result

    def barrier(self, *, timeout: float | None = None) -> None:
        """Returns once every rank has called it.

        >>> isobit.init().barrier()
        """
        self._native.barrier(timeout)

    def send(self, tensor: Any, dst: int, tag: int = 0, *, timeout: float | None = None) -> None:
        """Sends the tensor to rank `dst`, whose next `recv` from this rank must have its shape, dtype and tag.

        Returns when `dst` has received and verified it.

        >>> a, b = isobit.memory_group(2)
        >>> import threading
        >>> sender = threading.Thread(target=a.send, args=(np.arange(3), 1))
        >>> sender.start()
        >>> b.recv(np.zeros(3, int), 0)
        array([0, 1, 2])
        >>> sender.join()
        """
        call_in(self._native.send, tensor, dst, tag, timeout)

    def recv(self, tensor: Any, src: int, tag: int = 0, *, timeout: float | None = None) -> Any:
        """Receives into the tensor what rank `src` sends with `tag`. Returns it. See `send`."""
        call_in_place(self._native.recv, tensor, src, tag, timeout)
        return tensor

    def accumulate(
        self,
        num_leaves: int,
        *,
        order: Order = "tree",
        accumulate: DtypeLike = None,
        out_dtype: DtypeLike = None,
        shape: tuple[int, ...] | None = None,
        dtype: DtypeLike = None,
    ) -> Accumulation:
        """A reduction over `num_leaves` leaves that are added one by one: the same bits at every world size.

        Each rank owns a run of the leaves. Shape and dtype are those of the first leaf added; a rank that
        owns none (more ranks than leaves) must be told them, here or by `out=`.

        >>> with isobit.init().accumulate(num_leaves=3) as acc:
        ...     for leaf in acc.leaves:
        ...         acc.add(leaf, np.full(2, leaf, np.float32))
        ...     acc.all_reduce(op="mean")
        array([1., 1.], dtype=float32)
        """
        accumulate = None if accumulate is None else name_of(accumulate)
        to = None if out_dtype is None else dtype_of(out_dtype)
        return Accumulation(
            self._native,
            num_leaves,
            order=order,
            accumulate=accumulate,
            out_dtype=to,
            shape=shape,
            dtype=None if dtype is None else dtype_of(dtype),
        )

    def abort(self, reason: str = "no reason given") -> None:
        """Ends the group's work: calls in progress and to come raise `isobit.Aborted`, on every rank.

        >>> comm = isobit.init()
        >>> comm.abort("the loss is NaN")
        """
        self._native.abort(reason)

    def close(self) -> None:
        """Leaves the group. Peers that still wait for this rank get `isobit.PeerLost`. Twice is once."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<isobit.Communicator rank {self.rank} of {self.world_size}, {self.transport}>"


def _result(name: str, tensor: Any, out: Any, out_dtype: DtypeLike) -> Any:
    """The array for a result of the tensor's shape in `out_dtype`: `out`, the tensor, or a new one."""
    array, dtype = as_array("tensor", tensor), dtype_of(out_dtype)
    if out is not None:
        return _output(name, out, array.shape, dtype, checked=True)
    return tensor if array.dtype == dtype else np.empty(array.shape, dtype)


def _output(name: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], *, checked: bool = False) -> Array:
    """`out` if it fits, a new array if there is none."""
    if out is None:
        return np.empty(shape, dtype)
    array = writable_array(name, out)
    check_shape(name, array, shape)
    if checked and array.dtype != dtype:
        raise TypeError(f"{name} is {array.dtype}, but out_dtype asks for {dtype}")
    return array
