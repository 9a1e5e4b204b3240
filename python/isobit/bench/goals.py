"""What the project has set itself for one host, beside what was measured: `isobit bench --peers --goals`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from isobit.bench.cases import shown
from isobit.bench.report import ratios
from isobit.bench.rounds import Result

_MPI = ("Open MPI", "MPICH", "Intel MPI")
_ALL = (*_MPI, "Gloo")
_SMALLEST, _SMALL, _LARGE, _LARGEST = 8, 64 << 10, 1 << 20, 256 << 20


@dataclass(frozen=True)
class Goal:
    """How many times as fast as the best of some peers isobit is to be, by p50, at every size between two."""

    collective: str
    sizes: tuple[int, int]
    times: float
    peers: tuple[str, ...]
    ranks: tuple[int, ...] = (2,)
    dtypes: tuple[str, ...] = ("f32",)
    callers: tuple[str, ...] = ("rust", "python")


GOALS = (
    Goal("all_reduce", (_LARGE, _LARGEST), 2.0, _MPI),
    Goal("all_reduce", (_LARGE, _LARGEST), 4.0, ("Gloo",), callers=("python",)),
    Goal("reduce_scatter", (_LARGE, _LARGEST), 1.5, _MPI),
    Goal("all_gather", (_LARGE, _LARGEST), 1.0, _MPI),
    Goal("all_to_all", (_LARGE, _LARGEST), 1.0, _MPI),
    Goal("broadcast", (_LARGE, _LARGEST), 1.0, _MPI),
    Goal("all_reduce", (_SMALLEST, _SMALL), 1.0, _MPI, callers=("rust",)),
    # At most 0.8 of the time.
    Goal("all_reduce", (_SMALLEST, _SMALL), 1.25, _ALL, callers=("python",)),
    Goal("all_reduce", (16 << 20, 16 << 20), 3.0, _ALL, dtypes=("bf16",)),
    Goal("all_reduce", (_SMALLEST, _LARGEST), 2.0, _ALL, ranks=(4, 8)),
)


@dataclass(frozen=True)
class Outcome:
    """A goal for one caller: the ratio at each size where isobit and a peer were measured."""

    goal: Goal
    caller: str
    ranks: int
    by_size: dict[int, float]

    @property
    def is_met(self) -> bool:
        """Whether it is met at every size that was measured."""
        return min(self.by_size.values()) >= self.goal.times


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    """The goals about which these results say something."""
    found = []
    for goal in GOALS:
        for caller in goal.callers:
            by_size: dict[int, float] = {}
            ranks = 0
            for case, speeds in ratios(results, caller).items():
                of_goal = [speed for library, speed in speeds.items() if library.library in goal.peers]
                is_meant = (
                    case.collective == goal.collective
                    and case.dtype in goal.dtypes
                    and case.order == "tree"
                    and case.ranks in goal.ranks
                    and goal.sizes[0] <= case.size <= goal.sizes[1]
                )
                if is_meant and of_goal:
                    by_size[case.size] = min(of_goal)
                    ranks = case.ranks
            if by_size:
                found.append(Outcome(goal, caller, ranks, by_size))
    return found


def print_goals(results: Sequence[Result]) -> None:
    """A line for each goal and caller."""
    found = outcomes(results)
    print("\n# Goals: how many times as fast as the best of those peers, by p50")
    print(f"{'collective':<15}{'dtype':>6}{'ranks':>6}  {'sizes':<11}{'caller':<8}{'against':<9}", end="")
    print(f"{'median':>8}{'worst':>8} {'at':<6}{'goal':>6}")
    for outcome in found:
        goal = outcome.goal
        against = "MPI" if goal.peers == _MPI else "Gloo" if goal.peers == ("Gloo",) else "any"
        size, worst = min(outcome.by_size.items(), key=lambda item: item[1])
        between = f"{shown(min(outcome.by_size))}-{shown(max(outcome.by_size))}"
        print(
            f"{goal.collective:<15}{goal.dtypes[0]:>6}{outcome.ranks:>6}  {between:<11}{outcome.caller:<8}{against:<9}"
            f"{statistics.median(outcome.by_size.values()):>8.2f}{worst:>8.2f} {shown(size):<6}{goal.times:>6.2f}"
            f"  {'met' if outcome.is_met else 'NOT MET'}"
        )
    if not found:
        print("none of them is about what was measured: give --peers, and f32 on 2, 4 or 8 ranks")
