"""`isobit bench`: what it measures, what it says of peers, what it answers to bad input, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import bench_fakes
import numpy as np
import pytest
from isobit.bench import pattern
from isobit.bench.cases import COLLECTIVES, Case, cases, parse_sizes
from isobit.bench.goals import outcomes
from isobit.bench.groups import Group
from isobit.bench.peers import INSTALL, Library
from isobit.bench.report import ratios
from isobit.bench.rounds import Result, measure, slowest
from isobit.cli import main
from isobit.guard import Guard

ROOT = Path(__file__).parent.parent
#: Seconds that no test needs.
PATIENCE = 100
QUICK = ("--sizes", "8,64K", "--seconds", "0.01")


class Bench:
    """`isobit bench` as a process of its own; what it and its ranks leave behind can be found by a mark."""

    def __init__(
        self, words: tuple[str, ...], environment: Mapping[str, str] | None = None, before: str = "pass"
    ) -> None:
        self._mark = f"MARK={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        program = f"import sys; {before}; from isobit.cli import main; sys.exit(main({['bench', *words]!r}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **(environment or {}), name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str, str]:
        """The exit status and what was written, once nothing holds the pipes any more."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # Its guard ends the ranks.
            self.process.kill()
            raise
        return self.process.returncode, out, err

    def others(self) -> list[int]:
        """Descriptors of all processes of this bench but itself."""
        found: list[int] = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            pid = int(path.parent.name)
            with contextlib.suppress(OSError):
                if self._mark.encode() in path.read_bytes() and pid != self.process.pid:
                    found.append(os.pidfd_open(pid))
        return found

    @property
    def out(self) -> IO[str]:
        """Its output, while it runs."""
        assert self.process.stdout is not None
        return self.process.stdout


def bench(*words: str, environment: Mapping[str, str] | None = None, before: str = "pass") -> tuple[int, str, str]:
    """Runs it to its end, and sees that nothing is left."""
    run = Bench(words, environment, before)
    ended = run.end()
    assert run.others() == []
    return ended


