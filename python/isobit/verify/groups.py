"""Starting ranks, following their progress, and collecting what they found."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isobit.verify.ranks import Finding, Line, finding_file

#: Seconds for all cases of one group, far more than they need; then its ranks are ended.
DEADLINE = 900
TRANSPORTS = ("memory", "shm")


@dataclass(frozen=True)
class Group:
    """What all ranks of one group found, in rank order."""

    transport: str
    world_size: int
    findings: list[Finding]


class GroupError(Exception):
    """A group that did not come to its end; the text says how, with the last that it wrote."""


def run(folder: Path, transport: str, world_sizes: Sequence[int], progress: Callable[[int, int, int], None]) -> None:
    """Runs all cases on groups of these sizes: threads of one process, or processes of `isobit run`."""
    start = [sys.executable] if transport == "memory" else launcher(max(world_sizes))
    follow([*start, "-m", "isobit.verify.ranks", str(folder), transport], f"the ranks over {transport}", progress)


def collect(folder: Path, transport: str, world_sizes: Sequence[int]) -> list[Group]:
    """What the groups found, the small ones first; without those of which a rank did not come to its end."""
    groups = []
    for world_size in sorted(world_sizes):
        files = [finding_file(folder, transport, world_size, rank) for rank in range(world_size)]
        if all(file.exists() for file in files):
            groups.append(Group(transport, world_size, [_read(file) for file in files]))
    return groups


def _read(file: Path) -> Finding:
    read = json.loads(file.read_text())
    return Finding(**{**read, "lines": {name: Line(**line) for name, line in read["lines"].items()}})


def launcher(world_size: int) -> list[str]:
    """The beginning of a command that starts so many ranks of a Python program."""
    return [sys.executable, "-m", "isobit", "run", "-n", str(world_size), "--timeout", str(DEADLINE)]


def follow(command: Sequence[str], name: str, progress: Callable[[int, int, int], None]) -> None:
    """Runs a command to its end, and passes on its lines of progress: on how many ranks, steps done, steps."""
    latest: collections.deque[str] = collections.deque(maxlen=30)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if step := re.search(r"progress (\d+) (\d+)/(\d+)", line):
                progress(*map(int, step.groups()))
            else:
                latest.append(line)
    if process.returncode != 0:
        raise GroupError(f"{name}: exit status {process.returncode}\n{''.join(latest)}".rstrip())
