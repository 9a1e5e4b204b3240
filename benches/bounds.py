"""How close the collectives come to what the host can do: bare work on the same bytes, in turn with them.

    isobit run -n 2 benches/bounds.py

Every rank's tensor has to be read and every rank's result to be written, once at least: all ranks at once copy as many
bytes in their own memory. Who can't read other processes' tensors has to carry what crosses through memory that two
ranks share: `bare.c` does that as well, with the additions, but without checksums, headers, mismatch checks or
deadlines. Both are tried with stores through the caches and past them, and the fastest counts. The third is the
kernel's copy from one process to another (`process_vm_readv`), left out where it may not read other processes.
Prints medians in microseconds, from the first rank's begin to the last one's end, and how much of isobit's time the
bare work takes: 1.00 is as fast as that. Below 64 KiB, where calling from Python would be most of it, only the bare
work, of calls that follow each other: `isobit bench` measures the library there, from Rust. Buffers are on large
pages, as those of `isobit bench` are: with them the kernel copies 1.4 to 1.65 times as fast. It makes no checksum
meanwhile: the last column is its copies where both sides read what crossed once more, as any checksum has to.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import isobit
import numpy as np
from isobit.bench.groups import LARGE_PAGES
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Way = Callable[[Times, Times], object]
MIB = 1 << 20
SMALL = (8, 64, 256, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10)
SIZES = (64 << 10, 256 << 10, MIB, 4 * MIB, 16 * MIB, 64 * MIB)
COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast")
COPY = len(COLLECTIVES)
# As in bare.c: how results are stored, whether every rank sends all of its tensor to all others, and who copies.
RESULT_STREAMED, AT_ONCE, BY_KERNEL, READ_TOO = 2, 4, 8, 16
# Up to so many bytes of an all_reduce that is tried.
AT_ONCE_MAX = 256 << 10
ROUNDS = 5
# As in bare.c.
RANKS_MAX = 64


def compiled(comm: isobit.Communicator) -> ctypes.CDLL | None:
    """`bare.c`, for this processor; or None where it can't be compiled, which the first rank's stderr explains."""
    with tempfile.TemporaryDirectory() as folder:
        library, source = Path(folder, "bare.so"), Path(__file__).with_name("bare.c")
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)]
        path: str | None = None
        if comm.rank == 0:
            try:
                subprocess.run(command, check=True, timeout=60)
                path = str(library)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"bare.c needs x86-64 with AVX2 and a C compiler, installed as cc: {error}", file=sys.stderr)
        path = comm.broadcast_object(path)
        if path is None:
            return None
        bare = ctypes.CDLL(path)
        comm.barrier()
    bare.bare_bytes.restype = bare.bare_size.restype = ctypes.c_size_t
    return bare


def tensors(given: int, got: int) -> tuple[Floats, Floats]:
    """A tensor and a result of so many elements, touched."""
    return np.ones(given, np.float32), np.ones(got, np.float32)


class Bare:
    """Rings between all ranks, and loops over them."""

    def __init__(self, comm: isobit.Communicator, library: ctypes.CDLL) -> None:
        self.library, self.ranks, self.rank = library, comm.world_size, comm.rank
        # As the library's.
        ring = ctypes.c_size_t(2 * MIB if self.ranks == 2 else MIB)
        size = self.library.bare_bytes(self.ranks, ring)
        fd = os.memfd_create("bounds") if comm.rank == 0 else -1
        if comm.rank == 0:
            os.ftruncate(fd, size)
        path = comm.broadcast_object(f"/proc/{os.getpid()}/fd/{fd}")
        with open(path, "r+b") as file:
            self.memory = ctypes.c_char.from_buffer(mmap.mmap(file.fileno(), size))
        self.state = ctypes.create_string_buffer(self.library.bare_size())
        cores = len(os.sched_getaffinity(0))
        self.library.bare_init(self.state, ctypes.byref(self.memory), ring, self.ranks, self.rank, cores)
        comm.barrier()

    def meet(self, comm: isobit.Communicator, given: Floats, got: Floats) -> None:
        """Tells all ranks where this one's tensors are, for the kernel."""
        own = (os.getpid(), given.ctypes.data, got.ctypes.data)
        for rank, (process, *places) in enumerate(comm.all_gather_object(own)):
            self.library.bare_meet(self.state, rank, process, *map(ctypes.c_void_p, places))

    def work(self, what: int, given: Floats, got: Floats, count: int, way: int) -> Way:
        """`count` elements of the whole tensor, one way; it notes when each call began and ended."""

        def run(begun: Times, ended: Times) -> None:
            self.library.bare_time(
                self.state,
                what,
                ctypes.c_void_p(given.ctypes.data),
                ctypes.c_void_p(got.ctypes.data),
                ctypes.c_size_t(count),
                way,
                len(begun),
                ctypes.c_void_p(begun.ctypes.data),
                ctypes.c_void_p(ended.ctypes.data),
            )

        return run


