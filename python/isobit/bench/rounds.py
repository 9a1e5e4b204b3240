"""Who is asked what and when, and what comes of the times.

A case goes round by round: in each, every library in turn does the same calls. What disturbs the machine for a while
so disturbs all alike. An iteration takes as long as its slowest rank; p50 and p99 are over all iterations of all
rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from isobit.bench.cases import Case
from isobit.bench.groups import Group, GroupError
from isobit.bench.peers import Library

ROUNDS = 5
#: Iterations of a library in one round, at most.
ITERATIONS_MAX = 1000
#: Iterations to find out how long one takes. The shortest counts: ranks that share cores and have just been woken take
#: turns of milliseconds at first, and a round of a few such iterations would show nothing else.
TRIALS = 3
#: Calls before those that count: of small messages, and of large ones, which are more alike.
WARMUP_SMALL, WARMUP_LARGE = 20, 1


@dataclass
class Result:
    """One library on one case."""

    case: Case
    library: Library
    #: Seconds of each iteration.
    times: list[float] = field(default_factory=list)
    #: Elements whose bits were not the right ones, over all ranks and rounds.
    wrong: int = 0
    #: Why there are no times.
    reason: str = ""

    def percentile(self, percent: float) -> float:
        """Seconds that so many per cent of the iterations take at most."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.times)


def measure(case: Case, groups: list[Group], seconds: float, lost: Callable[[Group, GroupError], None]) -> list[Result]:
    """All libraries on one case. A group that fails is ended, reported to `lost`, and taken off the list."""
    results = {group: Result(case, group.library) for group in groups}
    iterations: dict[Group, int] = {}
    for number in range(ROUNDS + 1):
        for group in [*groups]:
            result = results[group]
            if result.reason:
                continue
            try:
                if number == 0:
                    # How long it takes, to know how often it can be done; the right bits are asked for already.
                    times = _round(group, result, TRIALS, WARMUP_LARGE)
                    iterations[group] = _iterations(times, seconds / ROUNDS)
                else:
                    warmup = min(WARMUP_SMALL, iterations[group]) if case.is_small else WARMUP_LARGE
                    result.times += _round(group, result, iterations[group], warmup)
            except GroupError as error:
                group.kill()
                groups.remove(group)
                result.reason, result.times = "failed", []
                lost(group, error)
    return [*results.values()]


def request(case: Case, iterations: int, warmup: int) -> str:
    """What a rank is told."""
    words = ("run", case.collective, case.dtype, case.order, case.size, iterations, warmup, int(case.is_synchronised))
    return " ".join(map(str, words))


def slowest(case: Case, ranks: Sequence[Sequence[int]]) -> list[float]:
    """Seconds of each iteration, from each rank's nanoseconds: the slowest rank's; of there and back, half."""
    scale = 2e9 if case.collective == "send_recv" else 1e9
    return [max(times) / scale for times in zip(*ranks, strict=True)]


def _round(group: Group, result: Result, iterations: int, warmup: int) -> list[float]:
    answers = [line.split(" ") for line in group.ask(request(result.case, iterations, warmup))]
    kinds = {answer[0] for answer in answers}
    if kinds == {"unsupported"}:
        result.reason = " ".join(answers[0][1:])
        return []
    if kinds != {"done"}:
        error = next(answer for answer in answers if answer[0] != "done")
        raise GroupError(f"{group.library.label} failed at {result.case}: {' '.join(error)}")
    result.wrong += sum(int(answer[1]) for answer in answers)
    return slowest(result.case, [[int(word) for word in answer[2:]] for answer in answers])


def _iterations(times: Sequence[float], seconds: float) -> int:
    if not times:
        return 1
    return max(1, min(ITERATIONS_MAX, int(seconds / max(1e-9, min(times)))))
