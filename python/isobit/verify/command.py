"""`isobit verify`: options, the order of things, and the exit status."""

from __future__ import annotations

import itertools
import json
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from isobit.progress import Progress
from isobit.verify import groups, report, truths
from isobit.verify.cases import WORLD_SIZES, cases
from isobit.verify.peers import compare
from isobit.verify.ranks import PLAN, TRUTHS, Plant


def main(quick: bool, peers: bool, plot: Path | None) -> int:
    """The command; returns its exit status."""
    try:
        status = verify(quick)
        return max(status, compare(plot)) if peers else status
    except KeyboardInterrupt:
        # The ranks got the Ctrl-C too, and their launcher has ended them.
        return 128 + signal.SIGINT


def verify(quick: bool, plant: Plant | None = None, world_sizes: Sequence[int] = WORLD_SIZES) -> int:
    """Checks the law on this machine; returns the exit status. `plant` is a mistake for the tests to find."""
    started = time.monotonic()
    progress = Progress()
    found: list[groups.Group] = []
    failed: str | None = None
    with tempfile.TemporaryDirectory(prefix="isobit-verify-") as name:
        folder = Path(name)
        plan = {"quick": quick, "plant": plant and asdict(plant), "world_sizes": list(world_sizes)}
        (folder / PLAN).write_text(json.dumps(plan))
        truths.write(folder / TRUTHS, quick, partial(progress.show, "the reference"))
        for transport in groups.TRANSPORTS:
            try:
                groups.run(folder, transport, world_sizes, partial(_show, progress, transport))
            except groups.GroupError as error:
                failed = failed or f"FAILED: {error}"
            found += groups.collect(folder, transport, world_sizes)
    table = report.rows(found)
    report.print_table(table)
    failed = report.failure(found) or failed or _incomplete(found, world_sizes, quick)
    calls = sum(len(cases(group.world_size, quick)) for group in found)
    print(f"\n{calls:,} calls on {len(found)} groups in {time.monotonic() - started:.0f} s")
    if failed is None:
        print(f"Every result has the bits of the law. Digest of all: {report.overall_digest(table)}")
        print("It is the same on every machine, for this release and these options.")
        return 0
    print(f"\n{failed}")
    return 1


def _show(progress: Progress, transport: str, world_size: int, done: int, total: int) -> None:
    progress.show(f"{transport:6}  {world_size} rank{'s' if world_size > 1 else ''}", done, total)


def _incomplete(found: Sequence[groups.Group], world_sizes: Sequence[int], quick: bool) -> str | None:
    """A group or a call that was left out must not pass."""
    there = {(group.transport, group.world_size) for group in found}
    for transport, world_size in itertools.product(groups.TRANSPORTS, world_sizes):
        if (transport, world_size) not in there:
            return f"FAILED: {world_size} ranks over {transport} ended without a word of what they found"
    for group in found:
        expected = len(cases(group.world_size, quick))
        for rank, finding in enumerate(group.findings):
            made = sum(line.cases for line in finding.lines.values())
            if made != expected:
                return (
                    f"FAILED: rank {rank} of {group.world_size} over {group.transport} made {made} of {expected} calls"
                )
    return None