class Case:
    """One collective of one size: by the library, as bare copies, and through bare rings."""

    def __init__(self, comm: isobit.Communicator, bare: Bare, collective: str, count: int) -> None:
        block, is_root = count // comm.world_size, comm.rank == 0
        given, got = {
            "all_gather": (block, count),
            "reduce_scatter": (count, block),
            "broadcast": (count if is_root else 0, 0 if is_root else count),
        }.get(collective, (count, count))
        # Memory of its own for each way: stores past the caches take a result out of them.
        self.given, self.got = tensors(given, got)
        cached, streamed = tensors(given, got), tensors(given, got)
        read = {"all_gather": count, "broadcast": count}.get(collective, count * comm.world_size)
        written = {
            "reduce_scatter": count,
            "broadcast": count * (comm.world_size - 1),
        }.get(collective, count * comm.world_size)
        own = (read + written) // 2 // comm.world_size
        self.copies = [bare.work(COPY, *tensors(own, own), own, way) for way in (0, RESULT_STREAMED)]
        what = COLLECTIVES.index(collective)
        ways = [*range(4), *([AT_ONCE] if collective == "all_reduce" and count * 4 <= AT_ONCE_MAX else [])]
        if count * 4 < SIZES[0]:
            ways = [AT_ONCE]
        self.through = [bare.work(what, *(streamed if way & RESULT_STREAMED else cached), count, way) for way in ways]
        self.by_kernel = [bare.work(what, *cached, count, way) for way in (BY_KERNEL, BY_KERNEL | READ_TOO)]
        bare.meet(comm, *cached)
        call = partial(getattr(comm, collective), self.given, self.got)
        if collective == "broadcast":
            call = partial(comm.broadcast, self.given if is_root else self.got, root=0)
        self.call: Callable[[], object] = call

    def library(self, begun: Times, ended: Times) -> None:
        """The library's own."""
        begun[0] = time.monotonic()
        self.call()
        ended[0] = time.monotonic()


def following(comm: isobit.Communicator, way: Way) -> float:
    """The median time in microseconds of calls that follow each other, each as long as its slowest rank."""
    begun, ended = np.zeros((2, 10_000))
    way(begun, ended)
    times = comm.all_reduce(ended - begun, op="max")
    return float(statistics.median(times.tolist())) * 1e6


def in_turn(comm: isobit.Communicator, calls: int, ways: list[Way]) -> list[float]:
    """The median time of each way in microseconds, in five rounds; the first three calls of each find other caches."""
    begun, ended = np.zeros((2, len(ways), ROUNDS, calls + 3, 1))
    for number in range(ROUNDS):
        for which, way in enumerate(ways):
            for call in range(calls + 3):
                comm.barrier()
                way(begun[which, number, call], ended[which, number, call])
    # One clock for all processes: ranks that share a core work one after the other.
    times = comm.all_reduce(ended, op="max") - comm.all_reduce(begun, op="min")
    return [statistics.median(each[:, 3:].ravel().tolist()) * 1e6 for each in times]


def main() -> None:
    """A line for each collective and size."""
    if os.environ.get("GLIBC_TUNABLES") != LARGE_PAGES:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": LARGE_PAGES})
    with isobit.init() as comm:
        library = compiled(comm)
        if library is None or comm.world_size > RANKS_MAX:
            sys.exit(f"bounds.py can't measure: it needs bare.c compiled, and {RANKS_MAX} ranks at most")
        bare = Bare(comm, library)
        say = print if comm.rank == 0 else (lambda *_, **__: None)
        say(f"isobit on {comm.world_size} ranks, {len(os.sched_getaffinity(0))} cores; microseconds")
        columns = ("isobit", "bare copy", "share", "bare ring", "share", "by kernel", "share", "and read", "share")
        say(f"{'':<16}{'bytes':>10}" + "".join(f"{name:>11}" for name in columns))
        for size in SMALL:
            case = Case(comm, bare, "all_reduce", size // 4)
            say(f"{'all_reduce':<16}{size:>10}{'':>33}{following(comm, case.through[0]):>11.2f}", flush=True)
        for collective in COLLECTIVES:
            for size in SIZES:
                case = Case(comm, bare, collective, size // 4)
                ways = [case.library, *case.by_kernel, *case.copies, *case.through]
                ours, *found = in_turn(comm, min(50, max(4, 128 * MIB // size)), ways)
                kernel, copies, through = found[:2], found[2 : 2 + len(case.copies)], found[-len(case.through) :]
                shown = [min(copies), min(through), *([] if library.bare_refused(bare.state) else kernel)]
                shares = "".join(f"{each:>11.1f}{each / ours:>11.2f}" for each in shown)
                say(f"{collective:<16}{size:>10}{ours:>11.1f}{shares}", flush=True)


if __name__ == "__main__":
    main()
