"""Wrong use of a communicator and of its process (items 20 to 30 of the bad inputs)."""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import isobit
import numpy as np
import pytest
from calls import CALLS, values
from ranks import Processes, Threads, is_state, launch, results, wait_until

WORLD = 3
ODD = 1


@pytest.fixture
def group() -> Iterator[Processes]:
    made = Processes(WORLD)
    assert made.outcomes(goes_on) == [float(WORLD)] * WORLD
    yield made
    made.close()


def goes_on(comm: isobit.Communicator) -> float:
    return float(comm.all_reduce(np.ones(1, np.float32))[0])


def two_threads(comm: isobit.Communicator) -> str:
    if comm.rank != ODD:
        comm.barrier()
        return ""

    def use() -> None:
        try:
            comm.barrier()
        except isobit.ConcurrentUseError:
            # The other thread happened to be first.
            use()

    waiting = threading.Thread(target=use)
    waiting.start()
    while True:
        # The other ranks come when this one sleeps in its barrier, so this ends with a refusal.
        try:
            _ = comm.epoch
        except isobit.ConcurrentUseError as error:
            told = str(error)
            break
    waiting.join()
    return told


def test_item_20_a_second_thread_is_refused_with_an_error_of_its_own(group: Processes) -> None:
    group.start(two_threads, ranks=[ODD])
    wait_until(lambda: is_state(group.pid(ODD), "S"), "rank 1 waits")
    group.start(two_threads, ranks=[0, 2])
    assert "in use by another thread" in group.outcome(ODD)
    assert [group.outcome(rank) for rank in (0, 2)] == ["", ""]
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


def fork(comm: isobit.Communicator) -> str:
    comm.all_reduce(np.ones(2), async_op=True).wait()
    if comm.rank != ODD:
        return ""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            comm.barrier()
        except isobit.ForkedProcessError as error:
            os.write(writer, str(error).encode())
        finally:
            del comm
            os._exit(0)
    os.close(writer)
    told = os.read(reader, 4096).decode()
    os.waitpid(pid, 0)
    return told


def test_item_21_a_forked_child_is_refused_and_its_end_harms_nobody(group: Processes) -> None:
    told = results(group, fork)[ODD]
    assert "belongs to the process that was forked" in told
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


def begin(comm: isobit.Communicator, name: str, begun: Path | None) -> tuple[BaseException | None, bool]:
    """Makes a call: what it raised, and whether its arrays hold their old bits."""
    call, tensor = CALLS[name], values((6, 2), np.float32, comm.rank)
    out = np.full(call.out(tensor.shape, WORLD), 7, np.float32)
    before = tensor.tobytes(), out.tobytes()
    if begun is not None:
        begun.touch()
    try:
        call.make(comm, tensor, out, 0)
        # A sender's part may be done before it is interrupted.
        comm.barrier()
    except BaseException as error:
        return error, (tensor.tobytes(), out.tobytes()) == before
    return None, False


