"""`isobit bench`: options, the order of things, and the exit status."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from isobit import cli
from isobit.bench import peers, report
from isobit.bench.cases import COLLECTIVES, DTYPES, ORDERS, Case, bytes_needed, cases, parse_sizes, shown
from isobit.bench.goals import print_goals
from isobit.bench.groups import Group, GroupError
from isobit.bench.rounds import Result, measure
from isobit.cli import UsageError
from isobit.guard import Guard
from isobit.progress import Progress

T = TypeVar("T")

SIZES = "8:256M"
#: What a rank takes besides its buffers, in bytes: a process with numpy, and the rings from one rank to another.
_PROCESS, _RINGS = 48 << 20, 5 << 18


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"bench: {message}")


def main(words: Sequence[str]) -> int:
    """The command; returns its exit status."""
    given = _parse(words)
    wanted = cases(given.collectives, given.dtype, given.order, given.n, given.sizes)
    if not wanted:
        raise UsageError(f"bench: there is nothing to measure: these sizes can't be divided among {given.n} ranks")
    _check_resources(wanted, given.n)
    try:
        with _ending_signals():
            return _bench(given, wanted)
    except peers.PeerError as error:
        raise UsageError(f"bench: {error}") from None
    except KeyboardInterrupt:
        print("isobit bench: interrupted; all ranks are ended", file=sys.stderr)
        return 128 + signal.SIGINT


def _bench(given: argparse.Namespace, wanted: Sequence[Case]) -> int:
    progress = Progress()
    groups: list[Group] = []
    results: list[Result] = []
    failures: list[str] = []

    def lost(group: Group, error: GroupError) -> None:
        failures.append(str(error))
        print(f"isobit bench: {error}: going on without it", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="isobit-bench-") as name, Guard() as guard:
        folder = Path(name)
        libraries, skipped = peers.ours(given.buffers)
        if given.peers is not None:
            found, not_found = peers.theirs(given.peers, given.n, given.buffers, folder)
            libraries, skipped = libraries + found, skipped + not_found
            _check_processes(given.n, len(libraries))
        for line in skipped:
            print(line, file=sys.stderr)
        try:
            for number, library in enumerate(libraries):
                progress.show(f"starting {library.label}", number, len(libraries))
                groups.append(Group(library, given.n, folder))
                groups[-1].start(guard)
            progress.show("started", len(libraries), len(libraries))
            versions = {group.library.label: group.version for group in groups}
            for label, version in versions.items():
                print(f"# {label}: {version}")
            for number, case in enumerate(wanted):
                if number == 0 or case.collective != wanted[number - 1].collective:
                    print(report.header(case), flush=True)
                progress.show(f"{case.collective} {shown(case.size)}", number, len(wanted))
                new = measure(case, groups, given.seconds, lost)
                progress.clear()
                results += new
                for result in new:
                    print(report.row(result), flush=True)
            progress.show("measured", len(wanted), len(wanted))
            for group in groups:
                group.close()
        finally:
            for group in groups:
                group.kill()
    return _finish(given, results, versions, failures)


def _finish(
    given: argparse.Namespace, results: Sequence[Result], versions: dict[str, str], failures: Sequence[str]
) -> int:
    if given.peers is not None:
        report.print_ratios(results)
    if given.goals:
        print_goals(results)
    if given.json is not None:
        text = json.dumps(report.as_json(results, versions, given.seconds, given.buffers), indent=1)
        given.json.write_text(text + "\n")
    if given.plot is not None:
        from isobit.bench.picture import draw

        draw(given.plot, results)
        print(f"\nPicture: {given.plot}")
    wrong = [result for result in results if result.wrong]
    for result in wrong:
        case = result.case
        print(f"WRONG: {result.library.label}: {case.collective} of {shown(case.size)}: {result.wrong} elements")
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if wrong or failures else 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="isobit bench", description="Measure isobit on this machine, beside other libraries.")
    collectives = _choices("collective", COLLECTIVES)
    dtype, order = _choice("dtype", tuple(DTYPES)), _choice("order", ORDERS)
    buffers, names = _choice("kind of buffers", ("numpy", "torch")), _choices("peer", tuple(peers.PEERS))
    sizes = f"bytes of the whole tensor: 8,64K,1M, or every power of two in 8:256M, or 8:256M:4 ({SIZES})"
    add = parser.add_argument
    add("-n", type=_checked(cli.parse_ranks), default=2, metavar="RANKS", help="how many ranks (2)")
    add("--collectives", type=collectives, default=[*COLLECTIVES], metavar="A,B", help=", ".join(COLLECTIVES))
    add("--sizes", type=_checked(parse_sizes), default=parse_sizes(SIZES), help=sizes)
    add("--dtype", type=dtype, default="f32", help=f"{', '.join(DTYPES)} (f32)")
    add("--order", type=order, default="tree", help="isobit's order of additions: tree, exact (tree)")
    add("--buffers", type=buffers, default="numpy", help="what Python gives: numpy or torch (numpy)")
    some = f"measure these too, or all of {', '.join(peers.PEERS)}"
    add("--peers", type=names, nargs="?", const=[*peers.PEERS], metavar="A,B", help=some)
    add("--goals", action="store_true", help="compare with what the project has promised itself; needs --peers")
    add("--seconds", type=_seconds, default=0.1, help="for each library, collective and size, about (0.1)")
    add("--json", type=_file("--json"), metavar="FILE", help="write the results: docs/bench.md says what is in it")
    add("--plot", type=_file("--plot"), metavar="FILE", help="draw latency and bandwidth")
    given = parser.parse_args(words)
    needed = {"torch": given.buffers == "torch", "ml_dtypes": given.dtype == "bf16", "matplotlib": bool(given.plot)}
    for package, is_needed in needed.items():
        if is_needed and importlib.util.find_spec(package) is None:
            raise UsageError(f"bench: this needs {package}: pip install {package}")
    if given.goals and given.peers is None:
        raise UsageError("bench: --goals compares with peers: give --peers")
    if given.plot and given.collectives == ["barrier"]:
        raise UsageError("bench: --plot draws against size, and a barrier has none")
    if given.n < 2:
        given.collectives = [name for name in given.collectives if name != "send_recv"]
        if not given.collectives:
            raise UsageError("bench: send_recv needs two ranks")
    return given


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """argparse shows an error's text only if it is of its own kind."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except (ValueError, UsageError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _choice(what: str, allowed: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"there is no {what} {text!r}: it is one of {', '.join(allowed)}")
        return text

    return parse


