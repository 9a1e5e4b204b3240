"""What the law and the checks cost: isobit as it ships, against itself without either.

    make bench-price

Builds one program in three ways, each in a target folder of its own: as it ships, with sums in plain f32 and without
the law (the feature `unordered`), and without checksums and comparisons (the feature `unchecked`). All three run all
the time and take turns, round by round. The ratio of two is the median of those of each round: what disturbs the
machine for seconds disturbs both sides of most of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "target"
RANKS = 2
ROUNDS = 25
SHIPPED = "shipped"
# Each way of building it, what its absence is the price of, and what that may be.
WITHOUT = {"unordered": ("tree order", 1.05), "unchecked": ("checks", 1.10)}
# Bytes, and calls in a round: a round of all three takes much less than the seconds for which a machine is the same.
SIZES = {64 << 10: 1000, 1 << 20: 100, 16 << 20: 9, 64 << 20: 5}


def build(feature: str | None) -> Path:
    """The program with one feature more than what ships."""
    folder = TARGET / "price" / feature if feature else TARGET
    features = ["--features", feature] if feature else []
    command = ["cargo", "build", "--release", "--locked", "-p", "isobit", "--example", "price_rank", *features]
    subprocess.run([*command, "--target-dir", folder], cwd=ROOT, check=True)
    return folder / "release" / "examples" / "price_rank"


class Group:
    """The ranks of one program."""

    def __init__(self, program: Path, name: str, stack: ExitStack) -> None:
        # As for `isobit bench`: large pages, as numpy gives its large arrays.
        environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        self.pipes: list[tuple[IO[str], IO[str]]] = []
        for rank in range(RANKS):
            command = [str(program), f"price-{name}-{os.getpid()}", str(rank), str(RANKS)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
            # Leaving it closes both pipes, at which the rank ends.
            stack.enter_context(process)
            assert process.stdin
            assert process.stdout
            self.pipes.append((process.stdin, process.stdout))

    def median(self, size: int, calls: int) -> float:
        """The median time of a call, in microseconds; a call takes as long as its slowest rank."""
        for requests, _ in self.pipes:
            requests.write(f"{size} {calls}\n")
            requests.flush()
        answers = [[int(time) for time in answers.readline().split()] for _, answers in self.pipes]
        if any(len(times) != calls for times in answers):
            raise SystemExit("a rank failed: see above")
        slowest = [float(max(times)) for times in zip(*answers, strict=True)]
        return statistics.median(slowest) / 1000


def main() -> None:
    """Prints the table."""
    programs = {SHIPPED: build(None)} | {feature: build(feature) for feature in WITHOUT}
    names = list(programs)
    print(f"all_reduce f32, {RANKS} ranks over shm, medians of {ROUNDS} rounds, in microseconds\n")
    header = "".join(f"{name:>12}" for name in names)
    ratios = "".join(f"{price:>14}{'goal':>6}" for price, _ in WITHOUT.values())
    print(f"{'size':>10}{header}{ratios}", flush=True)
    with ExitStack() as stack:
        groups = {name: Group(program, name, stack) for name, program in programs.items()}
        for size, calls in SIZES.items():
            times: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(ROUNDS):
                # Nobody is always the first.
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    times[name].append(groups[name].median(size, calls))
            line = "".join(f"{statistics.median(times[name]):>12.1f}" for name in names)
            for feature, (_, goal) in WITHOUT.items():
                pairs = zip(times[SHIPPED], times[feature], strict=True)
                line += f"{statistics.median(whole / without for whole, without in pairs):>14.3f}{goal:>6.2f}"
            print(f"{size:>10}{line}", flush=True)


if __name__ == "__main__":
    main()
