"""The flight recorder: what errors carry, what is dumped when, and what `isobit flight` makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import isobit
import numpy as np
import pytest
from isobit import cli
from ranks import Processes, Threads, is_state, wait_until

HERE = Path(__file__).name


@pytest.fixture
def three() -> Iterator[Processes]:
    group = Processes(3)
    yield group
    group.close()


def line_of(text: str) -> int:
    """The line of this file that ends with a mark."""
    return next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.endswith(text))


def disagree(comm: isobit.Communicator) -> None:
    comm.barrier()
    if comm.rank == 1:
        comm.broadcast(np.ones(3))  # odd
    else:
        comm.all_reduce(np.ones(3))  # usual


@pytest.mark.parametrize("kind", [Threads, Processes])
def test_an_error_names_both_call_sites_and_carries_the_last_operations(kind: type[Threads] | type[Processes]) -> None:
    group = kind(3)
    for rank, error in enumerate(group.outcomes(disagree)):
        assert isinstance(error, isobit.Desync)
        assert f"{HERE}:{line_of('# odd')} on rank 1" in str(error)
        assert f"{HERE}:{line_of('# usual')} on rank " in str(error)
        first, last = error.flight_recorder
        assert (first["operation"], first["state"], last["state"]) == ("barrier", "completed", "failed")
        assert (last["rank"], last["sequence"], last["error"]) == (rank, 1, "Desync")
        assert last["operation"] == ("broadcast" if rank == 1 else "all_reduce")
        assert last["site"].endswith(f"{HERE}:{line_of('# odd' if rank == 1 else '# usual')}")
        assert last["start_ns"] <= last["end_ns"]
        assert pickle.loads(pickle.dumps(error)).flight_recorder == error.flight_recorder
    group.close()


def test_a_site_is_the_first_line_outside_of_isobit() -> None:
    comm = isobit.init()
    comm.all_reduce(np.ones((4, 4))[::2, ::2])  # strided
    comm.all_gather(np.ones(2))  # gathered
    sites = [record["site"].rpartition("/")[2] for record in comm.flight_recorder]
    assert sites == [f"{HERE}:{line_of('# strided')}", f"{HERE}:{line_of('# gathered')}"]


def wait_alone(comm: isobit.Communicator, begun: Path) -> float:
    begun.touch()
    return float(comm.all_reduce(np.ones(2))[0])  # alone


def set_folder(comm: isobit.Communicator, folder: Path) -> None:
    os.environ["ISOBIT_FLIGHT"] = str(folder)
    comm.barrier()


def test_sigusr1_dumps_while_a_rank_waits_and_says_whom_for(three: Processes, tmp_path: Path) -> None:
    folder, begun = tmp_path / "dumps", tmp_path / "begun"
    assert three.outcomes(set_folder, folder) == [None] * 3
    three.start(wait_alone, begun, ranks=[0, 1])
    wait_until(lambda: begun.exists() and is_state(three.pid(0), "S"), "rank 0 waits")
    for rank in range(3):
        os.kill(three.pid(rank), signal.SIGUSR1)
    wait_until(lambda: len(list(folder.glob("*.jsonl"))) == 3, "three dumps are there")
    text = run_cli("flight", str(folder))
    assert "rank 2 is behind" in text
    assert f"{HERE}:{line_of('# alone')}" in text
    assert "rank 2 is waited for by rank" in text
    three.start(wait_alone, begun, ranks=[2])
    assert [three.outcome(rank) for rank in range(3)] == [3.0] * 3, "the call goes on after a dump"


def test_a_killed_peer_leaves_the_others_dumps_and_is_named_with_its_last_call(
    three: Processes, tmp_path: Path
) -> None:
    assert three.outcomes(set_folder, tmp_path) == [None] * 3
    three.start(wait_alone, tmp_path / "begun", ranks=[0, 2])
    os.kill(three.pid(1), signal.SIGKILL)
    for rank in (0, 2):
        error = three.outcome(rank)
        assert isinstance(error, isobit.PeerLost)
        assert "the last call of rank 1 was operation 0 at " in str(error)
    text = run_cli("flight", str(tmp_path))
    assert "no dump of rank 1" in text
    assert "the first failure was on rank" in text
    assert "PeerLost in operation 0.1" in text


SCRIPT = """
import signal, sys
import numpy as np
import isobit
if "handler" in sys.argv:
    signal.signal(signal.SIGUSR1, lambda *_: print("mine", flush=True))
