"""How a rank calls each library from Python, as its users do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from isobit.bench.cases import Case
from isobit.bench.pattern import Array

Call = Callable[[], Any]


class UnsupportedError(Exception):
    """The library has no such operation, or not for this dtype."""


class Caller(Protocol):
    """A library in this process, on a group of `ranks` ranks."""

    version: str
    rank: int
    ranks: int

    def barrier(self) -> Any:
        """Waits for all ranks."""

    def prepare(self, case: Case, given: Array, out: Array) -> tuple[Call, Call | None]:
        """The call to be timed, and what has to be done before each and is not timed."""

    def close(self) -> None:
        """Leaves the group in good order."""


def nothing() -> None:
    """What a rank does that has no part in the operation."""


def as_torch(array: Array) -> Any:
    """The same memory as a tensor."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise UnsupportedError(f"torch has no {array.dtype}") from None


class Isobit:
    """isobit, over shared memory between this host's processes."""

    def __init__(self, buffers: str) -> None:
        import isobit

        self._buffers = buffers
        self._comm = isobit.init(timeout=100.0)
        self.version = isobit.__version__
        self.rank, self.ranks = self._comm.rank, self._comm.world_size
        self.barrier = self._comm.barrier

    def prepare(self, case: Case, given: Array, out: Array) -> tuple[Call, Call | None]:
        comm, rank = self._comm, self.rank
        order: Any = case.order
        is_root = rank == 0
        x, y = (as_torch(each) if self._buffers == "torch" else each for each in (given, out))
        calls: dict[str, Call] = {
            "all_reduce": lambda: comm.all_reduce(x, y, order=order),
            "reduce": lambda: comm.reduce(x, y if is_root else None, order=order),
            "reduce_scatter": lambda: comm.reduce_scatter(x, y, order=order),
            "all_gather": lambda: comm.all_gather(x, y),
            "gather": lambda: comm.gather(x, y if is_root else None),
            "scatter": lambda: comm.scatter(x if is_root else None, y),
            "broadcast": lambda: comm.broadcast(y),
            "all_to_all": lambda: comm.all_to_all(x, y),
            "barrier": comm.barrier,
            "send_recv": ping_pong(rank, lambda to: comm.send(x, to), lambda of: comm.recv(y, of)),
        }
        return calls[case.collective], None

    def close(self) -> None:
        self._comm.close()


class Gloo:
    """Gloo, as torch.distributed calls it; it reduces in place."""

    def __init__(self, buffers: str) -> None:
        import torch
        from torch import distributed

        self._distributed = distributed
        self.rank, self.ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        # torch numbers devices by this one's name: 127.0.0.1 whatever the host's own name leads to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        where = f"file://{os.environ['ISOBIT_BENCH_SOCKET']}.gloo"
        distributed.init_process_group("gloo", init_method=where, rank=self.rank, world_size=self.ranks)
        self.version = f"torch {torch.__version__.partition('+')[0]}"
        self.barrier = distributed.barrier

    def prepare(self, case: Case, given: Array, out: Array) -> tuple[Call, Call | None]:
        d, rank, ranks = self._distributed, self.rank, self.ranks
        x, y = as_torch(given), as_torch(out)
        if case.collective == "reduce" and rank != 0:
            # Gloo works in place on every rank.
            y = x.clone()
        blocks_in, blocks_out = ([*each.view(ranks, -1)] if each.numel() % ranks == 0 else [] for each in (x, y))
        is_root = rank == 0
        calls: dict[str, Call] = {
            "all_reduce": lambda: d.all_reduce(y),
            "reduce": lambda: d.reduce(y, 0),
            "reduce_scatter": lambda: d.reduce_scatter(y, blocks_in),
            "all_gather": lambda: d.all_gather(blocks_out, x),
            "gather": lambda: d.gather(x, blocks_out if is_root else None),
            "scatter": lambda: d.scatter(y, blocks_in if is_root else None),
            "broadcast": lambda: d.broadcast(y, 0),
            "all_to_all": lambda: d.all_to_all_single(y, x),
            "barrier": d.barrier,
            "send_recv": ping_pong(rank, lambda to: d.send(x, to), lambda of: d.recv(y, of)),
        }
        call = calls[case.collective]
        before = (lambda: y.copy_(x)) if case.collective in ("all_reduce", "reduce") else None
        if case.collective != "barrier":
            # By an all_reduce: of what has a root not every rank would know, and those that don't would hang later.
            _refusal(lambda: d.all_reduce(y.new_ones(1)))
            _refusal(lambda: d.reduce_scatter(y, blocks_in) if case.collective == "reduce_scatter" else None)
        return call, before

    def close(self) -> None:
        # A rank that leaves takes its connections with it.
        self._distributed.barrier()
        self._distributed.destroy_process_group()


class Mpi4py:
    """Whatever MPI this process was started with, through mpi4py."""

    def __init__(self, buffers: str) -> None:
        from mpi4py import MPI

        self._buffers = buffers
        self._comm = MPI.COMM_WORLD
        self.version = MPI.Get_library_version().splitlines()[0].strip("\0 ")
        self.rank, self.ranks = self._comm.rank, self._comm.size
        self.barrier = self._comm.Barrier

    def prepare(self, case: Case, given: Array, out: Array) -> tuple[Call, Call | None]:
        if case.dtype in ("f16", "bf16"):
            raise UnsupportedError(f"mpi4py has no {case.dtype} for every MPI")
        comm, rank = self._comm, self.rank
        is_root = rank == 0
        x, y = (as_torch(each) if self._buffers == "torch" else each for each in (given, out))
        calls: dict[str, Call] = {
            "all_reduce": lambda: comm.Allreduce(x, y),
            "reduce": lambda: comm.Reduce(x, y if is_root else None),
            "reduce_scatter": lambda: comm.Reduce_scatter_block(x, y),
            "all_gather": lambda: comm.Allgather(x, y),
            "gather": lambda: comm.Gather(x, y if is_root else None),
            "scatter": lambda: comm.Scatter(x if is_root else None, y),
            "broadcast": lambda: comm.Bcast(y),
            "all_to_all": lambda: comm.Alltoall(x, y),
            "barrier": comm.Barrier,
            "send_recv": ping_pong(rank, lambda to: comm.Send(x, to), lambda of: comm.Recv(y, of)),
        }
        return calls[case.collective], None

    def close(self) -> None:
        """mpi4py leaves the group when the process ends."""


def _refusal(call: Call) -> None:
    """What Gloo does not have it refuses on every rank, before anything is sent."""
    try:
        call()
    except (RuntimeError, ValueError) as error:
        raise UnsupportedError(str(error).splitlines()[0]) from None


def ping_pong(rank: int, send: Callable[[int], Any], recv: Callable[[int], Any]) -> Call:
    """There and back between ranks 0 and 1."""

    def first() -> None:
        send(1)
        recv(1)

    def second() -> None:
        recv(0)
        send(0)

    return first if rank == 0 else second if rank == 1 else nothing


CALLERS: dict[str, Callable[[str], Caller]] = {"isobit": Isobit, "gloo": Gloo, "mpi4py": Mpi4py}
