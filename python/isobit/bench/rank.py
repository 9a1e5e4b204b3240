"""A rank's program in Python: it does what the driver says on a Unix socket, and answers with times.

    python -m isobit.bench.rank LIBRARY BUFFERS

`mpi_rank.c` and `rust/runtime/examples/bench_rank.rs` are the same program for C and Rust: the same data, the same
loop, the same clock (CLOCK_MONOTONIC), the same lines. Requests:

    run COLLECTIVE DTYPE ORDER BYTES ITERATIONS WARMUP SYNCHRONISED
    end

Answers, after `hello NAME RANK RANKS PID VERSION`:

    done WRONG NANOSECONDS...
    unsupported WHY
    error WHY
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import IO

import numpy as np

from isobit.bench.callers import CALLERS, Caller, UnsupportedError
from isobit.bench.cases import Case
from isobit.bench.pattern import Array, fill, table, wrong_in
from isobit.dtypes import dtype_of

SOCKET = "ISOBIT_BENCH_SOCKET"
NAME = "ISOBIT_BENCH_NAME"


def main(words: Sequence[str]) -> int:
    """One rank, from its start until the driver says that it is enough."""
    # Whoever started this rank does not outlive it; a launcher of MPI may start it in a session of its own.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    library, buffers = words
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[SOCKET])
    caller = CALLERS[library](buffers)
    requests = connection.makefile("r")
    answers = connection.makefile("w")
    name = os.environ[NAME]
    _answer(answers, f"hello {name} {caller.rank} {caller.ranks} {os.getpid()} {caller.version}")
    for line in requests:
        if line == "end\n":
            caller.close()
            return 0
        try:
            _answer(answers, _run(caller, line.split()))
        except UnsupportedError as error:
            _answer(answers, f"unsupported {error}")
        except Exception as error:
            _answer(answers, f"error {type(error).__name__}: {error}".splitlines()[0])
    # The driver is gone. A barrier on the way out could wait for ever.
    os._exit(1)


def lay_out(case: Case, rank: int) -> tuple[int, int]:
    """How many elements this rank gives and gets."""
    whole, block, is_root, is_in_pair = case.count, case.block, rank == 0, rank < 2
    return {
        "all_reduce": (whole, whole),
        "reduce": (whole, whole if is_root else 0),
        "reduce_scatter": (whole, block),
        "all_gather": (block, whole),
        "gather": (block, whole if is_root else 0),
        "scatter": (whole if is_root else 0, block),
        "broadcast": (0, whole),
        "all_to_all": (whole, whole),
        "barrier": (0, 0),
        "send_recv": (whole, whole) if is_in_pair else (0, 0),
    }[case.collective]


def _run(caller: Caller, words: Sequence[str]) -> str:
    _, collective, dtype, order, size, iterations, warmup, synchronised = words
    case = Case(collective, dtype, order, caller.ranks, int(size))
    given, out = (np.empty(count, dtype_of(dtype)) for count in lay_out(case, caller.rank))
    fill(given, table(dtype, caller.ranks, caller.rank))
    sends_out = collective == "broadcast" and caller.rank == 0
    _spoil(out)
    if sends_out:
        fill(out, table(dtype, caller.ranks, 0))
    call, before = caller.prepare(case, given, out)
    for _ in range(int(warmup)):
        if before is not None:
            before()
        call()
    if not sends_out:
        _spoil(out)
    times = [0] * int(iterations)
    clock = time.monotonic_ns
    caller.barrier()
    for number in range(int(iterations)):
        if before is not None:
            before()
        if synchronised == "1":
            caller.barrier()
        start = clock()
        call()
        times[number] = clock() - start
    return f"done {wrong_in(case, caller.rank, out)} {' '.join(map(str, times))}"


def _spoil(memory: Array) -> None:
    memory.view(np.uint8).fill(0xFF)


def _answer(answers: IO[str], line: str) -> None:
    answers.write(line + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
