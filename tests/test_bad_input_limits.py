"""Low limits and odd surroundings of a process (item 51 of the bad inputs): enough, or one line with the fix."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ranks import launch

LIMITED = """
import os, resource, sys
import numpy as np, isobit
limit, value = sys.argv[1], int(sys.argv[2])
if limit == "NOFILE" and value == 0:
    value = len(os.listdir("/proc/self/fd"))
if limit == "AS":
    with open("/proc/self/statm") as statm:
        value += int(statm.read().split()[0]) * resource.getpagesize()
number = getattr(resource, "RLIMIT_" + limit)
resource.setrlimit(number, (value, value))
try:
    comm = isobit.init(timeout=20)
except isobit.Error as error:
    print(type(error).__name__, str(error).count(chr(10)), "lines:", error)
    sys.exit()
with comm:
    total = comm.all_reduce(np.ones(100_000, np.float32))
    half = comm.split(comm.rank % 2).all_gather(np.ones((2, 3)))
    background = comm.all_reduce(np.ones(3), async_op=True).wait()
    print("sums", total[0], len(half), background[0])
"""


def limited(tmp_path: Path, limit: str, value: int, ranks: int) -> str:
    program = tmp_path / "program.py"
    program.write_text(LIMITED)
    done = launch(str(program), limit, str(value), ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "panicked" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("limit", "value", "ranks"), [("NOFILE", 64, 8), ("MEMLOCK", 0, 3), ("MEMLOCK", 65536, 3), ("STACK", 65536, 3)]
)
def test_item_51_low_limits_are_enough(tmp_path: Path, limit: str, value: int, ranks: int) -> None:
    expected = f"sums {float(ranks)} "
    assert limited(tmp_path, limit, value, ranks).count(expected) == ranks


@pytest.mark.parametrize(
    ("limit", "value", "fix"),
    [("NOFILE", 0, "ulimit -n"), ("FSIZE", 4096, "ulimit -f"), ("AS", 1_000_000, "raise ulimit -v")],
)
def test_item_51_limits_that_are_too_low_are_an_error_of_one_line_with_the_fix(
    tmp_path: Path, limit: str, value: int, fix: str
) -> None:
    for line in limited(tmp_path, limit, value, 2).splitlines():
        assert "Unavailable 0 lines: " in line
        assert fix in line
        assert "'shm' is unavailable" in line


WITHOUT_A_NETWORK = """
import os, socket
import numpy as np, isobit
def sockets():
    for number in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(number))) as found:
                yield found.family
        except OSError:
            pass
with isobit.init(timeout=20) as comm:
    comm.all_reduce(np.ones(1000))
    families = set(sockets())
    with open("/proc/self/maps") as maps:
        regions = {line.split(None, 5)[5].strip() for line in maps if line.count(" ") > 5 and "/" in line}
    print("internet", bool(families - {socket.AF_UNIX}), "shm", any("/dev/shm" in region for region in regions))
    print("memfd", any("memfd:" in region for region in regions))
"""


def test_item_51_neither_dev_shm_nor_a_network_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No IPv6, a host name that is 127.0.1.1, a port in use, a full /dev/shm: no rank opens what these are about."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        program = tmp_path / "program.py"
        program.write_text(WITHOUT_A_NETWORK)
        done = launch(str(program), ranks=3)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("internet False shm False") == 3
    assert done.stdout.count("memfd True") == 3


def test_item_51_two_groups_of_one_name_do_not_mix(tmp_path: Path) -> None:
    code = (
        "import isobit, numpy, sys\n"
        "try:\n    comm = isobit.init(timeout=3)\n    print(comm.all_reduce(numpy.ones(1))[0])\n"
        "except isobit.Error as error:\n    print(type(error).__name__)\n"
    )
    environ: dict[str, Any] = {**os.environ, "WORLD_SIZE": "2", "ISOBIT_JOB": f"twice-{os.getpid()}", "LOCAL_RANK": "0"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", code], env={**environ, "RANK": rank}, stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1", "0")
    ]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in ranks)
    assert said[:2] == ["2.0", "2.0"], said
    assert said[2] in ("AuthError", "Timeout", "Unavailable", "PeerLost"), said
