"""What the user sees: the table of nccl-tests for every library, the ratios, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from isobit.bench.cases import REDUCING, ROOTED, Case, shown
from isobit.bench.peers import Library
from isobit.bench.rounds import Result

#: What isobit's caller is compared with: a Rust program with C programs, Python with Python.
AGAINST = {"rust": "c", "python": "python"}


def header(case: Case) -> str:
    """The lines above the rows of a collective."""
    names = ("dtype", "op", "root", "p50", "p99", "algbw", "busbw", "#wrong")
    units = ("", "", "", "(us)", "(us)", "(GB/s)", "(GB/s)", "")
    lines = [
        f"#{size:>11} {count:>10} {rest[0]:>5} {rest[1]:>4} {rest[2]:>4} {rest[3]:>11} {rest[4]:>11} "
        f"{rest[5]:>8} {rest[6]:>8} {rest[7]:>6}"
        for size, count, rest in (("size", "count", names), ("(B)", "(elements)", units))
    ]
    return "\n".join([f"\n# {case.collective}, {case.ranks} ranks", *(line.rstrip() for line in lines)])


def row(result: Result) -> str:
    """One library's line."""
    case = result.case
    op = "sum" if case.collective in REDUCING else "none"
    root = "0" if case.collective in ROOTED else "-1"
    left = f" {case.size:>11} {case.count:>10} {case.dtype:>5} {op:>4} {root:>4}"
    if not result.times:
        return f"{left} {'-':>11} {'-':>11} {'-':>8} {'-':>8} {'-':>6}  {result.library.label}: {result.reason}"
    p50, p99 = result.p50, result.percentile(99)
    algbw, busbw = case.bandwidth(p50)
    times = f"{p50 * 1e6:>11.2f} {p99 * 1e6:>11.2f} {algbw:>8.3f} {busbw:>8.3f}"
    return f"{left} {times} {result.wrong:>6}  {result.library.label}"


def as_json(results: Iterable[Result], versions: Mapping[str, str], seconds: float, buffers: str) -> dict[str, Any]:
    """What `--json` writes; docs/bench.md says what each name means."""
    machine = {
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    return {
        "format": 1,
        "machine": machine,
        "seconds": seconds,
        "buffers": buffers,
        "versions": dict(versions),
        "cases": [_flat(result) for result in results if result.times],
    }


def _flat(result: Result) -> dict[str, Any]:
    case = result.case
    algbw, busbw = case.bandwidth(result.p50)
    return {
        "library": result.library.library,
        "interface": result.library.interface,
        "collective": case.collective,
        "dtype": case.dtype,
        "order": case.order if result.library.library == "isobit" else "unspecified",
        "ranks": case.ranks,
        "bytes": case.size,
        "iterations": len(result.times),
        "p50_us": round(result.p50 * 1e6, 4),
        "p99_us": round(result.percentile(99) * 1e6, 4),
        "min_us": round(min(result.times) * 1e6, 4),
        "algbw": round(algbw, 6),
        "busbw": round(busbw, 6),
        "wrong": result.wrong,
    }


def ratios(results: Sequence[Result], interface: str) -> dict[Case, dict[Library, float]]:
    """For each case, how many times as fast isobit is as each peer that is called from the same language."""
    found: dict[Case, dict[Library, float]] = {}
    for mine in results:
        if mine.library.library != "isobit" or mine.library.interface != interface or not mine.times:
            continue
        found[mine.case] = {
            other.library: other.p50 / mine.p50
            for other in results
            if other.case == mine.case
            and other.library.library != "isobit"
            and other.library.interface == AGAINST[interface]
            and other.times
        }
    return found


def print_ratios(results: Sequence[Result]) -> None:
    """A table for each of isobit's callers: against each peer, and against the best of them."""
    for interface, other in AGAINST.items():
        table = {case: speeds for case, speeds in ratios(results, interface).items() if speeds}
        if not table:
            continue
        peers = list(dict.fromkeys(library for speeds in table.values() for library in speeds))
        mine, its = interface.capitalize(), other.capitalize()
        print(f"\n# How many times as fast isobit is (p50), called from {mine}; the others from {its}")
        names = "".join(f"{library.library:>11}" for library in peers)
        print(f"{'collective':<15}{'size':>7}{names}{'the best':>11}")
        for case, speeds in table.items():
            cells = "".join(f"{speeds[library]:>11.2f}" if library in speeds else f"{'-':>11}" for library in peers)
            print(f"{case.collective:<15}{shown(case.size):>7}{cells}{min(speeds.values()):>11.2f}")