@pytest.mark.parametrize("name", CALLS)
def test_item_22_ctrl_c_in_a_call_ends_it_on_every_rank_and_the_group_goes_on(
    group: Processes, name: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    group.start(begin, name, begun, ranks=[ODD])
    wait_until(lambda: begun.exists() and is_state(group.pid(ODD), "S"), "rank 1 waits for the others")
    os.kill(group.pid(ODD), signal.SIGINT)
    error, unchanged = group.outcome(ODD)
    assert isinstance(error, KeyboardInterrupt)
    assert unchanged
    group.start(begin, name, None, ranks=[0, 2])
    for rank in (0, 2):
        error, unchanged = group.outcome(rank)
        assert isinstance(error, isobit.Aborted)
        assert f"rank {ODD}" in str(error)
        assert "interrupted" in str(error)
        assert unchanged
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


def wait_for_work(comm: isobit.Communicator, begun: Path, interrupted: Path) -> float:
    work = comm.all_reduce(np.ones(1), async_op=True)
    begun.touch()
    try:
        work.wait()
    except KeyboardInterrupt:
        interrupted.touch()
        return float(work.wait()[0])
    return -1.0


def test_item_23_ctrl_c_while_waiting_for_a_call_in_the_background_leaves_it_to_its_outcome(
    group: Processes, tmp_path: Path
) -> None:
    begun, interrupted = tmp_path / "begun", tmp_path / "interrupted"
    group.start(wait_for_work, begun, interrupted, ranks=[ODD])
    wait_until(lambda: begun.exists() and is_state(group.pid(ODD), "S"), "rank 1 waits for its work")
    os.kill(group.pid(ODD), signal.SIGINT)
    # Else the call might be done before the wait for it ends.
    wait_until(interrupted.exists, "the wait was interrupted")
    group.start(double, ranks=[0, 2])
    assert [group.outcome(rank) for rank in range(WORLD)] == [float(WORLD)] * WORLD


def double(comm: isobit.Communicator) -> float:
    return float(comm.all_reduce(np.ones(1))[0])


def end_at_sigterm(comm: isobit.Communicator, begun: Path, *, listen: bool) -> None:
    if listen:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    begun.touch()
    comm.barrier()


def meet(comm: isobit.Communicator) -> None:
    # The rank that ends had come to the first one: others may be through it.
    comm.barrier()
    comm.barrier()


@pytest.mark.parametrize("listen", [False, True])
def test_item_24_sigterm_ends_a_rank_in_a_call_and_the_others_learn_it(
    group: Processes, tmp_path: Path, listen: bool
) -> None:
    begun = tmp_path / "begun"
    group.start(functools.partial(end_at_sigterm, listen=listen), begun, ranks=[ODD])
    wait_until(lambda: begun.exists() and is_state(group.pid(ODD), "S"), "rank 1 waits for the others")
    os.kill(group.pid(ODD), signal.SIGTERM)
    assert isinstance(group.outcome(ODD), SystemExit if listen else EOFError)
    group.start(meet, ranks=[0, 2])
    for rank in (0, 2):
        error = group.outcome(rank)
        assert isinstance(error, isobit.Aborted if listen else isobit.PeerLost), error
        assert f"rank {ODD}" in str(error)
        assert ("interrupted" if listen else "ended without a goodbye; see its output and exit status") in str(error)
        if not listen:
            assert error.peer == ODD
            assert re.search(rf"the last call of rank {ODD} was operation 1 at \S+\.py:\d+, and it has not", str(error))


def test_item_24_the_launcher_names_the_signal(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, isobit\n"
        "comm = isobit.init()\n"
        "if comm.rank == 1:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "comm.barrier()\n"
    )
    done = launch(str(program))
    assert done.returncode == 128 + signal.SIGTERM
    assert re.search(r"rank 1 \(process \d+\) was ended by signal 15 \(SIGTERM\)", done.stderr)


def fail_between_leaves(comm: isobit.Communicator) -> None:
    with comm.accumulate(num_leaves=6) as sums:
        for leaf in sums.leaves:
            if comm.rank == ODD and leaf == 3:
                raise ZeroDivisionError("the loss is 1/0")
            sums.add(leaf, np.ones(2))
        sums.all_reduce()


def test_item_25_an_exception_between_the_leaves_reaches_every_rank_with_its_text(group: Processes) -> None:
    for rank, error in enumerate(group.outcomes(fail_between_leaves)):
        if rank == ODD:
            assert isinstance(error, ZeroDivisionError)
        else:
            assert isinstance(error, isobit.RemoteArgumentError)
            assert f"rank {ODD} failed in accumulate: ZeroDivisionError: the loss is 1/0" in str(error)
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


FORGETFUL = """
import numpy as np, isobit
comm = isobit.init()
works = [isobit.all_reduce(np.ones(100_000), async_op=True) for _ in range(4)]
if comm.rank == 0:
    works[-1].wait()
    print("sum", works[-1].result()[0])
else:
    print([work.wait()[0] for work in works][-1])
"""

LEAVES_WORK = """
import numpy as np, isobit
comm = isobit.init()
if comm.rank == 1:
    work = isobit.all_reduce(np.ones(1000), async_op=True)
else:
    try:
        isobit.barrier()
        isobit.barrier()
    except isobit.Error as error:
        print(type(error).__name__)
"""

LEAVES_WITH_A_THREAD = """
import threading, isobit
comm = isobit.init()
# A thread that never lets go of the communicator, so that nothing but the end of the interpreter closes it.
threading.Thread(target=lambda kept: threading.Event().wait(), args=[comm], daemon=True).start()
try:
    comm.barrier()
    if comm.rank == 0:
        comm.barrier()
except isobit.PeerLost as error:
    print(error)
"""


def test_item_26_an_interpreter_that_ends_without_close_leaves_the_group(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORGETFUL)
    done = launch(str(program))
    assert done.returncode == 0, done.stderr
    assert "sum 2.0" in done.stdout
    program.write_text(LEAVES_WORK)
    done = launch(str(program))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in ("Desync", "Aborted", "PeerLost")
    assert "Fatal" not in done.stderr
    assert "panicked" not in done.stderr
    program.write_text(LEAVES_WITH_A_THREAD)
    done = launch(str(program))
    assert done.returncode == 0, done.stderr
    assert "rank 1 is lost: it closed its communicator" in done.stdout


def out_of_memory(comm: isobit.Communicator) -> str:
    tensor = np.zeros(1 << 26, np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if comm.rank == ODD:
        with open("/proc/self/statm") as statm:
            now = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 26), limits[1]))
    try:
        comm.all_gather(tensor)
    except (MemoryError, isobit.Aborted) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return "nothing"


def test_item_27_no_memory_is_a_memory_error_there_and_aborted_elsewhere(group: Processes) -> None:
    for rank, outcome in enumerate(results(group, out_of_memory)):
        if rank == ODD:
            assert outcome.startswith("MemoryError")
        else:
            assert outcome.startswith("Aborted")
            assert f"rank {ODD} failed in all_gather: MemoryError" in outcome
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


