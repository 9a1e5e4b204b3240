"""The timeline: valid trace events that nest, merged over ranks, whole even after a kill; nothing when off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from isobit import cli
from ranks import wait_until

SCRIPT = """
import sys, time
import numpy as np
import isobit
comm = isobit.init()
for _ in range(3):
    comm.all_reduce(np.ones(100_000, np.float32))
if comm.rank == 0:
    comm.send(np.ones(5), 1)
elif comm.rank == 1:
    comm.recv(np.ones(5), 0)
comm.barrier()
if "hang" in sys.argv:
    if comm.rank == 1:
        time.sleep(1000)
    comm.barrier()
"""


def ranks(folder: Path, *options: str) -> list[str]:
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, "-m", "isobit", "run", "-n", "3", *options]


def check(events: list[dict[str, Any]]) -> None:
    """What the trace-event format asks for: the fields, and that what is on one lane nests."""
    lanes: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert event["ph"] in ("M", "B", "E", "X"), event
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["ts"], int | float)
        assert event["ts"] >= 0
        if event["ph"] in ("B", "X", "M"):
            assert event["name"]
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] != "M":
            lanes[event["pid"], event["tid"]].append(event)
    assert lanes
    for lane in lanes.values():
        # Outer ones first where two begin together; a nanosecond's rounding is no overlap.
        steps = sorted((e for e in lane if e["ph"] == "X"), key=lambda e: (e["ts"], -e["dur"]))
        open_until: list[float] = []
        for step in steps:
            start, end = step["ts"], step["ts"] + step["dur"]
            while open_until and open_until[-1] <= start + 0.001:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + 0.001, step
            open_until.append(end)
        operations = [e for e in lane if e["ph"] in "BE"]
        kinds = [e["ph"] for e in operations]
        assert kinds == [["B", "E"][i % 2] for i in range(len(kinds))], "an operation ends before the next begins"
        times = [e["ts"] for e in operations]
        assert times == sorted(times)
        spans = list(zip(times[::2], [*times[1::2], float("inf")][: len(times[::2])], strict=True))
        for step in steps:
            if step["name"] == "write the trace":
                continue
            inside = [s <= step["ts"] and step["ts"] + step["dur"] <= e + 0.001 for s, e in spans]
            assert sum(inside) == 1, step


def test_a_run_gives_one_trace_of_all_ranks(tmp_path: Path) -> None:
    done = subprocess.run(
        [*ranks(tmp_path, "--trace", "out.json"), "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "script.py"]
    events = json.loads((tmp_path / "out.json").read_text())
    check(events)
    for rank in range(3):
        own = [event for event in events if event["pid"] == rank]
        names = [event["name"] for event in own if event["ph"] == "B"]
        pair = [["send to rank 1"], ["recv from rank 0"], []][rank]
        assert names == ["all_reduce"] * 3 + pair + ["barrier"]
        first = next(event["args"] for event in own if event["ph"] == "B")
        assert first["site"].endswith("script.py:7")
        assert (first["bytes"], first["sequence"]) == (400_000, 0)
        steps = [event for event in own if event["ph"] == "X"]
        received = sum(e["args"]["bytes"] for e in steps if e["name"].startswith("recv from"))
        sent = sum(e["args"]["bytes"] for e in steps if e["name"].startswith("send to"))
        # Direct reduce-scatter and all-gather: twice two thirds of the tensor each way, three times.
        assert 1_500_000 < sent < 1_700_000
        assert 1_500_000 < received < 1_700_000
        assert {"reduce"} <= {e["name"] for e in steps}
        assert all(e["args"]["peer"] != rank for e in steps if "peer" in e["args"])
    assert any(event["ph"] == "X" and event["cat"] == "wait" for event in events)


def test_without_being_asked_for_there_is_none(tmp_path: Path) -> None:
    assert subprocess.run([*ranks(tmp_path), "script.py"], cwd=tmp_path, timeout=120).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_killed_rank_leaves_a_whole_file_in_which_its_last_operation_is_open(tmp_path: Path) -> None:
    command = [*ranks(tmp_path), "script.py", "hang"]
    environ = {**os.environ, "ISOBIT_TRACE": "t-%r.json"}

    def hanging() -> dict[str, Any] | None:
        path = tmp_path / "t-0.json"
        if not path.exists() or not path.read_text():
            return None
        try:
            events = json.loads(path.read_text())
        except json.JSONDecodeError:
            # It was written meanwhile: whole is only what nobody writes.
            return None
        last = [event for event in events if event["ph"] in "BE"][-1:]
        waits = [event for event in events if event.get("name") == "wait for rank 1"]
        return last[0] if last and last[0]["ph"] == "B" and last[0]["name"] == "barrier" and waits else None

    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as launcher:
        try:
            wait_until(lambda: hanging() is not None, "the operation that hangs is in the file")
        finally:
            launcher.send_signal(signal.SIGKILL)
    check(json.loads((tmp_path / "t-0.json").read_text()))


def test_merging_shifts_each_rank_to_one_time_axis_and_leaves_out_what_is_cut_off(tmp_path: Path) -> None:
    def clock(origin: int) -> str:
        args = {"origin_ns": origin}
        return json.dumps({"ph": "M", "ts": 0, "pid": 0, "tid": 1, "name": "isobit_clock", "args": args})

    def step(rank: int) -> str:
        return json.dumps({"ph": "X", "ts": 10.5, "pid": rank, "tid": 1, "dur": 1.0, "name": "copy", "args": {}})

    whole, cut = tmp_path / "0.json", tmp_path / "1.json"
    whole.write_text(f"[\n{clock(5_000)},\n{step(0)}\n]\n")
    cut.write_text(f"[\n{clock(7_000)},\n{step(1)},\n{step(1)[:30]}")
    out = tmp_path / "out.json"
    assert cli.main(["trace", "-o", str(out), str(whole), str(cut)]) == 0
    steps = [event for event in json.loads(out.read_text()) if event["ph"] == "X"]
    assert [(event["pid"], event["ts"]) for event in steps] == [(0, 10.5), (1, 12.5)]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b'[\n{"ph":"X"}\n]', b'["\n{},\n{}\n]', b"[\n1,\n2\n]"])
def test_what_is_no_trace_is_one_line_and_status_2(
    text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    assert cli.main(["trace", "-o", str(tmp_path / "out.json"), str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"isobit: {path}: ")
    assert err.count("\n") == 1


def test_a_trace_that_can_not_be_written_is_said_before_any_rank_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('it ran')")
    trace = str(tmp_path / "none" / "out.json")
    assert cli.main(["run", "-n", "2", "--trace", trace, str(script)]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_program_whose_trace_can_not_be_written_goes_on_without(tmp_path: Path) -> None:
    environ = {**os.environ, "ISOBIT_TRACE": str(tmp_path / "none" / "t.json")}
    code = "import isobit; isobit.init().barrier(); print('done')"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr.count("\n") == 1
    assert "there is no trace" in done.stderr