comm = isobit.init(timeout=30)
comm.barrier()
if "signal" in sys.argv or "handler" in sys.argv:
    signal.raise_signal(signal.SIGUSR1)
if "crash" in sys.argv and comm.rank == 1:
    raise RuntimeError("a bug")
comm.all_reduce(np.ones(1))
"""


def run_ranks(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "isobit", "run", "-n", "2", "script.py", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ, **environ}
    )


def test_nothing_is_written_that_nobody_asked_for(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, "crash").returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_sigusr1_without_a_folder_dumps_where_the_program_runs_and_says_so(tmp_path: Path) -> None:
    done = run_ranks(tmp_path, "signal")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote the flight recorder to") == 2
    assert len(list(tmp_path.glob("flight-*.jsonl"))) == 2


def test_a_handler_of_the_program_stays(tmp_path: Path) -> None:
    done = run_ranks(tmp_path, "handler")
    assert done.stdout.count("mine") == 2
    assert not list(tmp_path.glob("flight-*"))


def test_a_python_error_on_one_rank_leaves_a_dump_of_every_rank(tmp_path: Path) -> None:
    done = run_ranks(tmp_path, "crash", ISOBIT_FLIGHT="dumps")
    assert done.returncode == 1
    headers = [json.loads(path.read_text().splitlines()[0]) for path in (tmp_path / "dumps").iterdir()]
    assert {header["rank"]: header["reason"] for header in headers} == {
        0: "PeerLost",
        1: "ended by RuntimeError",
    }


def test_sigusr1_to_the_launcher_reaches_ranks_that_listen_and_ends_none(tmp_path: Path) -> None:
    script = (
        "import isobit, pathlib, time\ncomm = isobit.init()\ncomm.barrier()\npathlib.Path(f'up{comm.rank}').touch()\n"
    )
    script += "while not pathlib.Path('end').exists(): time.sleep(0.01)\n"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "isobit", "run", "-n", "2", "script.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as launcher:
        wait_until(lambda: len(list(tmp_path.glob("up*"))) == 2, "the ranks are up")
        launcher.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(list(tmp_path.glob("flight-*.jsonl"))) == 2, "both have dumped")
        (tmp_path / "end").touch()
        assert launcher.wait(60) == 0


# ---- isobit flight, on files made here


def header(rank: int, world_size: int = 2, **fields: Any) -> dict[str, Any]:
    whose = {"rank": rank, "group": "a1", "host": "h", "pid": 100 + rank, "world_size": world_size}
    return {"isobit": "flight recorder", "version": 1, **whose, "time_ns": 5_000_000_000, **fields}


def operation(sequence: int, **fields: Any) -> dict[str, Any]:
    call = {"epoch": 0, "channel": "collective", "sequence": sequence, "operation": "all_reduce", "count": 8}
    times = {"start_ns": 1_000_000_000 + sequence, "end_ns": 2_000_000_000 + sequence}
    return {**call, **times, "dtype": "f32", "state": "completed", "site": f"a.py:{sequence}", **fields}


def dump(path: Path, *lines: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def run_cli(*words: str) -> str:
    from io import StringIO

    out = StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(words) == 0
    return out.getvalue()


def test_the_odd_rank_of_different_calls_is_told_from_the_others(tmp_path: Path) -> None:
    usual = [operation(0), operation(1), operation(2, state="failed", error="Desync", end_ns=7)]
    odd = [operation(0), operation(1), operation(2, count=9, site="b.py:5")]
    files = [dump(tmp_path / str(rank), header(rank, 3), *(odd if rank == 1 else usual)) for rank in range(3)]
    text = run_cli("flight", *files)
    assert "different calls in operation 0.2: the count is not the same" in text
    assert "ranks 0, 2 called all_reduce(8 x f32), called at a.py:2" in text
    assert "rank 1 called all_reduce(9 x f32), called at b.py:5" in text
    assert "the first failure was on rank 0: Desync in operation 0.2" in text
    assert "behind" not in text


def test_ranks_that_agree_are_said_to_agree(tmp_path: Path) -> None:
    files = [dump(tmp_path / str(rank), header(rank), operation(0)) for rank in range(2)]
    assert "ranks 0, 1 made the same calls" in run_cli("flight", *files)


def test_a_rank_behind_is_named_with_its_last_line_and_the_one_that_it_has_not_reached(tmp_path: Path) -> None:
    waits = operation(1, state="started", end_ns=None, awaited=1)
    files = [dump(tmp_path / "0", header(0), operation(0), waits), dump(tmp_path / "1", header(1), operation(0))]
    text = run_cli("flight", *files)
    assert "rank 1 is behind: rank 0 has begun operation 0.1 all_reduce(8 x f32), called at a.py:1" in text
    assert "rank 1 last began 0.0, called at a.py:0" in text
    assert "rank 1 is waited for by rank 0" in text


def test_a_chain_of_waits_is_followed_to_its_end(tmp_path: Path) -> None:
    ranks = [
        [operation(0), operation(1, state="started", end_ns=None, awaited=1)],
        [operation(0)],
        [operation(0), operation(1), operation(2, state="started", end_ns=None, awaited=0)],
    ]
    files = [dump(tmp_path / str(rank), header(rank, 3), *lines) for rank, lines in enumerate(ranks)]
    lines = run_cli("flight", *files).splitlines()
    behind = [line for line in lines if "is behind" in line]
    assert [line.split(":")[0] for line in behind] == ["rank 1 is behind", "rank 0 is behind"]
    assert "in the end ranks 0, 2 wait for rank 1, which is in no call" in lines
    without = run_cli("flight", files[0], files[2])
    assert "in the end ranks 0, 2 wait for rank 1, which left no dump" in without


def test_a_circle_of_waits_ends_nowhere(tmp_path: Path) -> None:
    files = [
        dump(tmp_path / str(rank), header(rank), operation(0, state="started", end_ns=None, awaited=1 - rank))
        for rank in range(2)
    ]
    text = run_cli("flight", *files)
    assert "rank 0 is waited for by rank 1" in text
    assert "in the end" not in text


def test_the_first_failure_says_whom_it_waited_for(tmp_path: Path) -> None:
    files = [dump(tmp_path / "0", header(0), operation(0, state="failed", error="PeerLost", awaited=1))]
    assert "PeerLost in operation 0.0, called at a.py:0, where it waited for rank 1" in run_cli("flight", *files)


def test_a_later_epoch_is_ahead_of_an_earlier_one(tmp_path: Path) -> None:
    files = [
        dump(tmp_path / "0", header(0), operation(7), operation(0, epoch=1)),
        dump(tmp_path / "1", header(1), operation(7)),
    ]
    assert "rank 1 is behind" in run_cli("flight", *files)


def test_the_later_of_two_dumps_of_a_rank_counts(tmp_path: Path) -> None:
    old = dump(tmp_path / "old", header(0, 1, time_ns=1), operation(0))
    new = dump(tmp_path / "new", header(0, 1, time_ns=2), operation(0), operation(1))
    for files in ([old, new], [new, old]):
        assert "operation 0.1" in run_cli("flight", *files)


def test_a_cut_off_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = "".join(json.dumps(line) + "\n" for line in (header(0, 1), operation(0), operation(1)))
    path = tmp_path / "cut.jsonl"
    end = len(json.dumps(header(0, 1))) + 1
    for length in range(end, len(whole)):
        path.write_text(whole[:length])
        text = run_cli("flight", str(path))
        if not whole[:length].endswith(("\n", "}")):
            assert "cut off" in text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"not json\n",
        b"[]\n",
        b"{}\n",
        json.dumps({**header(0), "version": 2}).encode(),
        json.dumps({**header(0), "rank": "x"}).encode(),
        (json.dumps(header(0)) + '\n{"epoch": 0}\n').encode(),
        (json.dumps(header(0)) + "\nbroken\n" + json.dumps(operation(0)) + "\n").encode(),
    ],
)
def test_what_is_no_dump_is_one_line_and_status_2(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(text)
    assert cli.main(["flight", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"isobit: {path}: ")
    assert err.count("\n") == 1


def test_files_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["flight", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert cli.main(["flight", str(tmp_path)]) == 2
    assert "there is no dump" in capsys.readouterr().err
    assert cli.main(["flight"]) == 2
