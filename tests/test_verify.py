"""`isobit verify`: that it passes here, that it finds what is wrong, and what it shows of other libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from isobit.reference.dtype import FLOATS, Dtype
from isobit.reference.reduce import reduce
from isobit.reference.rounding import is_nan
from isobit.verify import cases, groups, peers, report, truths
from isobit.verify.command import _incomplete, verify
from isobit.verify.compare import difference, ulps
from isobit.verify.contenders import BUCKETS, SIZES, WATCHED, WORLD_SIZES, Cell, leaf, watched
from isobit.verify.data import leaf as leaf_of
from isobit.verify.ranks import Finding, Line, Plant
from ranks import DEADLINE


def isobit(*words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isobit", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=4 * DEADLINE, check=False, env={**os.environ, **environ}
    )


def test_a_quick_run_passes_on_every_world_size_and_transport() -> None:
    done = isobit("verify", "--quick")
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if " 1-8 " in line]
    assert len(table) == len(cases.OPERATIONS) * len(cases.GROUPS)
    assert all(" memory shm " in line and "ok" in line for line in table)
    accumulated = [line for line in table if line.startswith("accumulate")]
    assert accumulated
    assert all(line.endswith("at every world size") for line in accumulated)
    assert "Every result has the bits of the law" in done.stdout


def test_runs_stay_within_their_budgets() -> None:
    calls = {quick: sum(len(cases.cases(n, quick)) for n in cases.WORLD_SIZES) for quick in (True, False)}
    # Seconds follow from these: a call on 8 processes that share 2 cores takes up to 2 ms.
    assert calls[True] <= 6_500
    assert calls[False] <= 50_000


@pytest.mark.parametrize("quick", [True, False])
def test_every_reduction_is_made_with_every_operation(quick: bool) -> None:
    made = {(case.operation, case.reduction) for n in cases.WORLD_SIZES for case in cases.cases(n, quick)}
    for reduction in cases.reductions(quick):
        accumulating = cases.ACCUMULATING if cases.is_accumulated(reduction) else ()
        assert {(operation, reduction) for operation in (*cases.REDUCING, *accumulating)} <= made, reduction
    assert {(operation, None) for operation in cases.MOVING} <= made


def test_leaves_hold_the_values_that_are_traps() -> None:
    for dtype in FLOATS:
        fmt = dtype.format
        bits = np.concatenate([leaf_of(number, dtype) for number in range(8)]).astype(np.uint64)
        magnitude = bits & np.uint64(fmt.sign_bit - 1)
        assert is_nan(bits.astype(dtype.bits), dtype).any(), dtype
        assert (bits == fmt.sign_bit).any(), dtype
        assert (bits == 0).any(), dtype
        assert ((magnitude > 0) & (magnitude <= fmt.mantissa_mask)).any(), dtype
        assert (magnitude == fmt.max_finite).any(), dtype
        assert not fmt.has_infinity or {fmt.infinity, fmt.sign_bit | fmt.infinity} <= set(bits.tolist()), dtype


def test_truths_are_those_of_the_reference_as_a_whole() -> None:
    for reduction in cases.reductions(True):
        if reduction.dtype in (Dtype.BF16, Dtype.F64):
            whole = reduce(reduction.contract(3), [leaf_of(number, reduction.dtype) for number in range(3)])
            assert truths.truth(reduction, 3).tobytes() == whole.tobytes(), reduction


@pytest.mark.parametrize(
    ("plant", "report_lines"),
    [
        (
            Plant("shm", 2, 1, "all_reduce", "f32", index=8, bit=1),
            [
                "WRONG: all_reduce of",
                "f32 (sum, order",
                "rank 1 of 2 over shm",
                "8, the first of 1 that",
                "2 ULP apart",
            ],
        ),
        (
            Plant("memory", 1, 0, "all_gather", "u8", index=60, bit=7),
            ["WRONG: all_gather of", "rank 0 of 1 over memory", "60, the first of 1 that", "128 apart"],
        ),
        (
            Plant("shm", 2, 0, "accumulate + all_reduce", "bf16", bit=None),
            ["FAILED: accumulate + all_reduce of", "rank 0 of 2 over shm raised RuntimeError"],
        ),
    ],
    ids=["a float", "an integer", "an exception"],
)
def test_a_planted_mistake_is_found_and_named(
    plant: Plant, report_lines: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(quick=True, plant=plant, world_sizes=(1, 2)) == 1
    said = capsys.readouterr().out
    assert all(line in said for line in report_lines), said
    assert "Every result has the bits of the law" not in said
    if plant.bit is not None:
        row = next(line for line in said.splitlines() if line.startswith(plant.operation) and "WRONG in 1" in line)
        assert plant.dtype in row or "int bool" in row
        assert said.count("WRONG in") == 1


def test_the_first_of_several_wrong_elements_is_shown_with_both_patterns() -> None:
    law = np.array([1.0, 2.0, -0.0, 4.0], np.float32)
    found = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
    apart = difference(found, law)
    assert apart is not None
    assert (apart.index, apart.found, apart.expected, apart.elements) == (2, 0, 0x80000000, 2)
    assert difference(law, law.copy()) is None
    nan = np.array([np.nan], np.float32)
    assert difference(nan, nan.copy()) is None
    for wrong in (law[:3], law.astype(np.float64), None):
        with pytest.raises(ValueError, match="result"):
            difference(wrong, law)


def test_distances_count_steps_of_the_dtype() -> None:
    assert ulps(0x0000, 0x8000, Dtype.BF16) == 1
    assert ulps(0x3F80, 0x3F7F, Dtype.BF16) == 1
    assert ulps(0x7C00, 0x7BFF, Dtype.F16) == 1
    assert ulps(0x7E00, 0x7BFF, Dtype.F16) is None
    assert ulps(0x7F, 0x80, Dtype.I8) == 255
    assert ulps(0x7F, 0x80, Dtype.U8) == 1


def test_a_group_or_a_call_that_was_left_out_is_a_failure() -> None:
    def finding(made: int) -> Finding:
        return Finding(lines={"all_reduce/f32": Line(cases=made, digest="a")})

    total = len(cases.cases(1, True))
    full = [groups.Group(transport, 1, [finding(total)]) for transport in groups.TRANSPORTS]
    assert _incomplete(full, [1], True) is None
    assert "over shm ended without" in str(_incomplete(full[:1], [1], True))
    short = [full[0], groups.Group("shm", 1, [finding(total - 1)])]
    assert f"made {total - 1} of {total} calls" in str(_incomplete(short, [1], True))
    empty = next(row for row in report.rows(full) if row.operation == "gather")
    assert not empty.is_right


def test_a_line_says_whether_world_sizes_and_transports_have_one_digest() -> None:
    def group(transport: str, world_size: int, *digests: str) -> groups.Group:
        return groups.Group(
            transport, world_size, [Finding(lines={"reduce/f32": Line(1, 0, digest)}) for digest in digests]
        )

    def row(*found: groups.Group) -> report.Row:
        return next(row for row in report.rows(found) if (row.operation, row.dtypes) == ("reduce", "f32"))

    same = row(group("memory", 1, "a"), group("memory", 2, "a", "a"), group("shm", 1, "a"), group("shm", 2, "a", "a"))
    assert (same.digest, same.is_invariant, same.cases) == ("a", True, 6)
    other_size = row(group("memory", 1, "a"), group("memory", 2, "b", "b"))
    other_rank = row(group("memory", 1, "a"), group("memory", 2, "a", "b"))
    assert not other_size.is_invariant
    assert not other_rank.is_invariant
    assert len({same.digest, other_size.digest, other_rank.digest}) == 3


def test_watched_numbers_are_the_same_in_every_message() -> None:
    first = leaf(5, SIZES[0])[watched(SIZES[0])]
    assert len(first) == WATCHED
    for size in SIZES:
        assert np.array_equal(leaf(5, size)[watched(size)], first)
    assert not np.array_equal(leaf(6, SIZES[0]), leaf(5, SIZES[0]))


def synthetic(name: str, wanders: bool) -> peers.Results:
    """Results that are the law's, or that depend on the number of ranks and, beyond two, of buckets."""
    law = np.frombuffer(peers.law(), np.uint32)
    cells = {}
    for size in SIZES:
        for buckets in BUCKETS:
            for n in WORLD_SIZES:
                found = law.copy()
                if wanders:
                    found[: n * 50] += 1
                    found[0] += 10 * buckets * (n > 2)
                cells[Cell(size, buckets, n)] = found.tobytes()
    return peers.Results(name, cells)


