"""The collectives that move: all_gather, gather, scatter, broadcast, all_to_all, barrier, send and recv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isobit import _native
from isobit.arrays import Array, as_array, call, call_in, call_in_place, finish, writable_array
from isobit.blocks import Blocks, checked_counts
from isobit.lists import each, is_list
from isobit.outputs import output_array
from isobit.session import Session, collective, shortcut


class Movements(Session):
    """What a communicator moves."""

    __slots__ = ()

    @shortcut
    @collective
    def all_gather(
        self,
        tensor: Any,
        out: Any = None,
        *,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Joins the tensors of all ranks along the first axis, in rank order; every rank gets the result.

        `tensor` is `(rows, ...)`, alike on every rank, or of `counts[i]` rows on rank `i`; of no dimension, it counts
        as one row. Returns `out`, a new array of all rows unless given. Of a list of tensors, alike on
        every rank, each is joined.

        >>> isobit.init().all_gather(np.arange(3))
        array([0, 1, 2])
        """
        if is_list(tensor):
            if counts is not None:
                raise ValueError("counts= is for one tensor, not for a list")

            def flat(given: Array, memory: Array, shape: list[int]) -> _native.Work | None:
                return self._native.all_gather(given, memory, shape, None, timeout, async_op)

            return each(flat, tensor, out, joined=self.world_size)
        array = as_array("tensor", tensor)
        blocks = Blocks.join(self.world_size, self.rank, array.shape, counts)
        result = output_array("out", out, blocks.total, array.dtype)
        rest = (blocks.total, blocks.elements, timeout, async_op)
        own = blocks.rows_of(self.rank)
        return call(self._native.all_gather, array, result, *rest, result=result, own=own)

    @collective
    def gather(
        self,
        tensor: Any,
        out: Any = None,
        *,
        root: int = 0,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
        """Joins the tensors of all ranks as `all_gather` does; rank `root` gets the result, the others `None`.

        >>> isobit.init().gather(np.array(7.0))
        array([7.])
        """
        array = as_array("tensor", tensor)
        blocks = Blocks.join(self.world_size, self.rank, array.shape, counts)
        result = output_array("out", out, blocks.total, array.dtype) if self.rank == root else None
        rest = (blocks.total, root, blocks.elements, timeout, async_op)
        own = blocks.rows_of(self.rank)
        return call(self._native.gather, array, result, *rest, result=result, own=own)

    @collective
    def scatter(
        self,
        tensor: Any = None,
        out: Any = None,
        *,
        root: int = 0,
        counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
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
            result = output_array("out", out, blocks.shape_of(self.rank), array.dtype)
            rest = (blocks.total, root, blocks.elements, timeout, async_op)
            own = blocks.rows_of(self.rank)
            return call(self._native.scatter, array, result, *rest, result=result, own=own)
        if out is None:
            raise ValueError(
                f"rank {self.rank} is not the root of this scatter: it must give out, to say what it expects"
            )
        result = writable_array("out", out)
        if not result.shape:
            raise ValueError("out has no dimension: a block has at least one, that of its rows")
        blocks = Blocks.join(self.world_size, self.rank, result.shape, counts)
        rest = (blocks.total, root, blocks.elements, timeout, async_op)
        return call(self._native.scatter, None, out, *rest, result=out, absent=True)

    @shortcut
    @collective
    def broadcast(self, tensor: Any, *, root: int = 0, timeout: float | None = None, async_op: bool = False) -> Any:
        """Copies rank `root`'s tensor into every other rank's, which has the same shape and dtype. Returns it.

        A list of tensors is copied in one call.

        >>> isobit.init().broadcast(np.arange(3))
        array([0, 1, 2])
        """
        if is_list(tensor):

            def flat(given: Array, _: Array, shape: list[int]) -> _native.Work | None:
                return self._native.broadcast(given, root, shape, timeout, async_op)

            return each(flat, tensor, None)
        return call_in_place(self._native.broadcast, tensor, root, None, timeout, async_op, result=tensor)

    @shortcut
    @collective
    def all_to_all(
        self,
        tensor: Any,
        out: Any = None,
        *,
        send_counts: Sequence[int] | None = None,
        recv_counts: Sequence[int] | None = None,
        timeout: float | None = None,
        async_op: bool = False,
    ) -> Any:
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
            result = output_array("out", out, sends.total, array.dtype)
            rest: tuple[Any, ...] = (sends.total, None, None, timeout, async_op)
            return call(self._native.all_to_all, array, result, *rest, result=result, apart=True)
        rows = checked_counts("recv_counts", recv_counts, self.world_size)
        row = array.shape[1:]
        receives = Blocks.split(self.world_size, (sum(rows), *row), rows)
        result = output_array("out", out, receives.total, array.dtype)
        # Ranks agree on the shape of a row; how many there are is between each two of them.
        rest = (row, sends.elements, receives.elements, timeout, async_op)
        return call(self._native.all_to_all, array, result, *rest, result=result, apart=True)

    @shortcut
    @collective
    def barrier(self, *, timeout: float | None = None, async_op: bool = False) -> Any:
        """Returns once every rank has called it.

        >>> isobit.init().barrier()
        """
        return finish(self._native.barrier(timeout, async_op), None)

    @collective
    def send(self, tensor: Any, dst: int, tag: int = 0, *, timeout: float | None = None, async_op: bool = False) -> Any:
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
        return call_in(self._native.send, tensor, dst, tag, timeout, async_op)

    @collective
    def recv(self, tensor: Any, src: int, tag: int = 0, *, timeout: float | None = None, async_op: bool = False) -> Any:
        """Receives into the tensor what rank `src` sends with `tag`. Returns it. See `send`."""
        return call_in_place(self._native.recv, tensor, src, tag, timeout, async_op, result=tensor)
