"""The `_v` forms: the collectives whose blocks differ in rows, with the counts where MPI's users expect them.

Each is the plain collective, which takes the same counts as a keyword: ranks may mix the two names in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isobit.dtypes import DtypeLike
from isobit.movements import Movements
from isobit.reductions import Reductions
from isobit.session import Op, Order, collective


class Vectors(Reductions, Movements):
    """What a communicator moves and combines in blocks of any size."""

    __slots__ = ()

    @collective
    def all_gather_v(
        self,
        tensor: Any,
        counts: Sequence[int],
        out: Any = None,
        *,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Joins the tensors of all ranks along the first axis: `counts[i]` rows, or none, from rank `i`.

        `tensor` is `(counts[rank], ...)`; every rank gives the same counts. Returns `out`, `(sum(counts), ...)`, a
        new array unless given; `tensor` may be this rank's rows of it. As `all_gather` with `counts=`.

        >>> isobit.init().all_gather_v(np.arange(3), [3])
        array([0, 1, 2])
        """
        return self.all_gather(tensor, out, counts=_given("counts", counts), timeout=timeout, async_op=async_op)

    @collective
    def gather_v(
        self,
        tensor: Any,
        counts: Sequence[int],
        out: Any = None,
        *,
        root: int = 0,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Joins the tensors of all ranks as `all_gather_v` does; rank `root` gets the result, the others `None`.

        >>> isobit.init().gather_v(np.ones((2, 1)), [2])
        array([[1.],
               [1.]])
        """
        counts = _given("counts", counts)
        return self.gather(tensor, out, root=root, counts=counts, timeout=timeout, async_op=async_op)

    @collective
    def scatter_v(
        self,
        tensor: Any,
        counts: Sequence[int],
        out: Any = None,
        *,
        root: int = 0,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Splits rank `root`'s tensor along its first axis: rank `i` gets `counts[i]` rows, or none.

        The root gives `tensor`, `(sum(counts), ...)`; the others give `None` for it, and `out`, `(counts[rank], ...)`,
        which says what they expect. Returns `out`, at the root a new array unless given. As `scatter` with `counts=`.

        >>> isobit.init().scatter_v(np.arange(2), [2])
        array([0, 1])
        """
        counts = _given("counts", counts)
        return self.scatter(tensor, out, root=root, counts=counts, timeout=timeout, async_op=async_op)

    @collective
    def reduce_scatter_v(
        self,
        tensor: Any,
        counts: Sequence[int],
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
        """Combines the tensors of all ranks; rank `i` gets `counts[i]` rows, or none, after those of lower ranks.

        `tensor` is `(sum(counts), ...)`, the same shape on every rank. Returns `out`, `(counts[rank], ...)`, a new
        array unless given. The bits are those of `all_reduce`. As `reduce_scatter` with `counts=`.

        >>> isobit.init().reduce_scatter_v(np.array([1.5, 2.5]), [2], op="mean")
        array([1.5, 2.5])
        """
        return self.reduce_scatter(
            tensor,
            out,
            op=op,
            order=order,
            accumulate=accumulate,
            out_dtype=out_dtype,
            divisor=divisor,
            counts=_given("counts", counts),
            timeout=timeout,
            async_op=async_op,
        )

    @collective
    def all_to_all_v(
        self,
        tensor: Any,
        send_counts: Sequence[int],
        recv_counts: Sequence[int],
        out: Any = None,
        *,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Sends `send_counts[j]` rows, or none, to each rank `j`, and joins those received, in rank order.

        `tensor` is `(sum(send_counts), ...)`, and what rank `i` sends to `j` must be what `j` expects of `i`.
        Returns `out`, `(sum(recv_counts), ...)`, a new array unless given. As `all_to_all` with its counts.

        >>> isobit.init().all_to_all_v(np.arange(3), [3], [3])
        array([0, 1, 2])
        """
        sends, receives = _given("send_counts", send_counts), _given("recv_counts", recv_counts)
        return self.all_to_all(tensor, out, send_counts=sends, recv_counts=receives, timeout=timeout, async_op=async_op)


def _given(name: str, counts: Sequence[int]) -> Sequence[int]:
    """The counts, which the plain collectives alone can do without."""
    if counts is None:
        raise TypeError(f"{name} is needed here, one number of rows a rank; blocks that are alike need no _v")
    return counts
