"""The command line: `isobit run -n N script.py args...`, `isobit verify`, `isobit bench`, `isobit flight`,
`isobit trace`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

USAGE = """\
usage: isobit run -n N [--timeout SECONDS] [--trace FILE] script.py [arguments...]
       isobit run -n N [--timeout SECONDS] [--trace FILE] -m module [arguments...]
       isobit flight FILE...
       isobit trace -o FILE FILE...
       isobit verify [--quick] [--peers [--plot FILE]]
       isobit plan --ranks R [options: isobit plan --help]
       isobit bench [options: isobit bench --help]
       isobit --version

run starts N ranks of a Python program on this host. Each line of output begins with its rank. One Ctrl-C
ends all of them. When a rank fails the others are ended, and its exit status is run's (128 + the number
of the signal that ended it).

  -n N               how many ranks
  --timeout SECONDS  end the run, with status 124, when it takes longer
  --trace FILE       write a timeline of all ranks, for ui.perfetto.dev
  -m module          run a module as a script, as in python -m

SIGUSR1 makes every rank dump its flight recorder. flight reads such dumps, or folders of them, and says who is
behind, who called what else, and where. trace merges the ranks' timelines (ISOBIT_TRACE) into one.

verify checks the promise on this machine: every operation, dtype, order and world size, over every transport, bit
for bit against the reference. Its exit status is 1 if a bit is wrong, and it shows the first one.

  --quick      fewer combinations: seconds, not minutes
  --peers      show what Gloo and MPI, where installed, make of the same numbers
  --plot FILE  and draw it

plan predicts what each algorithm takes on any number of ranks and machines, and says which is chosen and why.
bench measures the collectives on this machine, with --peers beside other libraries in the same run.
"""

RANKS_MAX = 1024


class UsageError(Exception):
    """The command line is wrong; the text says how."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `isobit`; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["run"]:
            return _run(words[1:])
        if words[:1] == ["flight"]:
            return _flight(words[1:])
        if words[:1] == ["trace"]:
            return _trace(words[1:])
        if words[:1] == ["verify"]:
            return _verify(words[1:])
        if words[:1] == ["plan"]:
            from isobit.plan.command import main as plan

            return plan(words[1:])
        if words[:1] == ["bench"]:
            return _bench(words[1:])
        if words in (["--version"], ["-V"]):
            from isobit import __version__

            print(f"isobit {__version__}")
            return 0
        if words in ([], ["-h"], ["--help"], ["help"]):
            print(USAGE, end="")
            return 0 if words else 2
        raise UsageError(f"there is no command {words[0]!r}: try isobit --help")
    except UsageError as error:
        print(f"isobit: {error}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    ranks: int | None = None
    timeout: float | None = None
    trace: Path | None = None
    module: list[str] = []
    while words and words[0].startswith("-") and not module:
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        option, given, value = word.partition("=")
        if option not in ("-n", "--timeout", "--trace", "-m"):
            raise UsageError(f"run has no option {word!r}: try isobit run --help")
        if not given:
            if not words:
                raise UsageError(f"{option} needs a value")
            value = words.pop(0)
        if option == "-n":
            ranks = parse_ranks(value)
        elif option == "--timeout":
            timeout = _timeout(value)
        elif option == "--trace":
            trace = writable("--trace", value)
        else:
            module = ["-m", value]
    if ranks is None:
        raise UsageError("run needs -n N, the number of ranks")
    if not module:
        if not words:
            raise UsageError("run needs a script, or -m module")
        if not Path(words[0]).is_file():
            raise UsageError(f"there is no script {words[0]!r}")

    from isobit.launcher import Run

    # Unbuffered, so that a rank's last words before a crash are not lost.
    return Run(ranks, [sys.executable, "-u", *module, *words], timeout, trace).run()


def _flight(words: list[str]) -> int:
    if words in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if not words:
        raise UsageError("flight needs the ranks' dumps, or the folder that they are in")
    from isobit.flight_report import DumpError, read, report

    try:
        print(report(read(Path(word) for word in words)))
    except DumpError as error:
        raise UsageError(str(error)) from None
    return 0


def _trace(words: list[str]) -> int:
    if words in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if len(words) < 3 or words[0] != "-o":
        raise UsageError("trace needs -o FILE and the ranks' timelines")
    from isobit.trace import TraceError, merge

    out, paths = Path(words[1]), [Path(word) for word in words[2:]]
    if out in paths:
        raise UsageError(f"-o {out}: that is one of the timelines to merge")
    try:
        merge(paths, out)
    except TraceError as error:
        raise UsageError(str(error)) from None
    return 0


def writable(option: str, text: str) -> Path:
    """A file that can be written to; it is made."""
    path = Path(text)
    try:
        path.open("w").close()
    except OSError as error:
        raise UsageError(f"{option} {text}: {error.strerror}") from None
    return path


def _verify(words: list[str]) -> int:
    quick = peers = False
    plot: Path | None = None
    while words:
        option, given, value = words.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(USAGE, end="")
            return 0
        if option == "--plot":
            if not given and not words:
                raise UsageError("--plot needs the name of a file")
            plot = Path(value if given else words.pop(0))
        elif option == "--quick" and not given:
            quick = True
        elif option == "--peers" and not given:
            peers = True
        else:
            raise UsageError(f"verify has no option {option + given + value!r}: try isobit verify --help")
    if plot is not None and not peers:
        raise UsageError("--plot draws what --peers shows: give both")
    if missing := [name for name in ("ml_dtypes", "xxhash") if importlib.util.find_spec(name) is None]:
        raise UsageError(f"verify needs the reference, and so {' and '.join(missing)}: pip install 'isobit[reference]'")

    from isobit.verify.command import main as verify

    return verify(quick, peers, plot)


def _bench(words: list[str]) -> int:
    from isobit.bench.command import main as bench

    return bench(words)


def parse_ranks(text: str) -> int:
    """A number of ranks."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= RANKS_MAX):
        raise UsageError(f"-n {text}: the number of ranks is an integer from 1 to {RANKS_MAX}")
    return int(text)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--timeout {text}: give seconds, more than 0")
    return seconds
