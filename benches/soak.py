"""A long run that must leave nothing behind: a million small operations and a thousand large ones.

    python benches/soak.py                      # the whole of it; soak.png and soak.json
    python benches/soak.py --small 20000 --large 20 --mib 8

Two ranks over shared memory mix the collectives, break an epoch now and then, by a mismatch or by refused calls, and
form and leave further groups. Meanwhile each notes its memory, shared memory, open files, mappings and threads. What
a rank holds in the last quarter of a phase is compared with what it held in the second: they must be the same but
for `SLACK`. Every result is compared with the first of its kind, bit by bit.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import xxhash

#: How much more a rank may hold at the end of a phase than before, by what is held.
SLACK = {"own KiB": 512, "shared KiB": 512, "files": 0, "shared files": 0, "mappings": 2, "threads": 0}
#: So many operations lie between two mismatches, two refused calls, and two further groups.
BREAK_EVERY, REFUSE_EVERY, GROUP_EVERY = 997, 1499, 4999


@dataclass
class Plan:
    """What a rank does."""

    small: int = 1_000_000
    large: int = 1000
    #: MiB of a large operation.
    mib: int = 64
    #: Samples of each phase.
    samples: int = 200


@dataclass
class Sample:
    """What a rank held, after so many operations of a phase and so many seconds of it."""

    phase: str
    operations: int
    seconds: float
    held: dict[str, int]


def held() -> dict[str, int]:
    """What this process holds now, by the kernel's account."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    files = [os.readlink(link) for link in _links("/proc/self/fd")]
    with open("/proc/self/maps") as file:
        mappings = sum(1 for _ in file)
    return {
        "own KiB": int(status["RssAnon"].split()[0]),
        "shared KiB": int(status["RssShmem"].split()[0]),
        "files": len(files),
        "shared files": sum(name.startswith("/memfd:") for name in files),
        "mappings": mappings,
        "threads": int(status["Threads"]),
    }