def test_every_collective_is_measured_and_right(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    status, out, err = bench("-n", "3", "--sizes", "16,64K,1M", "--seconds", "0.01", "--json", str(file))
    assert status == 0, out + err
    written = json.loads(file.read_text())
    found = {(case["collective"], case["bytes"]) for case in written["cases"] if case["interface"] == "python"}
    split = {"reduce_scatter", "all_gather", "gather", "scatter", "all_to_all"}
    expected = {("barrier", 0)}
    for collective in set(COLLECTIVES) - {"barrier"}:
        grain = 12 if collective in split else 4
        expected |= {(collective, size - size % grain) for size in (16, 65536, 1 << 20)}
    assert found == expected
    assert {case["wrong"] for case in written["cases"]} == {0}
    assert [line.split()[-2:] for line in out.splitlines() if " f32 " in line and "Python" in line].count(
        ["isobit,", "Python"]
    ) == len(expected)


def test_the_json_has_what_the_page_says(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert bench(*QUICK, "--collectives", "all_reduce", "--order", "exact", "--json", str(file))[0] == 0
    case = json.loads(file.read_text())["cases"][0]
    page = (ROOT / "docs" / "bench.md").read_text()
    assert set(case) == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert (case["library"], case["order"], case["ranks"], case["dtype"]) == ("isobit", "exact", 2, "f32")
    assert 0 < case["min_us"] <= case["p50_us"] <= case["p99_us"]


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f64", "i8", "u64"])
def test_the_data_is_exact_in_every_dtype(dtype: str) -> None:
    status, out, err = bench("--dtype", dtype, "--sizes", "4K", "--seconds", "0.01", "--collectives", "all_reduce")
    assert (status, "WRONG" in out) == (0, False), out + err


def test_it_works_with_what_peers_are_installed() -> None:
    status, out, err = bench("--peers", *QUICK, "--collectives", "all_reduce,all_to_all,broadcast,send_recv")
    assert status == 0, out + err
    for library in ("Gloo", "Open MPI", "MPICH", "Intel MPI"):
        assert f"# {library}," in out or f"{library} is skipped" in err or f"{library}, C is skipped" in err


def test_torch_is_measured_with_its_own_tensors() -> None:
    pytest.importorskip("torch", reason="torch is not installed: make test-torch has it")
    status, out, err = bench("--peers", "gloo", "--buffers", "torch", "--sizes", "64K", "--seconds", "0.01")
    assert status == 0, out + err
    assert len(re.findall(r" 0  Gloo, Python", out)) >= len(COLLECTIVES) - 1


def test_torch_may_refuse_a_dtype_and_goes_on() -> None:
    pytest.importorskip("torch", reason="torch is not installed: make test-torch has it")
    # Older versions of Gloo have no bf16.
    status, out, err = bench("--peers", "gloo", "--dtype", "bf16", "--sizes", "64K", "--seconds", "0.01")
    assert status == 0, out + err
    assert re.search(r"bf16 .* 0  Gloo, Python", out), "a barrier has no dtype"


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_an_mpi_is_asked_whether_it_adds_short_floats(dtype: str) -> None:
    peers = "openmpi,mpich,intelmpi"
    words = ("--peers", peers, "--dtype", dtype, "--sizes", "64K", "--seconds", "0.01", "--collectives", "all_reduce")
    status, out, err = bench(*words)
    assert status == 0, out + err
    rows = re.findall(rf"{dtype} .*  (?:Open MPI|MPICH|Intel MPI), C.*", out)
    assert len(rows) == len(re.findall(r"^# .*, C:", out, re.MULTILINE))
    for row in rows:
        if "Intel" in row:
            assert re.search(r" 0  Intel MPI, C$", row)
        else:
            assert re.search(rf" 0  [\w ]*, C$|: this MPI has no {dtype}$", row)


@pytest.fixture(scope="module")
def rust_program() -> Path:
    """The Rust rank, as `cargo test` builds it."""
    command = ["cargo", "build", "--locked", "--quiet", "-p", "isobit", "--example", "bench_rank"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    return ROOT / "target/debug/examples/bench_rank"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Any]:
    """Starts groups that end with the test."""
    groups: list[Group] = []
    with Guard() as guard:

        def start(library: Library, ranks: int) -> Group:
            groups.append(Group(library, ranks, tmp_path))
            groups[-1].start(guard)
            return groups[-1]

        yield start
        for each in groups:
            each.kill()


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i64"])
def test_the_rust_program_gives_the_same_answers(rust_program: Path, group: Any, dtype: str) -> None:
    library = Library("isobit", "rust", [str(rust_program)], {})
    started = group(library, 3)
    for case in cases(COLLECTIVES, dtype, "tree", 3, [48, 300_000]):
        (result,) = measure(case, [started], 0.001, lambda group, error: pytest.fail(str(error)))
        assert result.times, result.reason
        assert result.wrong == 0, case


def test_a_result_with_one_wrong_element_is_seen() -> None:
    for collective in sorted({*COLLECTIVES} - {"barrier"}):
        case = Case(collective, "f32", "tree", 2, 1 << 20)
        out = np.zeros(case.count if collective not in ("reduce_scatter", "scatter") else case.block, np.float32)
        truth = {None: pattern.table("f32", 2, None), 0: pattern.table("f32", 2, 0), 1: pattern.table("f32", 2, 1)}
        if collective in ("all_reduce", "reduce", "reduce_scatter"):
            pattern.fill(out, truth[None])
        elif collective in ("all_gather", "gather", "all_to_all"):
            for of in (0, 1):
                pattern.fill(out[of * case.block : (of + 1) * case.block], truth[of])
        else:
            pattern.fill(out, truth[1 if collective == "send_recv" else 0])
        assert pattern.wrong_in(case, 0, out) == 0
        out[70_000] += 1
        assert pattern.wrong_in(case, 0, out) == 1, collective
        assert pattern.wrong_in(case, 0, np.roll(out, 1)) > out.size // 2, collective


def test_a_wrong_result_of_a_peer_is_a_failure(tmp_path: Path) -> None:
    environment = bench_fakes.install(tmp_path, "is wrong")
    status, out, _ = bench("--peers", "openmpi", *QUICK, "--collectives", "barrier", environment=environment)
    assert status == 1
    # Two ranks, one round to try and five that count.
    assert "WRONG: Open MPI, C: barrier of 0: 60 elements" in out


def test_ratios_are_given_for_a_peer_that_works(tmp_path: Path) -> None:
    environment = bench_fakes.install(tmp_path, "works")
    status, out, err = bench(
        "--peers", "openmpi", *QUICK, "--collectives", "all_reduce", "--goals", environment=environment
    )
    assert status == 0, out + err
    assert "# Open MPI, C: Fake MPI 1.0" in out
    assert "Open MPI, Python is skipped: this mpi4py does not load it" in err
    assert f"this brings it: {INSTALL['mpi4py']}" in err
    assert "# Goals" in out


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("ends at its start", "mpirun.openmpi ended with status 7: There is no such machine."),
        ("hangs at its start", "there was no answer in time"),
    ],
)
def test_a_peer_that_does_not_start_is_an_error(tmp_path: Path, behaviour: str, reason: str) -> None:
    status, out, err = bench(
        *("--peers", "openmpi", *QUICK),
        environment=bench_fakes.install(tmp_path, behaviour),
        before="import isobit.bench.groups as g; g.START_TIME = 3.0",
    )
    assert status == 2, out + err
    assert err.splitlines()[-1] == f"isobit: bench: Open MPI, C did not start: {reason}"


