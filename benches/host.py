"""What `isobit bench` can't show: goals of one host that compare isobit with itself, or with doing without it.

    isobit run -n 2 benches/host.py

Both ways are done in turn, round by round, and an iteration takes as long as its slowest rank. Prints the ratio of the
medians and the goal.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

# As under torchrun: a rank computes in one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import isobit
import numpy as np
from bounds import compiled
from numpy.typing import NDArray

Floats = NDArray[np.float32]
MIB = 1 << 20


class Host:
    """A rank of the measurement."""

    def __init__(self, comm: isobit.Communicator) -> None:
        self.comm = comm

    def say(self, text: str) -> None:
        """Prints once."""
        if self.comm.rank == 0:
            print(text, flush=True)

    def seconds(self, rounds: int, *ways: Callable[[], object]) -> list[float]:
        """The median of each way; one round before counts for nothing."""
        times = np.zeros((rounds + 1, len(ways)))
        for number in range(rounds + 1):
            for which, way in enumerate(ways):
                self.comm.barrier()
                start = time.perf_counter()
                way()
                times[number, which] = time.perf_counter() - start
        self.comm.all_reduce(times, op="max")
        return [statistics.median(column) for column in times[1:].T.tolist()]

    def verdict(self, what: str, ratio: float, goal: float, unit: str = "times") -> None:
        """A line of the table."""
        self.say(f"{what:<74}{ratio:>8.2f}{goal:>8.2f} {unit:<5} {'met' if ratio <= goal else 'NOT MET'}")

    def accumulate(self) -> None:
        """A gradient of 25 million numbers in 64 leaves, against adding into one buffer and reducing that."""
        gradient = np.ones(25_000_000, np.float32)
        total = np.zeros_like(gradient)
        leaves = range(64 // self.comm.world_size)

        def with_leaves() -> Floats:
            with self.comm.accumulate(num_leaves=64) as acc:
                for leaf in acc.leaves:
                    acc.add(leaf, gradient)
                reduced: Floats = acc.all_reduce(out=total)
                return reduced

        def in_one_buffer() -> Floats:
            total[...] = 0
            for _ in leaves:
                np.add(total, gradient, out=total)
            reduced: Floats = self.comm.all_reduce(total)
            return reduced

        assert with_leaves()[0] == in_one_buffer()[0] == 64 // self.comm.world_size * self.comm.world_size
        ways = [with_leaves, in_one_buffer, *_bare_accumulation(self.comm, gradient, len(leaves))]
        ours, usual, *bare = self.seconds(3, *ways)
        self.verdict("accumulate(num_leaves=64) of 25M f32 against one buffer", ours / usual, 1.25)
        self.say(f"  {ours * 1e3:,.0f} ms against {usual * 1e3:,.0f} ms")
        for least in bare:
            self.say(f"  bare loops of the same steps, without the reduction: {least / usual:.2f}")

    def exact(self) -> None:
        """The exact order against the tree."""
        for size in (MIB, 16 * MIB):
            given = np.random.default_rng(self.comm.rank).standard_normal(size // 4, np.float32)
            out = np.empty_like(given)
            exact, tree = self.seconds(
                20,
                partial(self.comm.all_reduce, given, out, order="exact"),
                partial(self.comm.all_reduce, given, out),
            )
            self.verdict(f"exact order against tree order, all_reduce f32, {size // MIB} MiB", exact / tree, 1.15)

    def many(self) -> None:
        """1 000 tensors of 1 KiB in one call, against one of 1 MiB."""
        small: Sequence[Floats] = [np.full(256, number % 7, np.float32) for number in range(1000)]
        outs = [np.empty_like(each) for each in small]
        large = np.ones(MIB // 4, np.float32)
        out = np.empty_like(large)
        self.comm.all_reduce(small, outs)
        alone = [self.comm.all_reduce(each, np.empty_like(each)) for each in small]
        assert all(one.tobytes() == other.tobytes() for one, other in zip(outs, alone, strict=True))
        listed, single = self.seconds(
            20, lambda: self.comm.all_reduce(small, outs), lambda: self.comm.all_reduce(large, out)
        )
        self.verdict("a list of 1 000 tensors of 1 KiB against one of 1 MiB", listed / single, 3.0)

    def overlap(self) -> None:
        """64 MiB in the background of a matmul that takes as long."""
        tensor, out = np.ones(16 * MIB, np.float32), np.empty(16 * MIB, np.float32)
        side = 256
        left, right = np.ones((side, side), np.float32), np.ones((side, side), np.float32)
        alone, once = self.seconds(
            3, lambda: self.comm.all_reduce(tensor, out), lambda: [left @ right for _ in range(10)]
        )
        repeats = max(1, round(10 * alone / once))

        def compute() -> None:
            for _ in range(repeats):
                left @ right

        def both() -> None:
            work = self.comm.all_reduce(tensor, out, async_op=True)
            compute()
            work.wait()

        started = time.process_time()
        self.comm.all_reduce(tensor, out)
        cpu = time.process_time() - started
        reducing, computing, together = self.seconds(5, lambda: self.comm.all_reduce(tensor, out), compute, both)
        longer = max(reducing, computing)
        self.verdict("all_reduce of 64 MiB behind a matmul, against the longer of the two", together / longer, 1.25)
        # Each rank has one core: what both take of it can't be had in less.
        cores = len(os.sched_getaffinity(0))
        bound = (cpu + computing) * self.comm.world_size / cores / longer
        self.say(f"  computed bound, as all ranks' CPU time on {cores} cores: {max(1.0, bound):.2f}")

    def waiting(self) -> None:
        """CPU time of a rank that waits 100 ms for a slow peer."""
        spent = []
        given, out = np.ones(1024, np.float32), np.empty(1024, np.float32)
        for _ in range(5):
            self.comm.barrier()
            if self.comm.rank != 0:
                time.sleep(0.1)
            started = time.process_time()
            self.comm.all_reduce(given, out)
            spent.append(time.process_time() - started)
        self.verdict("CPU time of a rank that waits 100 ms for a slow peer", statistics.median(spent) * 1e3, 5.0, "ms")

    def staging(self) -> None:
        """What a rank holds besides its tensors after a large operation."""
        given, out = np.ones(64 * MIB, np.float32), np.empty(64 * MIB, np.float32)
        out.fill(0)
        before = _held()
        self.comm.all_reduce(given, out)
        self.comm.reduce_scatter(given, out[: len(out) // self.comm.world_size])
        grown = (_held() - before) / MIB
        self.verdict("staging memory of a rank at 256 MiB", grown, 16 + 2 * (self.comm.world_size - 1), "MiB")


def _bare_accumulation(comm: isobit.Communicator, gradient: Floats, leaves: int) -> list[Callable[[], object]]:
    """The steps of an accumulation in compiled loops, with nothing else; none where they can't be (without AVX-512)."""
    library = compiled(comm)
    if library is None or not hasattr(library, "bare_accumulate"):
        return []
    # Three leaves wait at most, and a node for each power of two; they begin where a cache line does.
    held = [_aligned(gradient.nbytes) for _ in range(3)]
    nodes = [_aligned(2 * gradient.nbytes) for _ in range(leaves.bit_length())]
    count = ctypes.c_size_t(gradient.size)

    def run() -> None:
        places = [(ctypes.c_void_p * len(group))(*(each.ctypes.data for each in group)) for group in (held, nodes)]
        library.bare_accumulate(ctypes.c_void_p(gradient.ctypes.data), *places, leaves, count)

    return [run]


def _aligned(size: int) -> NDArray[np.uint8]:
    """Touched memory that begins where a cache line does."""
    memory: NDArray[np.uint8] = np.zeros(size + 64, np.uint8)
    memory[:] = 0
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _held() -> int:
    """Bytes of this process in memory, its own and shared."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) << 10


def main() -> None:
    """All of them."""
    with isobit.init() as comm:
        host = Host(comm)
        host.say(f"{f'isobit on {comm.world_size} ranks':<74}{'ratio':>8}{'goal':>8}")
        # The memory first, while nothing large has been mapped.
        for each in (host.staging, host.waiting, host.many, host.exact, host.overlap, host.accumulate):
            each()


if __name__ == "__main__":
    main()
