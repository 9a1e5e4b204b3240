"""How close the collectives come to what the host's memory can do: bare copies of the same bytes, in turn with them.

    isobit run -n 2 benches/bounds.py

Every rank's tensor has to be read and every rank's result to be written, once at least: all ranks at once copy as many
bytes in their own memory. Who can't read other processes' tensors has to carry what crosses through memory that two
ranks share: they do that as well, with numpy, with the additions, but without checksums, headers, mismatch checks, and
without waiting for each other (so that what they carry is anything).
Prints medians in microseconds, from the first rank's begin to the last one's end, and how much of isobit's time the
bare work takes: 1.00 is as fast as that.
"""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable
from functools import partial

import isobit
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MIB = 1 << 20
SIZES = (64 << 10, 256 << 10, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")
# As the library's.
RING, PIECE = 2 * MIB, 128 << 10


def shared(comm: isobit.Communicator) -> list[Floats]:
    """A ring from each rank to the next, in memory that all have."""
    fd = os.memfd_create("bounds") if comm.rank == 0 else -1
    if comm.rank == 0:
        os.ftruncate(fd, RING * comm.world_size)
    path = comm.broadcast_object(f"/proc/{os.getpid()}/fd/{fd}")
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), RING * comm.world_size)
    comm.barrier()
    return list(np.frombuffer(memory, np.float32).reshape(comm.world_size, -1))


class Bare:
    """The work of one collective of one size, without the library."""

    def __init__(self, comm: isobit.Communicator, rings: list[Floats], collective: str, count: int) -> None:
        self.collective, self.ranks, self.rank = collective, comm.world_size, comm.rank
        self.outgoing, self.incoming = rings[self.rank], rings[(self.rank + 1) % self.ranks]
        self.at = 0
        block = count // self.ranks
        given, got = {
            "all_gather": (block, count),
            "reduce_scatter": (count, block),
            "broadcast": (count if self.rank == 0 else 0, count),
        }.get(collective, (count, count))
        self.given: Floats = np.ones(given, np.float32)
        self.got: Floats = np.zeros(got, np.float32)
        self.block = block
        read = {"all_gather": count, "broadcast": count}.get(collective, count * self.ranks)
        written = {"reduce_scatter": count, "broadcast": count * (self.ranks - 1)}.get(collective, count * self.ranks)
        own = (read + written) // 2 // self.ranks
        self.source: Floats = np.ones(own, np.float32)
        self.copied: Floats = np.zeros(own, np.float32)

    def copy(self) -> None:
        """As many bytes read and written, in this rank's own memory."""
        np.copyto(self.copied, self.source)

    def through(self) -> None:
        """What crosses is put into a ring and taken out of one; with two ranks."""
        mine, other = (slice(rank * self.block, (rank + 1) * self.block) for rank in (self.rank, 1 - self.rank))
        if self.collective == "broadcast":
            if self.rank == 0:
                self.carry(self.given, None)
            else:
                self.carry(None, self.got)
        elif self.collective == "all_gather":
            self.carry(self.given, self.got[other], (self.given, self.got[mine]))
        elif self.collective == "all_to_all":
            self.carry(self.given[other], self.got[other], (self.given[mine], self.got[mine]))
        elif self.collective == "reduce_scatter":
            self.carry(self.given[other], self.got, adds=self.given[mine])
        else:
            self.carry(self.given[other], self.got[mine], adds=self.given[mine], then=self.got[other])

    def carry(
        self,
        sent: Floats | None,
        got: Floats | None,
        own: tuple[Floats, Floats] | None = None,
        adds: Floats | None = None,
        then: Floats | None = None,
    ) -> None:
        """Piece by piece: out, in, perhaps a sum with what this rank has, and the sum out and in again."""
        size = PIECE // 4
        for start in range(0, max(len(each) for each in (sent, got) if each is not None), size):
            piece = slice(start, start + size)
            if sent is not None:
                np.copyto(self.place(sent[piece])[0], sent[piece])
            if own is not None:
                np.copyto(own[1][piece], own[0][piece])
            if got is None:
                continue
            came = self.place(got[piece])[1]
            if adds is None:
                np.copyto(got[piece], came)
            else:
                np.add(came, adds[piece], out=got[piece])
            if then is not None:
                out, came = self.place(got[piece])
                np.copyto(out, got[piece])
                np.copyto(then[piece], came)

    def place(self, piece: Floats) -> tuple[Floats, Floats]:
        """The next place in both rings."""
        self.at = 0 if self.at + len(piece) > RING // 4 else self.at
        place = slice(self.at, self.at + len(piece))
        self.at += len(piece)
        return self.outgoing[place], self.incoming[place]

    def library(self, comm: isobit.Communicator) -> Callable[[], object]:
        """The same work by the library."""
        if self.collective == "broadcast":
            tensor = self.given if self.rank == 0 else self.got
            return partial(comm.broadcast, tensor, root=0)
        return partial(getattr(comm, self.collective), self.given, self.got)


def medians(comm: isobit.Communicator, rounds: int, *ways: Callable[[], object]) -> list[float]:
    """The median time of each way in microseconds; the first two rounds count for nothing."""
    starts, ends = np.zeros((2, rounds + 2, len(ways)))
    for number in range(rounds + 2):
        for which, way in enumerate(ways):
            comm.barrier()
            # One clock for all processes: ranks that share a core work one after the other.
            starts[number, which] = time.monotonic()
            way()
            ends[number, which] = time.monotonic()
    times = comm.all_reduce(ends, op="max") - comm.all_reduce(starts, op="min")
    return [statistics.median(column) * 1e6 for column in times[2:].T.tolist()]


def main() -> None:
    """A line for each collective and size."""
    with isobit.init() as comm:
        rings = shared(comm)
        if comm.rank == 0:
            print(f"isobit on {comm.world_size} ranks, {len(os.sched_getaffinity(0))} cores; microseconds")
            columns = ("isobit", "bare copy", "share", "bare ring", "share")
            print(f"{'':<16}{'bytes':>10}" + "".join(f"{name:>11}" for name in columns))
        for collective in COLLECTIVES:
            for size in SIZES:
                bare = Bare(comm, rings, collective, size // 4)
                ways = [bare.library(comm), bare.copy, *([bare.through] if comm.world_size == 2 else [])]
                found = medians(comm, min(200, max(15, 512 * MIB // size)), *ways)
                if comm.rank == 0:
                    shares = "".join(f"{each:>11.1f}{each / found[0]:>11.2f}" for each in found[1:])
                    print(f"{collective:<16}{size:>10}{found[0]:>11.1f}{shares}", flush=True)


if __name__ == "__main__":
    main()
