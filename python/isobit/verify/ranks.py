"""The program that every rank runs: all cases, on one group after the other, each result compared with the law.

`isobit run -n 8 -m isobit.verify.ranks FOLDER shm`, or `python -m isobit.verify.ranks FOLDER memory` for threads.
The groups get smaller, so that a process serves in several and is free once it is no rank of the next. What a rank
found is written to the folder; rank 0 prints its progress.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import xxhash
from numpy.typing import NDArray

import isobit
from isobit.verify import truths
from isobit.verify.cases import Case, cases
from isobit.verify.compare import difference
from isobit.verify.operations import expected, perform

#: Seconds that a call may take before the ranks that it waits for are named.
TIMEOUT = 60.0
PLAN, TRUTHS = "plan.json", "truths.bin"


@dataclass(frozen=True)
class Plant:
    """A mistake that the tests of this tool make: one bit of one result, or an exception where `bit` is `None`."""

    transport: str
    world_size: int
    rank: int
    operation: str
    dtype: str
    index: int = 0
    bit: int | None = 0


@dataclass
class Line:
    """What a rank found in one line of the table."""

    cases: int = 0
    wrong: int = 0
    digest: str = ""


@dataclass
class Finding:
    """What a rank found: its lines, the first wrong element, and the error that ended its work."""

    lines: dict[str, Line] = field(default_factory=dict)
    wrong: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


def main(words: list[str]) -> int:
    """Runs one rank, or all of them as threads. Wrong results are no failure of this program."""
    folder, transport = Path(words[0]), words[1]
    plan = json.loads((folder / PLAN).read_text())
    plant = None if plan["plant"] is None else Plant(**plan["plant"])
    work = partial(check, transport=transport, folder=folder, quick=plan["quick"], plant=plant)
    for world_size in sorted(plan["world_sizes"], reverse=True):
        if transport == "memory":
            with ThreadPoolExecutor(world_size) as threads:
                list(threads.map(work, isobit.memory_group(world_size, timeout=TIMEOUT)))
        elif int(os.environ["RANK"]) < world_size:
            # The launcher's variables, of a smaller world.
            os.environ["WORLD_SIZE"] = str(world_size)
            work(isobit.init(transport=transport, timeout=TIMEOUT))
    return 0


def check(comm: isobit.Communicator, transport: str, folder: Path, quick: bool, plant: Plant | None) -> None:
    """Makes every call of this group, and writes down what came out."""
    if plant is not None and (plant.transport, plant.world_size, plant.rank) != (transport, comm.world_size, comm.rank):
        plant = None
    with comm:
        finding = find(comm, cases(comm.world_size, quick), truths.read(folder / TRUTHS, quick), plant)
    finding_file(folder, transport, comm.world_size, comm.rank).write_text(json.dumps(asdict(finding)))


def finding_file(folder: Path, transport: str, world_size: int, rank: int) -> Path:
    """Where a rank writes down what it found."""
    return folder / f"{transport}-{world_size}-{rank}.json"


def find(
    comm: isobit.Communicator,
    todo: list[Case],
    known: Mapping[truths.Key, NDArray[Any]],
    plant: Plant | None,
) -> Finding:
    """Makes the calls and compares. Goes on after a wrong result, so that the table shows which lines have one."""
    finding = Finding()
    digests: dict[str, xxhash.xxh3_64] = {}
    for number, case in enumerate(todo):
        name = f"{case.operation}/{case.group}"
        line = finding.lines.setdefault(name, Line())
        try:
            found = perform(comm, case)
            if plant is not None and _is_planted(plant, case, found):
                found, plant = _planted(plant, found), None
            apart = difference(found, expected(case, comm.rank, comm.world_size, known))
        except Exception as error:
            where = {"number": number, "case": str(case), "rank": comm.rank, "kind": type(error).__name__}
            finding.error = {**where, "text": str(error), "traceback": traceback.format_exc()}
            break
        line.cases += 1
        if found is not None:
            digests.setdefault(name, xxhash.xxh3_64()).update(found.tobytes())
        if apart is not None:
            line.wrong += 1
            dtype = case.dtype if case.reduction is None else case.reduction.out_dtype or case.dtype
            wrong = {"number": number, "case": str(case), "rank": comm.rank, "dtype": dtype.value, **asdict(apart)}
            finding.wrong = finding.wrong or wrong
        if comm.rank == 0 and (number % 50 == 0 or number + 1 == len(todo)):
            print(f"progress {comm.world_size} {number + 1}/{len(todo)}", flush=True)
    for name, digest in digests.items():
        finding.lines[name].digest = digest.hexdigest()
    return finding


def _is_planted(plant: Plant, case: Case, found: NDArray[Any] | None) -> bool:
    here = (case.operation, case.dtype.value) == (plant.operation, plant.dtype)
    return here and found is not None and found.size > plant.index


def _planted(plant: Plant, found: NDArray[Any] | None) -> NDArray[Any]:
    assert found is not None
    if plant.bit is None:
        raise RuntimeError("planted")
    bits = found.copy()
    bits.view(f"<u{found.dtype.itemsize}")[plant.index] ^= 1 << plant.bit
    return bits


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