def _links(folder: str) -> Iterator[str]:
    """The links in a folder, but for that of the listing itself."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            yield path


class Work:
    """The operations of a rank, on arrays of one size that are made once."""

    def __init__(self, comm: isobit.Communicator, elements: int) -> None:
        self.comm = comm
        world = comm.world_size
        elements -= elements % world
        values = np.random.default_rng(comm.rank).standard_normal(min(elements, 1 << 20), np.float32)
        self.values = np.resize(values, elements)
        self.out = np.empty_like(self.values)
        self.part = np.empty(elements // world, np.float32)
        self.first: dict[str, int] = {}

    def all_reduce(self) -> Any:
        return self.comm.all_reduce(self.values, self.out)

    def exact(self) -> Any:
        return self.comm.all_reduce(self.values[:257], self.out[:257], op="mean", order="exact")

    def reduce(self) -> Any:
        return self.comm.reduce(self.values, self.out if self.comm.rank == 1 else None, op="max", root=1)

    def reduce_scatter(self) -> Any:
        return self.comm.reduce_scatter(self.values, self.part)

    def all_gather(self) -> Any:
        return self.comm.all_gather(self.values[: len(self.part)], self.out)

    def all_to_all(self) -> Any:
        return self.comm.all_to_all(self.values, self.out)

    def broadcast(self) -> Any:
        np.copyto(self.out, self.values)
        return self.comm.broadcast(self.out, root=1)

    def uneven(self) -> Any:
        counts = [0, len(self.part)]
        return self.comm.all_gather_v(self.values[: counts[self.comm.rank]], counts, self.out[: sum(counts)])

    def barrier(self) -> None:
        self.comm.barrier()

    def point_to_point(self) -> Any:
        if self.comm.rank == 0:
            self.comm.send(self.values, 1, tag=7)
            return None
        return self.comm.recv(self.out, 0, tag=7)

    def accumulate(self) -> Any:
        part = self.values[: len(self.part)]
        with self.comm.accumulate(num_leaves=5, shape=part.shape, dtype=np.float32) as accumulation:
            for leaf in accumulation.leaves:
                accumulation.add(leaf, part)
            return accumulation.all_reduce(out=self.part)

    def broken(self) -> None:
        """One rank calls for something else: both get an error, and the group goes on."""
        try:
            self.comm.all_reduce(self.values[:8], self.out[:8], op="max" if self.comm.rank else "sum")
        except isobit.ContractMismatch:
            return
        raise AssertionError("a mismatch was not found")

    def refused(self) -> None:
        """One rank's call is refused, in Python and in the core: both get an error, and the group goes on."""
        odd = self.comm.rank == 1
        # A send that is not known to be used when the epoch ends fails with it, so let there be none.
        self.comm.barrier()
        calls: list[Callable[[], Any]] = [
            lambda: self.comm.all_reduce(self.values[:8], self.out[: 7 if odd else 8]),
            lambda: self.comm.all_gather(self.values[:8].astype(">f4") if odd else self.values[:8], self.out[:16]),
            lambda: self.comm.all_reduce(self.values[:8], self.out[:8], op="band" if odd else "sum"),
        ]
        for call in calls:
            try:
                call()
            except (TypeError, ValueError):
                refused_here = True
            except isobit.RemoteArgumentError:
                refused_here = False
            else:
                raise AssertionError("a wrong call was not refused")
            assert refused_here == odd

    def regrouped(self) -> None:
        """Another group is formed, used and left."""
        with isobit.init() as other:
            assert other.all_reduce(np.array([other.rank + 1]))[0] == other.world_size * (other.world_size + 1) // 2

    def each(self) -> list[Callable[[], Any]]:
        """The operations that every rank makes in turn."""
        return [
            self.all_reduce,
            self.exact,
            self.reduce,
            self.reduce_scatter,
            self.all_gather,
            self.all_to_all,
            self.broadcast,
            self.uneven,
            self.barrier,
            self.point_to_point,
            self.accumulate,
        ]

    def check(self, name: str, result: Any) -> None:
        """The same contributions give the same bits, the millionth time as the first."""
        if result is None:
            return
        digest = xxhash.xxh3_64_intdigest(result.data)
        assert self.first.setdefault(name, digest) == digest, f"{name} gave other bits than before"


def _return_freed_blocks() -> None:
    """Has the allocator give large blocks back when they are freed; else it learns to keep some."""
    threshold_of_mapped_blocks = -3
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(threshold_of_mapped_blocks, 128 * 1024)