@pytest.mark.parametrize(("behaviour", "reason"), [("dies", "a rank is gone"), ("hangs", "no answer in time")])
def test_a_peer_that_fails_is_named_and_the_others_go_on(tmp_path: Path, behaviour: str, reason: str) -> None:
    status, out, err = bench(
        *("--peers", "openmpi", "--sizes", "8,16", "--seconds", "0.01", "--collectives", "all_reduce"),
        environment=bench_fakes.install(tmp_path, behaviour),
        before="import isobit.bench.groups as g; g.ANSWER_TIME = 3.0",
    )
    assert status == 1, out + err
    assert re.search(f"FAILED: Open MPI, C failed at 'run all_reduce f32 tree 8 .*{reason}", out)
    assert len(re.findall(r"0  isobit, Python$", out, re.MULTILINE)) == 2


def test_a_peer_that_does_not_end_is_ended(tmp_path: Path) -> None:
    environment = bench_fakes.install(tmp_path, "does not end")
    before = "import isobit.bench.groups as g; g.END_TIME = 0.5"
    words = ("--peers", "openmpi", *QUICK, "--collectives", "barrier")
    assert bench(*words, environment=environment, before=before)[0] == 0


def test_a_peer_that_is_not_installed_is_skipped_by_name(tmp_path: Path) -> None:
    words = ("--peers", "openmpi,mpich", *QUICK, "--collectives", "barrier")
    status, _, err = bench(*words, environment={"PATH": str(tmp_path)})
    assert status == 0
    assert f"Open MPI is skipped: there is no mpirun.openmpi; this brings it: {INSTALL['openmpi']}" in err
    assert f"MPICH is skipped: there is no mpirun.mpich; this brings it: {INSTALL['mpich']}" in err


