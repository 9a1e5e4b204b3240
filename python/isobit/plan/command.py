"""`isobit plan`: options, the order of things, and the exit status."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from isobit.cli import UsageError
from isobit.dtypes import name_of
from isobit.plan import table
from isobit.plan.fit import compare, fit, read_bench
from isobit.plan.model import Constants, PlanError, World

COLLECTIVES = (
    *("all_reduce", "reduce", "reduce_scatter", "all_gather", "gather", "scatter", "broadcast", "all_to_all"),
    *("barrier", "send_recv"),
)
RANKS_MAX = LEAVES_MAX = 1 << 20
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"plan: {message}")


def main(words: Sequence[str]) -> int:
    """The command; returns its exit status."""
    given = _parser().parse_args(words)
    try:
        constants = Constants() if given.constants is None else Constants.read(given.constants)
        if given.cores is not None:
            constants = replace(constants, cores=given.cores)
        if given.fit is not None:
            return _fit(given)
        if given.compare is not None:
            return _compare(given, constants)
        return _plan(given, constants)
    except PlanError as error:
        raise UsageError(f"plan: {error}") from None
    except OSError as error:
        if error.filename is None:
            raise  # not of a file that was named
        raise UsageError(f"plan: {error.filename}: {error.strerror}") from None


def _plan(given: argparse.Namespace, constants: Constants) -> int:
    if given.ranks is None:
        raise UsageError("plan needs --ranks R, or --fit or --compare with files of isobit bench --json")
    if given.nodes > given.ranks:
        raise UsageError(f"plan: --nodes {given.nodes}: there are {given.ranks} ranks, and no node without one")
    world = World(given.ranks, given.nodes, given.bytes, given.collective, given.dtype, given.order, given.leaves)
    print(table.text(world, world.outlook(constants), constants))
    if given.plot is not None:
        from isobit.plan import picture

        picture.draw(given.plot, world, constants)
        print(f"\nDrawn for 2 to {max(2, world.ranks)} ranks: {given.plot}")
    return 0


def _fit(given: argparse.Namespace) -> int:
    if given.output is None:
        raise UsageError("plan --fit needs -o FILE, for the constants")
    bench = read_bench(given.fit, given.interface)
    constants = fit(bench)
    constants.write(given.output)
    print(table.constants(constants))
    print(f"\nWritten to {given.output}. What they predict of what they were fitted to:\n")
    print(table.errors(compare(bench, constants)))
    return 0


def _compare(given: argparse.Namespace, constants: Constants) -> int:
    bench = read_bench(given.compare, given.interface)
    if constants.cores is None:
        constants = replace(constants, cores=bench.cores)
    rows = compare(bench, constants)
    print(table.comparison(rows))
    print(f"\nConstants: {constants.source}. Errors by the number of ranks:\n")
    print(table.errors(rows))
    return 0


def _parser() -> _Parser:
    parser = _Parser(prog="isobit plan", description="Predict what each algorithm takes, and say which is chosen.")
    parser.add_argument("--ranks", type=_integer(1, RANKS_MAX), metavar="R", help="how many ranks")
    parser.add_argument("--nodes", type=_integer(1, RANKS_MAX), default=1, metavar="M", help="on how many machines (1)")
    parser.add_argument(
        "--bytes", type=_size, default=1 << 20, metavar="B", help="of the whole tensor: 4096, 64K, 1M, 1G (1M)"
    )
    parser.add_argument("--leaves", type=_integer(1, LEAVES_MAX), metavar="L", help="of a reduction (one a rank)")
    parser.add_argument("--collective", choices=COLLECTIVES, default="all_reduce", metavar="NAME", help="(all_reduce)")
    parser.add_argument("--dtype", type=_dtype, default="f32", help="(f32)")
    parser.add_argument("--order", choices=("tree", "exact"), default="tree", help="of a reduction (tree)")
    parser.add_argument("--cores", type=_integer(1, 1 << 16), metavar="C", help="of a machine (one for every rank)")
    parser.add_argument("--constants", type=Path, metavar="FILE", help="those of the model, as --fit writes them")
    parser.add_argument("--plot", type=_picture, metavar="FILE", help="draw the times from 2 to R ranks")
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--fit", type=Path, nargs="+", metavar="FILE", help="fit the constants to files of isobit bench --json"
    )
    files.add_argument("--compare", type=Path, nargs="+", metavar="FILE", help="print predictions beside such files")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where --fit writes the constants")
    parser.add_argument(
        "--interface", choices=("python", "rust"), default="python", help="whose calls to fit or compare (python)"
    )
    return parser


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text[:20]) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is no integer from {least} to {most}")
        return int(text)

    return parse


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d{1,18})([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(found[1]) << _UNITS[found[2].upper()] if found else -1
    if not 0 <= size <= 1 << 50:
        raise argparse.ArgumentTypeError(f"{text!r} is no size in bytes: write 4096, 64K, 1M or 1G")
    return size


def _dtype(text: str) -> str:
    with contextlib.suppress(TypeError):
        return name_of(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no dtype that isobit has")


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg", ".pdf") or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no .png, .svg or .pdf file in a folder that is there")
    return path
