"""`isobit verify --peers`: the same numbers through isobit, Gloo and an MPI, and where their results differ."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from isobit.bench.peers import INSTALL, gloo_missing
from isobit.progress import Progress
from isobit.reference.dtype import Dtype
from isobit.reference.op import Order, ReduceOp
from isobit.verify.cases import Reduction
from isobit.verify.contenders import LEAVES, SIZES, WATCHED, WORLD_SIZES, Cell, leaf, watched
from isobit.verify.groups import GroupError, follow, launcher

MODULE = ["-m", "isobit.verify.contenders"]
#: How a library is called before it has said its name.
LABELS = {"isobit": "isobit", "gloo": "Gloo", "mpi": "MPI"}


@dataclass(frozen=True)
class Results:
    """What one library gave: the bytes of the watched numbers' sums, for each cell."""

    name: str
    cells: Mapping[Cell, bytes]


@dataclass
class Comparison:
    """All libraries' results beside each other."""

    libraries: list[Results]
    #: The watched numbers' sums by the law.
    law: bytes
    #: A number for each different result, in order of appearance; the law's is 1.
    numbers: dict[bytes, int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = {self.law: 1}
        for library in self.libraries:
            for cell in sorted(library.cells, key=lambda cell: (cell.world_size, cell)):
                self.numbers.setdefault(library.cells[cell], len(self.numbers) + 1)

    def differing(self, library: Results, cell: Cell) -> int:
        """How many of the watched numbers are not what the library itself gave on one rank."""
        first = min(library.cells, key=lambda cell: (cell.world_size, cell))
        one, other = (np.frombuffer(library.cells[each], np.uint32) for each in (first, cell))
        return int(np.count_nonzero(one != other))

    def results_of(self, library: Results) -> int:
        """How many different results a library gave for the same numbers."""
        return len(set(library.cells.values()))


def compare(plot: Path | None) -> int:
    """Runs what is installed, shows table and picture; 1 if isobit's own results are not the law's."""
    progress = Progress()
    libraries: list[Results] = []
    print(f"\nThe same {WATCHED:,} sums of {LEAVES} numbers in f32, on every world size, message size and bucket")
    with tempfile.TemporaryDirectory(prefix="isobit-peers-") as folder:
        for name, reason in availability().items():
            if reason is not None:
                print(f"{LABELS[name]} is skipped: {reason}")
                continue
            try:
                libraries.append(run(name, Path(folder, f"{name}.json"), partial(_show, progress, name)))
            except GroupError as error:
                # A peer that is broken on this machine is no failure of isobit.
                print(f"{LABELS[name]} did not work: {error}")
    comparison = Comparison(libraries, law())
    print_table(comparison)
    if plot is not None:
        draw_if_possible(plot, comparison)
    ours = [library for library in libraries if library.name.startswith("isobit")]
    if not ours or set(ours[0].cells.values()) != {comparison.law}:
        print("FAILED: isobit's results are not those of the law")
        return 1
    return 0


def availability() -> dict[str, str | None]:
    """For each library, why it can't take part and how to install it; `None` if it can."""
    return {"isobit": None, "gloo": _gloo_missing(), "mpi": _mpi_missing()}


def run(name: str, file: Path, progress: Callable[[int, int, int], None]) -> Results:
    """Runs one library on all world sizes."""
    most = max(WORLD_SIZES)
    start = _mpirun(most) if name == "mpi" else launcher(most)
    follow([*start, *MODULE, name, str(file)], LABELS[name], progress)
    if not file.exists():
        raise GroupError("it ended without a result")
    return read(json.loads(file.read_text()))


def read(written: Mapping[str, object]) -> Results:
    """The results that rank 0 wrote."""
    results = written["results"]
    assert isinstance(results, dict)
    cells = {Cell(*map(int, key.split("/"))): bytes.fromhex(value) for key, value in results.items()}
    return Results(str(written["name"]), cells)


def law() -> bytes:
    """The watched numbers' sums, by the reference."""
    from isobit.reference.reduce import reduce

    contract = Reduction(Dtype.F32, ReduceOp.SUM, Order.TREE).contract(LEAVES)
    size = min(SIZES)
    return reduce(contract, [leaf(number, size)[watched(size)].copy() for number in range(LEAVES)]).tobytes()


def print_table(comparison: Comparison) -> None:
    """One line for each library, message size and bucket; equal results have equal numbers."""
    for library in comparison.libraries:
        print(f"\n{library.name}")
        print(f"{'elements':>9}  {'buckets':>7}  {'result on 1, 2, ... ranks'}")
        sizes = sorted({cell.world_size for cell in library.cells})
        for size, buckets in sorted({(cell.size, cell.buckets) for cell in library.cells}):
            row = [comparison.numbers[library.cells[Cell(size, buckets, n)]] for n in sizes]
            print(f"{size:9,}  {buckets:7}  {' '.join(f'#{number:<3}' for number in row)}".rstrip())
        print(f"{_count(comparison.results_of(library))} of the same numbers; {_how_far(comparison, library)}")
    print("\nEqual results have equal numbers; #1 is the law's.")


def draw_if_possible(path: Path, comparison: Comparison) -> None:
    """Draws the picture, or says what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        print("The picture is skipped: pip install matplotlib")
        return
    from isobit.verify.picture import draw

    draw(path, comparison)
    print(f"Picture: {path}")


def _how_far(comparison: Comparison, library: Results) -> str:
    worst = max(comparison.differing(library, cell) for cell in library.cells)
    if worst == 0:
        return "no difference anywhere"
    return f"up to {worst / WATCHED:.0%} of the numbers differ from those on 1 rank"


def _count(results: int) -> str:
    return f"{results} result{'' if results == 1 else 's'}"


def _gloo_missing() -> str | None:
    reason = gloo_missing()
    return reason and f"{reason}: {INSTALL['gloo']}"


def _mpi_missing() -> str | None:
    if shutil.which("mpirun") is None:
        return "there is no mpirun: install Open MPI or MPICH (apt install openmpi-bin)"
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed: pip install mpi4py"
    return None


def _mpirun(ranks: int) -> list[str]:
    said = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=False).stdout
    options = ["--oversubscribe"] if "Open MPI" in said or "OpenRTE" in said else []
    if options and os.geteuid() == 0:
        # As in a container, where there is no other user.
        options.append("--allow-run-as-root")
    return ["mpirun", *options, "-n", str(ranks), sys.executable]


def _show(progress: Progress, name: str, world_size: int, done: int, total: int) -> None:
    del world_size
    progress.show(LABELS[name], done, total)