def test_the_table_of_peers_numbers_their_results(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    comparison = peers.Comparison([synthetic("isobit 1", False), synthetic("wandering", True)], peers.law())
    steady, wandering = comparison.libraries
    assert comparison.results_of(steady) == 1
    assert comparison.results_of(wandering) == 2 + 6 * len(BUCKETS)
    assert comparison.differing(wandering, Cell(1024, 1, 1)) == 0
    assert comparison.differing(wandering, Cell(1024, 1, 2)) == 50
    peers.print_table(comparison)
    isobit_table, other = capsys.readouterr().out.split("wandering")
    assert isobit_table.count("#1 ") + isobit_table.count("#1\n") == len(steady.cells)
    assert f"    1,024        1  {'#2   #3   #4   #7   #10  #13  #16  #19'}" in other
    assert f"   16,384        4  {'#2   #3   #5   #8   #11  #14  #17  #20'}" in other
    assert "no difference anywhere" in isobit_table
    peers.draw_if_possible(tmp_path / "peers.png", comparison)
    assert (tmp_path / "peers.png").stat().st_size > 10_000


def test_peers_are_compared_or_skipped_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert peers.compare(tmp_path / "peers.png") == 0, capfd.readouterr()
    said = capfd.readouterr().out
    assert "\nisobit " in said
    for name, reason in peers.availability().items():
        if reason is not None:
            assert "install" in reason
            assert f"{peers.LABELS[name]} is skipped: {reason}" in said
        else:
            assert f"{peers.LABELS[name]} is skipped" not in said
            assert f"{peers.LABELS[name]} did not work" not in said
    assert (tmp_path / "peers.png").exists()


def test_a_peer_that_is_not_installed_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = peers.availability()
    assert found["isobit"] is None
    assert "pip install torch" in str(found["gloo"])
    assert "apt install openmpi-bin" in str(found["mpi"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--fast"], "verify has no option '--fast'"),
        (["--quick=1"], "verify has no option '--quick=1'"),
        (["--plot"], "--plot needs the name of a file"),
        (["--plot", "a.png"], "--plot draws what --peers shows"),
    ],
)
def test_a_wrong_option_is_an_error_of_usage(words: list[str], complaint: str) -> None:
    done = isobit("verify", *words)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_the_import_of_isobit_does_not_load_verify() -> None:
    code = "import sys, isobit, isobit.cli; sys.exit(any(name.startswith('isobit.verify') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
