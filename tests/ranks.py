"""Groups of ranks for tests: real processes over shared memory, or threads of this process.

A group outlives one test, so that a test costs a call and not the start of processes. A function that a test
sends to it gets the rank's communicator first; it must be found by its module's name. Every call has a deadline: a
rank that does not answer is named, and the group is killed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Protocol

import isobit

#: Seconds for a call of a group; far more than any needs, even on a busy machine.
DEADLINE = 120.0
#: Seconds for an operation inside a group.
TIMEOUT = 60.0


class Group(Protocol):
    """Ranks that run a function together."""

    world_size: int

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`function(comm, *arguments)` on every rank: what each returned or raised, in rank order."""


def results(group: Group, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """As `outcomes`, where no rank may raise."""
    found = group.outcomes(function, *arguments)
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
    return found


class Threads:
    """Ranks as threads, over the memory transport."""

    def __init__(self, world_size: int, timeout: float = TIMEOUT) -> None:
        self.world_size = world_size
        self._comms = isobit.memory_group(world_size, timeout=timeout)
        self._pool = ThreadPoolExecutor(world_size)

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        futures = [self._pool.submit(_outcome, function, comm, arguments) for comm in self._comms]
        return [future.result(DEADLINE) for future in futures]

    def close(self) -> None:
        for comm in self._comms:
            comm.close()
        self._pool.shutdown()


class Processes:
    """Ranks as processes, over shared memory."""

    def __init__(self, world_size: int, timeout: float = TIMEOUT) -> None:
        self.world_size = world_size
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["numpy", "isobit"])
        common = {
            "WORLD_SIZE": str(world_size),
            "ISOBIT_JOB": f"test-{secrets.token_hex(8)}",
            "ISOBIT_TIMEOUT": str(timeout),
        }
        self._ends: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            environ = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = context.Process(target=_serve, args=(theirs, environ), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self.processes.append(process)

    def pid(self, rank: int) -> int:
        pid = self.processes[rank].pid
        assert pid is not None
        return pid

    def start(self, function: Callable[..., Any], *arguments: Any, ranks: Sequence[int] | None = None) -> None:
        """Has the ranks begin; `outcome` collects."""
        for rank in range(self.world_size) if ranks is None else ranks:
            self._ends[rank].send((function, arguments))

    def outcome(self, rank: int) -> Any:
        """What `rank` returned or raised."""
        if not self._ends[rank].poll(DEADLINE):
            self.kill()
            raise AssertionError(f"rank {rank} of {self.world_size} did not answer within {DEADLINE:g} s")
        try:
            return self._ends[rank].recv()
        except (EOFError, ConnectionResetError):
            return EOFError(f"rank {rank} is gone")

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        self.start(function, *arguments)
        return [self.outcome(rank) for rank in range(self.world_size)]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        """Ends the ranks, gently if they listen."""
        for end in self._ends:
            end.close()
        for process in self.processes:
            process.join(5)
        self.kill()
        for process in self.processes:
            process.join(DEADLINE)


def _outcome(function: Callable[..., Any], comm: isobit.Communicator, arguments: tuple[Any, ...]) -> Any:
    try:
        return function(comm, *arguments)
    except BaseException as error:
        return error


def _serve(end: Connection, environ: dict[str, str]) -> None:
    os.environ.update(environ)
    try:
        comm = isobit.init()
    except Exception as error:
        with contextlib.suppress(EOFError, OSError):
            end.recv()
            end.send(error)
        return
    with comm:
        while True:
            try:
                function, arguments = end.recv()
            except (EOFError, ConnectionResetError, KeyboardInterrupt):
                return
            end.send(_outcome(function, comm, arguments))


def launch(program: str, *arguments: str, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    """Runs a program under `isobit run`."""
    command = [sys.executable, "-m", "isobit", "run", "-n", str(ranks), program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Returns once `condition()` holds; an assertion fails if it does not in time."""
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, f"waited in vain until {what}"
        time.sleep(0.01)


def is_state(pid: int, state: str) -> bool:
    """Whether the process is in that state, as in `ps`; T is stopped, S is asleep."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == state
