"""The communicator: a rank's handle on its group, with every collective."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from isobit import _native
from isobit.accumulation import Accumulation
from isobit.dtypes import DtypeLike, dtype_of, name_of
from isobit.explanation import Explanation
from isobit.objects import Objects
from isobit.session import Op, Order, collective
from isobit.vectors import Vectors


class Communicator(Vectors, Objects):
    """A rank's handle on its group; `isobit.init` and `isobit.memory_group` make them.

    Every rank makes the same calls in the same order; ranks that do not get `isobit.Desync`.

    **Arrays**: numpy arrays, those of ml_dtypes among them, torch tensors on the CPU, and anything with DLPack, a
    buffer or `__array_interface__`; of float8_e4m3fn, float8_e5m2, float16, bfloat16, float32, float64, int8 to
    int64, uint8 to uint64 or bool; of any shape, zero elements and no dimension included; strided, transposed
    and reversed ones are copied on the way, and arrays over mapped files through the kernel. Others are a `TypeError`.
    Of a torch tensor that requires grad the values are read as `detach()` gives them; it is no output, but under
    `torch.no_grad()`. bfloat16 and the 8-bit floats need ml_dtypes installed.

    **Lists**: `all_reduce`, `broadcast` and `all_gather` take a list of tensors as one call, with the bits of one each.

    **In the background**: with `async_op=True` a call returns an `isobit.Work` at once.

    **Reductions** take `op`, `order`, `accumulate`, `out_dtype` and `divisor`. `order="tree"` combines leaf `i`,
    which is rank `i`'s tensor, in a fixed binary tree; `order="exact"` gives the correctly rounded
    sum or mean. `accumulate` is the dtype of the tree's inner nodes: "f32" for 8- and 16-bit floats and
    "f64" for f32 and f64 unless given. `divisor` is what a mean divides by, the number of leaves
    unless given. The bits of a result are a function of the leaves and of these alone (docs/law.md).

    **Deadlines**: `timeout` is in seconds, per call; the group's default unless given.

    **Errors** of every call: `Timeout`, `PeerLost`, `Desync`, `ContractMismatch`, `Corruption`, `Aborted`, all of
    them `isobit.Error`; wrong arguments are `TypeError` and `ValueError`, and the other ranks' calls then raise
    `RemoteArgumentError`. The group goes on with the next call, except after `PeerLost`, `Corruption` and `abort`.
    Where ranks disagree about a collective, it raises on all of them, and tensors and `out` hold their old bits.

    One thread uses a communicator at a time; a second one gets `ConcurrentUseError`, a forked child
    `ForkedProcessError`. Threads that work at the same time take one group each: see `split`.

    >>> with isobit.init() as comm:
    ...     comm.rank, comm.world_size, comm.all_reduce(np.ones(2))
    (0, 1, array([1., 1.]))
    """

    __slots__ = ("__weakref__", "_closed", "local_rank")

    #: This rank's number among those of its host, from 0.
    local_rank: int

    def __init__(self, native: _native.Communicator, local_rank: int) -> None:
        super().__init__(native)
        self.local_rank = local_rank
        self._closed = False

    @property
    def epoch(self) -> int:
        """How often the group has started afresh after a call that failed on every rank."""
        return self._native.epoch

    @property
    def closed(self) -> bool:
        """Whether `close` was called here."""
        return self._closed

    @property
    def transport(self) -> str:
        """What carries the bytes: `"shm"` or `"memory"`."""
        return self._native.transport

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

    @collective
    def split(self, color: int | None, key: int = 0, *, timeout: float | None = None) -> Communicator | None:
        """Splits the group: the ranks that give the same color (0 or more) form one, numbered by key, then by rank.

        A rank that gives `None` joins none and gets `None`. Every rank of this group must call it. The new group
        has an order of calls of its own: another thread may use it while this one is in use.

        >>> isobit.init().split(color=0).world_size
        1
        """
        return self._group(self._native.split(color, key, timeout))

    @collective
    def new_group(self, ranks: Sequence[int], *, timeout: float | None = None) -> Communicator | None:
        """The group of the given ranks, numbered in the order given; `None` on the others.

        Every rank of this group must call it, with the same ranks.

        >>> isobit.init().new_group([0]).rank
        0
        """
        return self._group(self._native.new_group([checked_rank(rank) for rank in ranks], timeout))

    def _group(self, native: _native.Communicator | None) -> Communicator | None:
        return None if native is None else Communicator(native, self.local_rank)

    def explain(
        self,
        collective: str,
        shape: int | Sequence[int] = (),
        dtype: DtypeLike = "f32",
        *,
        op: Op = "sum",
        order: Order = "tree",
        accumulate: DtypeLike = None,
        out_dtype: DtypeLike = None,
        num_leaves: int | None = None,
        root: int = 0,
    ) -> Explanation:
        """Says what a call would do on this rank, without making it: algorithm, messages, bytes, staging.

        `shape` is that of the tensor which this rank would pass, or how many elements it has. Of a reduction it
        also says what `num_leaves` leaves (one a rank, unless given) cost at this world size.

        >>> print(isobit.init().explain("all_reduce", (1000, 1000), "bf16", num_leaves=8))
        all_reduce of 1000000 bf16 on rank 0 of 1: one-shot
          steps                62
          messages             0 sent, 0 received
          bytes on the wire    0 sent, 0 received (2000000 in the tensor)
          staging              0 bytes
          8 leaves             1 contribution a rank, on average
        """
        count = shape if isinstance(shape, int) else math.prod(shape)
        name = name_of(dtype)
        told = self._native.explain(
            collective,
            count,
            name,
            op,
            order,
            None if accumulate is None else name_of(accumulate),
            None if out_dtype is None else name_of(out_dtype),
            num_leaves,
            root,
        )
        return Explanation(
            collective=collective, rank=self.rank, world_size=self.world_size, elements=count, dtype=name, **told
        )

    @property
    def flight_recorder(self) -> list[dict[str, Any]]:
        """The last 256 operations of this rank, the latest at the end (docs/debugging.md names the fields).

        >>> comm = isobit.init()
        >>> comm.barrier()
        >>> [(record["operation"], record["state"]) for record in comm.flight_recorder]
        [('barrier', 'completed')]
        """
        import json  # only where it is needed: it is the larger part of what an import of isobit would cost

        return [json.loads(line) for line in self._native.flight_recorder.json("").splitlines()[1:]]

    def dump_flight_recorder(self, path: str | os.PathLike[str]) -> None:
        """Writes the flight recorder to a file, for `isobit flight`; also while another thread is in a call."""
        self._native.flight_recorder.dump(path, "dump_flight_recorder")

    def abort(self, reason: str = "no reason given") -> None:
        """Ends the group's work: calls in progress and to come raise `isobit.Aborted`, on every rank.

        Any thread may call it at any time.

        >>> comm = isobit.init()
        >>> comm.abort("the loss is NaN")
        """
        self._native.abort(reason)

    def close(self) -> None:
        """Leaves the group. Peers that still wait for this rank get `isobit.PeerLost`. Twice is once."""
        self._native.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<isobit.Communicator rank {self.rank} of {self.world_size}, {self.transport}>"


def checked_rank(rank: Any) -> int:
    """A rank's number, as an integer that the native layer can take."""
    number = operator.index(rank)
    if not 0 <= number < 1 << 32:
        raise ValueError(f"rank {number} is no rank")
    return number
