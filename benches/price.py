"""What the law, the checks and the flight recorder cost: isobit as it ships, against itself without each.

    make bench-price

Builds one program in four ways, each in a target folder of its own: as it ships, with sums in plain f32 and without
the law (the feature `unordered`), without checksums and comparisons (`unchecked`), and without the flight recorder
(`unrecorded`). All of them run at once and take turns, round by round. A price is given twice: as the median of each
round's own ratio, since what disturbs the machine for seconds disturbs both sides of most rounds, and between the
fastest rounds of both.
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
SHIPPED = "shipped"
# Each way of building it, what its absence is the price of, what that may be, and from how many bytes up: the
# recorder's price is the same for every size, and the smallest one shows it best.
WITHOUT = {
    "unordered": ("tree order", 1.05, 64 << 10),
    "unchecked": ("checks", 1.10, 64 << 10),
    "unrecorded": ("recorder", 1.05, 8),
}
# Bytes: how often the programs are started anew, because where their memory lies is luck and stays with them,
# rounds of each life, and calls of a round, which takes much less than the seconds for which a machine is the same.
SIZES = {
    8: (5, 60, 3000),
    1 << 10: (5, 60, 3000),
    64 << 10: (10, 15, 300),
    1 << 20: (20, 5, 50),
    16 << 20: (32, 2, 7),
    64 << 20: (32, 2, 5),
}


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
        processes: list[int] = []
        for rank in range(RANKS):
            command = [str(program), f"price-{name}-{os.getpid()}", str(rank), str(RANKS)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
            # Leaving it closes both pipes, at which the rank ends.
            stack.enter_context(process)
            assert process.stdin
            assert process.stdout
            self.pipes.append((process.stdin, process.stdout))
            processes.append(process.pid)
        cores = sorted(os.sched_getaffinity(0))
        for rank, process_id in enumerate(processes):
            if not self.pipes[rank][1].readline():
                raise SystemExit("a rank did not start: see above")
            # A short round would be over before the scheduler has parted two ranks that it woke on one core. Not
            # before they have met: they ask how many cores there are.
            os.sched_setaffinity(process_id, {cores[rank % len(cores)]})

    def typical(self, size: int, calls: int) -> float:
        """The mean of the middle half of the calls' times, in microseconds; a call takes as long as its slowest rank.

        A median would only have the steps of the clock, which may be 10 ns.
        """
        for requests, _ in self.pipes:
            requests.write(f"{size} {calls}\n")
            requests.flush()
        answers = [[int(time) for time in answers.readline().split()] for _, answers in self.pipes]
        if any(len(times) != calls for times in answers):
            raise SystemExit("a rank failed: see above")
        slowest = sorted(max(times) for times in zip(*answers, strict=True))
        return statistics.fmean(slowest[calls // 4 : calls - calls // 4]) / 1000


def main() -> None:
    """Prints the table."""
    programs = {SHIPPED: build(None)} | {feature: build(feature) for feature in WITHOUT}
    print(f"all_reduce f32, {RANKS} ranks over shm: typical times in microseconds, and what each costs, in times\n")
    header = "".join(f"{name:>12}" for name in programs)
    ratios = "".join(f"{price:>13}{'fastest':>9}{'goal':>6}" for price, _, _ in WITHOUT.values())
    print(f"{'size':>10}{header}{ratios}", flush=True)
    for size, (lives, rounds, calls) in SIZES.items():
        names = [SHIPPED, *(feature for feature, (_, _, smallest) in WITHOUT.items() if size >= smallest)]
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(lives):
            # Nobody is always the first.
            names.append(names.pop(0))
            with ExitStack() as stack:
                groups = {name: Group(programs[name], name, stack) for name in names}
                for turn in range(rounds):
                    first = turn % len(names)
                    for name in names[first:] + names[:first]:
                        times[name].append(groups[name].typical(size, calls))
        medians = {name: f"{statistics.median(times[name]):.{3 if size < 64 << 10 else 1}f}" for name in names}
        line = "".join(f"{medians.get(name, '-'):>12}" for name in programs)
        for feature, (_, goal, _) in WITHOUT.items():
            if feature not in names:
                line += f"{'-':>13}{'-':>9}{goal:>6.2f}"
                continue
            pairs = zip(times[SHIPPED], times[feature], strict=True)
            paired = statistics.median(whole / without for whole, without in pairs)
            line += f"{paired:>13.3f}{min(times[SHIPPED]) / min(times[feature]):>9.3f}{goal:>6.2f}"
        print(f"{size:>10}{line}", flush=True)


if __name__ == "__main__":
    main()