def run(comm: isobit.Communicator, plan: Plan, report: Callable[[Sample], None], leak: Any = None) -> None:
    """Does a rank's work and reports samples; `leak` is called after every operation."""
    _return_freed_blocks()
    phases = [("small", plan.small, 64), ("large", plan.large, plan.mib << 18)]
    for phase, count, elements in phases:
        work = Work(comm, elements)
        operations = work.each()
        begin = time.monotonic()
        every = max(1, count // plan.samples)
        for number in range(count):
            operation = operations[number % len(operations)]
            work.check(operation.__name__, operation())
            if phase == "small" and number % BREAK_EVERY == BREAK_EVERY - 1:
                work.broken()
            if phase == "small" and number % REFUSE_EVERY == REFUSE_EVERY - 1:
                work.refused()
            if phase == "small" and number % GROUP_EVERY == GROUP_EVERY - 1:
                work.regrouped()
            if leak is not None:
                leak()
            if (number + 1) % every == 0:
                report(Sample(phase, number + 1, time.monotonic() - begin, held()))


@dataclass
class Growth:
    """What a rank held in the second and in the last quarter of a phase."""

    rank: int
    phase: str
    what: str
    before: int
    after: int

    @property
    def is_flat(self) -> bool:
        return self.after - self.before <= SLACK[self.what]


def growths(ranks: Iterable[list[Sample]]) -> list[Growth]:
    """All of them. The first quarter of a phase warms caches up; a median forgives one odd sample."""
    found = []
    for rank, samples in enumerate(ranks):
        for phase in dict.fromkeys(sample.phase for sample in samples):
            series = [sample.held for sample in samples if sample.phase == phase]
            quarter = len(series) // 4
            assert quarter, f"phase {phase} has too few samples"
            for what in SLACK:
                median = [
                    int(statistics.median(held[what] for held in part))
                    for part in (series[quarter : 2 * quarter], series[-quarter:])
                ]
                found.append(Growth(rank, phase, what, *median))
    return found


def table(found: list[Growth]) -> str:
    """The growths as text."""
    lines = [f"{'rank':>4}  {'phase':<6} {'what':<13} {'2nd quarter':>12} {'last quarter':>13}  verdict"]
    for g in found:
        verdict = "flat" if g.is_flat else f"GREW by {g.after - g.before} (at most {SLACK[g.what]})"
        lines.append(f"{g.rank:>4}  {g.phase:<6} {g.what:<13} {g.before:>12,} {g.after:>13,}  {verdict}")
    return "\n".join(lines)


def draw(ranks: list[list[Sample]], path: Path) -> bool:
    """The curves of every rank as a picture, if matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    phases = list(dict.fromkeys(sample.phase for sample in ranks[0]))
    rows = [("own KiB", "shared KiB"), ("files", "mappings", "threads")]
    figure, axes = pyplot.subplots(len(rows), len(phases), figsize=(11, 6), squeeze=False)
    for row, whats in enumerate(rows):
        for column, phase in enumerate(phases):
            axis = axes[row][column]
            for rank, samples in enumerate(ranks):
                series = [sample for sample in samples if sample.phase == phase]
                for number, what in enumerate(whats):
                    axis.plot(
                        [sample.operations for sample in series],
                        [sample.held[what] / (1024 if "KiB" in what else 1) for sample in series],
                        color=f"C{number}",
                        linestyle="-" if rank == 0 else "--",
                        label=f"{what.replace('KiB', 'MiB')}, rank {rank}",
                    )
            axis.set_ylim(bottom=0)
            axis.set_xlabel(f"{phase} operations")
            axis.legend(fontsize=7)
    figure.suptitle("What each rank holds during the soak")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True


def _rank(plan: Plan, folder: Path) -> None:
    """One rank of the whole run: its samples go to a file, rank 0 says how far it is."""
    comm = isobit.init()
    shown = 0.0
    with comm, open(folder / str(comm.rank), "w", buffering=1) as file:

        def report(sample: Sample) -> None:
            nonlocal shown
            file.write(json.dumps(asdict(sample)) + "\n")
            if comm.rank == 0 and time.monotonic() - shown > 5:
                shown = time.monotonic()
                rate = sample.operations / sample.seconds
                now = f"{sample.phase}: {sample.operations:,} operations in {sample.seconds:,.0f} s ({rate:,.0f}/s)"
                print(f"{now}, own memory {sample.held['own KiB'] >> 10} MiB", flush=True)

        run(comm, plan, report)


def main() -> int:
    """Starts the ranks, waits for them, and judges."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=Path("soak.png"), help="the picture; the samples go beside it")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    plan = Plan(given.small, given.large, given.mib, given.samples)
    if given.as_rank:
        _rank(plan, given.as_rank)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--as-rank", folder]
        common = {**os.environ, "WORLD_SIZE": "2", "ISOBIT_JOB": f"soak-{secrets.token_hex(8)}"}
        starts = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        processes = [subprocess.Popen(command, env=environ) for environ in starts]
        statuses = [process.wait() for process in processes]
        if any(statuses):
            print(f"the ranks ended with {statuses}", file=sys.stderr)
            return 1
        ranks = [_read(Path(folder, str(rank))) for rank in range(2)]
    found = growths(ranks)
    print(table(found))
    given.out.with_suffix(".json").write_text(json.dumps([[asdict(sample) for sample in rank] for rank in ranks]))
    print(f"drawn: {given.out}" if draw(ranks, given.out) else "no picture: matplotlib is not installed")
    return 0 if all(growth.is_flat for growth in found) else 1


def _read(path: Path) -> list[Sample]:
    return [Sample(**json.loads(line)) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