@pytest.mark.parametrize("peer", INSTALL)
def test_the_script_that_installs_a_peer_says_the_same(peer: str) -> None:
    script = ROOT / "benches" / "peers" / "install.sh"
    assert subprocess.run([script, "-n", peer], capture_output=True, text=True).stdout.strip() == INSTALL[peer]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype", "f33"], "there is no dtype 'f33': it is one of f16, bf16, f32"),
        (["--collectives", "all_reduce,al_gather"], "there is no collective 'al_gather'"),
        (["--order", "ring"], "there is no order 'ring'"),
        (["--buffers", "jax"], "there is no kind of buffers 'jax'"),
        (["--peers", "nccl"], "there is no peer 'nccl': it is one of gloo, openmpi, mpich, intelmpi"),
        (["--sizes", "1 Mb"], "'1 Mb' is no size"),
        (["--sizes", "8:4"], "the first size is larger than the last"),
        (["--sizes", "8:64:1"], "the factor is an integer of at least 2"),
        (["--sizes", "1000000G"], "GiB are free: give a smaller --sizes"),
        (["--sizes", "1", "--collectives", "all_reduce"], "there is nothing to measure"),
        (["-n", "0"], "the number of ranks is an integer from 1 to 1024"),
        (["-n", "1", "--collectives", "send_recv"], "send_recv needs two ranks"),
        (["-n", "1000"], "GiB are free: give fewer ranks"),
        (["--seconds", "0"], "'0': give seconds"),
        (["--json", "/nowhere/bench.json"], "No such file or directory"),
        (["--plot", "bench.png", "--collectives", "barrier"], "a barrier has none"),
        (["--goals"], "give --peers"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_clear_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert message in said.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_nothing_is_left_after_a_signal(number: signal.Signals, status: int) -> None:
    run = Bench(("--seconds", "30", "--sizes", "64K:1M"))
    next(line for line in run.out if "all_reduce, 2 ranks" in line)
    ranks = run.others()
    assert len(ranks) >= 2
    run.process.send_signal(number)
    assert run.end()[0] == status
    assert run.others() == []
    for each in ranks:
        os.close(each)


def test_nothing_is_left_after_the_driver_was_killed(tmp_path: Path) -> None:
    words = ("--peers", "openmpi", "--seconds", "30", "--sizes", "64K:1M")
    run = Bench(words, bench_fakes.install(tmp_path, "works"))
    next(line for line in run.out if "all_reduce, 2 ranks" in line)
    others = run.others()
    assert others != []
    run.process.kill()
    run.end()
    while others:
        ended, _, _ = select.select(others, [], [], PATIENCE)
        assert ended, "a rank has outlived the driver"
        others = [each for each in others if each not in ended]
        for each in ended:
            os.close(each)


def test_sizes_are_written_as_people_write_them() -> None:
    assert parse_sizes("8,64K,1MiB") == [8, 65536, 1 << 20]
    assert parse_sizes("8:64") == [8, 16, 32, 64]
    assert parse_sizes("1K:1M:32") == [1 << 10, 1 << 15, 1 << 20]


def test_busbw_is_what_nccl_tests_call_so() -> None:
    def busbw(collective: str) -> float:
        return Case(collective, "f32", "tree", 4, 4_000_000).bandwidth(0.001)[1]

    assert busbw("all_reduce") == pytest.approx(6.0)
    assert busbw("all_gather") == busbw("reduce_scatter") == busbw("all_to_all") == pytest.approx(3.0)
    assert busbw("broadcast") == busbw("reduce") == busbw("send_recv") == pytest.approx(4.0)


def test_an_iteration_takes_as_long_as_its_slowest_rank() -> None:
    assert slowest(Case("all_reduce", "f32", "tree", 2, 8), [[1000, 5000], [3000, 2000]]) == [3e-6, 5e-6]
    assert slowest(Case("send_recv", "f32", "tree", 2, 8), [[1000], [3000]]) == [1.5e-6]


def test_a_ratio_compares_callers_of_the_same_kind_and_a_goal_takes_the_best_peer_at_the_worst_size() -> None:
    def results(size: int, seconds: Mapping[tuple[str, str], float]) -> list[Result]:
        case = Case("all_reduce", "f32", "tree", 2, size)
        return [Result(case, libraries[name], [time]) for name, time in seconds.items()]

    names = [("isobit", "rust"), ("isobit", "python"), ("MPICH", "c"), ("Intel MPI", "c"), ("Gloo", "python")]
    libraries = {name: Library(*name, [], {}) for name in names}
    found = results(1 << 20, dict(zip(names, [1.0, 2.0, 3.0, 2.5, 12.0], strict=True)))
    found += results(1 << 21, dict(zip(names, [1.0, 2.0, 3.0, 1.5, 12.0], strict=True)))
    first, second = ratios(found, "rust").values()
    assert {library.label: ratio for library, ratio in first.items()} == {"MPICH, C": 3.0, "Intel MPI, C": 2.5}
    assert min(second.values()) == 1.5
    mpi, gloo = outcomes(found)
    assert (mpi.caller, mpi.by_size, mpi.is_met) == ("rust", {1 << 20: 2.5, 1 << 21: 1.5}, False)
    assert (gloo.caller, gloo.by_size, gloo.is_met) == ("python", {1 << 20: 6.0, 1 << 21: 6.0}, True)
    case = Case("all_reduce", "bf16", "tree", 2, 16 << 20)
    rows = [Result(case, libraries[name], [time]) for name, time in ((names[0], 1.0), (names[3], 4.0))]
    # One that has no bf16 has no times.
    rows.append(Result(case, libraries[names[2]], reason="this MPI has no bf16"))
    (bf16,) = outcomes(rows)
    assert (bf16.goal.dtypes, bf16.caller, bf16.by_size, bf16.is_met) == (("bf16",), "rust", {16 << 20: 4.0}, True)