@pytest.mark.parametrize("name", ["all_reduce", "reduce_scatter", "all_gather", "gather", "broadcast", "all_to_all"])
def test_item_28_a_rank_that_the_kernel_kills_is_lost(group: Processes, name: str) -> None:
    group.start(begin, name, None, ranks=[0, 2])
    os.kill(group.pid(ODD), signal.SIGKILL)
    for rank in (0, 2):
        error, _ = group.outcome(rank)
        assert isinstance(error, isobit.PeerLost), error
        assert error.peer == ODD
        assert f"rank {ODD} is lost: its process" in str(error)


def closes(comm: isobit.Communicator) -> list[str]:
    inner = comm.split(color=comm.rank // 2)
    assert inner is not None
    inner.close()
    inner.close()
    told = []
    for call in (inner.barrier, lambda: inner.all_reduce(np.ones(1)), lambda: inner.epoch):
        try:
            call()
        except isobit.Error as error:
            told.append(str(error))
    return told


def test_item_29_a_closed_communicator_says_so_and_closing_twice_is_closing_once(group: Processes) -> None:
    assert results(group, closes) == [["the communicator is closed"] * 3] * WORLD
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


def init_again(comm: isobit.Communicator) -> tuple[float, bool]:
    with isobit.init() as second:
        both = goes_on(second) + goes_on(comm)
        return both, isobit.default() is comm


def test_item_29_a_second_init_forms_another_group_and_keeps_the_default_one(group: Processes) -> None:
    assert results(group, init_again) == [(2.0 * WORLD, True)] * WORLD


HASTY = """
import isobit, numpy as np
for call in (isobit.barrier, lambda: isobit.all_reduce(np.ones(1))):
    try:
        call()
    except isobit.Error as error:
        print("told:", error, flush=True)
isobit.init()
print("sum", isobit.all_reduce(np.ones(1))[0], flush=True)
"""


def test_item_29_without_init_there_is_no_default_communicator_and_init_still_works(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(HASTY)
    done = launch(str(program), ranks=WORLD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("call isobit.init() first") == 2 * WORLD
    assert done.stdout.count(f"sum {WORLD:.1f}") == WORLD


@pytest.mark.parametrize("kind", [Processes, Threads])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 64])
def test_item_30_groups_of_any_size_work(world_size: int, kind: type[Processes | Threads]) -> None:
    group = kind(world_size)
    assert results(group, goes_on) == [float(world_size)] * world_size
    group.close()


def out_of_range(comm: isobit.Communicator, what: str) -> str:
    odd = comm.rank == ODD
    tensor = np.ones((WORLD, 2))
    try:
        if what == "root":
            comm.broadcast(tensor, root=WORLD if odd else 0)
            # A rank that got what it expects is told at its next call.
            comm.barrier()
        elif what == "negative root":
            comm.reduce(tensor, root=-1 if odd else 0)
            comm.barrier()
        elif what == "negative count":
            comm.reduce_scatter(tensor, counts=[-1, 2, 2] if odd else [1, 1, 1])
        elif what == "counts too many":
            comm.all_gather(tensor, counts=[1] * (WORLD + 1) if odd else [WORLD] * WORLD)
        elif what == "new_group":
            comm.new_group([0, WORLD] if odd else [0, 1])
        elif what == "color":
            comm.split(-2 if odd else 0)
    except (ValueError, isobit.RemoteArgumentError) as error:
        return type(error).__name__
    return "nothing"


@pytest.mark.parametrize("what", ["root", "negative root", "negative count", "counts too many", "new_group", "color"])
def test_item_30_numbers_out_of_range_are_value_errors_and_the_others_are_told(group: Processes, what: str) -> None:
    expected = ["RemoteArgumentError"] * WORLD
    expected[ODD] = "ValueError"
    assert results(group, out_of_range, what) == expected
    assert group.outcomes(goes_on) == [float(WORLD)] * WORLD


def refuse_often(comm: isobit.Communicator, refused: int, done: Path) -> list[float]:
    """What each of several calls that look alike gave, of which one rank's first ones are refused; 0 for an error."""
    if comm.rank != ODD:
        wait_until(done.exists, "the odd rank has made its refused calls")
    found = []
    for number in range(1, refused + 4):
        out = np.zeros(2 if comm.rank == ODD and number <= refused else 1)
        try:
            found.append(float(comm.all_reduce(np.array([float(number)]), out)[0]))
        except (ValueError, isobit.RemoteArgumentError):
            found.append(0.0)
        if comm.rank == ODD and number == refused:
            done.touch()
    return found


@pytest.mark.parametrize("refused", [1, 2, 5, 70])
def test_calls_that_look_alike_still_meet_after_many_were_refused(
    group: Processes, refused: int, tmp_path: Path
) -> None:
    expected = [0.0] * refused + [float(WORLD * number) for number in range(refused + 1, refused + 4)]
    assert results(group, refuse_often, refused, tmp_path / "done") == [expected] * WORLD
