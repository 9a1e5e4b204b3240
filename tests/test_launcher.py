"""`isobit run`, as its users see it: exit status, prefixed output, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import DEADLINE, wait_until

ISOBIT = [sys.executable, "-m", "isobit"]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*ISOBIT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Does what its first argument says; rank 1 is the odd one."""
    path = tmp_path / "script.py"
    path.write_text(
        """\
import os, signal, sys, time

rank = int(os.environ["RANK"])
what, where = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
if where:
    open(f"{where}/{rank}.new", "w").write(str(os.getpid()))
    os.rename(f"{where}/{rank}.new", f"{where}/{rank}.pid")
if what == "speak":
    print("out", rank, flush=True)
    print("err", rank, file=sys.stderr)
    sys.stdout.write("a line without an end")
elif what == "environ":
    names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT ISOBIT_JOB OMP_NUM_THREADS"
    print(*(os.environ.get(name, "unset") for name in names.split()))
elif what == "fail" and rank == 1:
    sys.exit(7)
elif what == "crash" and rank == 1:
    os.kill(os.getpid(), signal.SIGSEGV)
elif what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open(f"{where}/{rank}.ready", "w")
if what in ("fail", "crash", "sleep", "stubborn"):
    time.sleep(600)
"""
    )
    return path


def pids(directory: Path, count: int) -> list[int]:
    files = [directory / f"{rank}.pid" for rank in range(count)]
    wait_until(lambda: all(file.exists() for file in files), "all ranks have started")
    return [int(file.read_text()) for file in files]


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_each_line_begins_with_its_rank_on_its_own_stream(script: Path) -> None:
    done = run("run", "-n", "3", script, "speak")
    assert done.returncode == 0
    wanted = [f"[{rank}] {text}" for rank in range(3) for text in (f"out {rank}", "a line without an end")]
    assert sorted(done.stdout.splitlines()) == sorted(wanted)
    assert sorted(done.stderr.splitlines()) == [f"[{rank}] err {rank}" for rank in range(3)]


def test_ranks_get_the_variables_that_torch_knows(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    lines = sorted(run("run", "-n", "2", script, "environ").stdout.splitlines())
    first, second = (line.split()[1:] for line in lines)
    assert first[:4] == ["0", "2", "0", "2"]
    assert second[:4] == ["1", "2", "1", "2"]
    assert first[4:] == second[4:]
    address, port, job, threads = first[4:]
    assert (address, threads) == ("127.0.0.1", "unset")
    assert 0 < int(port) < 65536
    again = run("run", "-n", "1", script, "environ").stdout.split()
    assert job not in again


def test_ranks_meet(tmp_path: Path) -> None:
    script = tmp_path / "meet.py"
    script.write_text(
        "import isobit, numpy as np\n"
        "comm = isobit.init(timeout=60)\n"
        "print(comm.all_reduce(np.array(comm.rank + 1)), comm.transport, comm.local_rank == comm.rank)\n"
        "print(isobit.init(timeout=60).all_reduce(np.array(1)))\n"
    )
    done = run("run", "-n", "3", script)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(
        f"[{rank}] {text}" for rank in range(3) for text in ("6 shm True", "3")
    )


def test_a_failure_ends_the_others_with_its_status(script: Path, tmp_path: Path) -> None:
    done = run("run", "-n", "3", script, "fail", tmp_path)
    assert done.returncode == 7
    assert "rank 1" in done.stderr
    assert "exited with status 7" in done.stderr
    started = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
    assert all(is_gone(pid) for pid in started)


def test_a_crash_ends_the_others_and_names_the_signal(script: Path) -> None:
    done = run("run", "-n", "2", script, "crash")
    assert done.returncode == 128 + signal.SIGSEGV
    assert "rank 1" in done.stderr
    assert "SIGSEGV" in done.stderr


def test_a_time_limit_ends_all(script: Path) -> None:
    done = run("run", "-n", "2", "--timeout", "0.5", script, "sleep")
    assert done.returncode == 124
    assert "time limit of 0.5 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_all(script: Path, tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*ISOBIT, "run", "-n", "2", str(script), "sleep", str(tmp_path)], stderr=subprocess.PIPE
    ) as launcher:
        ranks = pids(tmp_path, 2)
        launcher.send_signal(number)
        _, err = launcher.communicate(timeout=DEADLINE)
    assert launcher.returncode == 128 + number
    assert number.name.encode() in err
    assert (b"KeyboardInterrupt" in err) == (number == signal.SIGINT), "the ranks get the signal, not SIGKILL"
    assert all(is_gone(pid) for pid in ranks)


def test_a_second_ctrl_c_ends_ranks_that_do_not_listen(script: Path, tmp_path: Path) -> None:
    command = [*ISOBIT, "run", "-n", "2", str(script), "stubborn", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as launcher:
        ranks = pids(tmp_path, 2)
        wait_until(lambda: all((tmp_path / f"{rank}.ready").exists() for rank in range(2)), "both are deaf")
        launcher.send_signal(signal.SIGINT)
        assert launcher.stderr is not None
        assert b"SIGINT" in launcher.stderr.readline()
        assert not any(is_gone(pid) for pid in ranks)
        started = time.monotonic()
        launcher.send_signal(signal.SIGINT)
        launcher.communicate(timeout=DEADLINE)
        assert time.monotonic() - started < DEADLINE
    assert launcher.returncode == 130
    assert all(is_gone(pid) for pid in ranks)


def test_no_rank_outlives_a_launcher_that_is_killed(script: Path, tmp_path: Path) -> None:
    with subprocess.Popen([*ISOBIT, "run", "-n", "3", str(script), "sleep", str(tmp_path)]) as launcher:
        ranks = pids(tmp_path, 3)
        os.kill(launcher.pid, signal.SIGKILL)
        try:
            wait_until(lambda: all(is_gone(pid) for pid in ranks), "the ranks have ended")
        finally:
            for pid in ranks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_a_module_can_be_run() -> None:
    done = run("run", "-n", "2", "-m", "isobit", "--version")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "there is no command 'fly'"),
        (["run"], "needs -n"),
        (["run", "-n"], "-n needs a value"),
        (["run", "-n", "0", __file__], "-n 0"),
        (["run", "-n", "two", __file__], "-n two"),
        (["run", "-n", "-1", __file__], "-n -1"),
        (["run", "-n", "2"], "needs a script"),
        (["run", "-n", "2", "nowhere.py"], "there is no script 'nowhere.py'"),
        (["run", "-n", "2", "--timeout", "0", __file__], "--timeout 0"),
        (["run", "-n", "2", "--speed", __file__], "no option '--speed'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_says_what_there_is() -> None:
    for words in (["--help"], ["run", "--help"]):
        done = run(*words)
        assert done.returncode == 0
        assert "isobit run -n N" in done.stdout


def test_a_forked_child_that_ends_takes_nothing_with_it(tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(
        "import os, isobit\n"
        "comm = isobit.init(timeout=60)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    del comm\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "comm.barrier()\n"
        "print('met')\n"
    )
    done = run("run", "-n", "2", script)
    assert sorted(done.stdout.splitlines()) == ["[0] met", "[1] met"], done.stderr