def _choices(what: str, allowed: Sequence[str]) -> Callable[[str], list[str]]:
    one = _choice(what, allowed)
    return lambda text: list(dict.fromkeys(one(word) for word in text.split(",")))


def _file(option: str) -> Callable[[str], Path]:
    return _checked(lambda text: cli.writable(option, text))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, more than 0 and at most 3600")
    return seconds


def _check_resources(wanted: Sequence[Case], ranks: int) -> None:
    largest = max(wanted, key=bytes_needed)
    _check_processes(ranks, 1)
    available = _available()
    if (needed := bytes_needed(largest)) > 0.8 * available:
        raise UsageError(
            f"bench: {largest.collective} of {shown(largest.size)} on {ranks} ranks takes {needed / 2**30:,.1f} GiB, "
            f"{available / 2**30:,.1f} GiB are free: give a smaller --sizes"
        )


def _check_processes(ranks: int, libraries: int) -> None:
    needed = libraries * ranks * (_PROCESS + _RINGS * (ranks - 1))
    if needed > 0.8 * (available := _available()):
        raise UsageError(
            f"bench: {ranks} ranks of {libraries} libraries take about {needed / 2**30:,.1f} GiB without any data, "
            f"{available / 2**30:,.1f} GiB are free: give fewer ranks"
        )


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62


@contextmanager
def _ending_signals() -> Iterator[None]:
    """What ends a program ends this one as Ctrl-C does: with all its ranks."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
