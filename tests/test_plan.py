"""`isobit plan`: the table and its choice, the fit of the constants, the comparison, the picture, and bad input."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import isobit
import pytest
from isobit.cli import main
from isobit.plan import fit, picture, table
from isobit.plan.model import NAMES, Constants, World


def _bench(path: Path, cases: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"machine": {"cores": 2}, "cases": cases}))
    return path


def _case(world: World, time_us: float) -> dict[str, Any]:
    return {
        "library": "isobit",
        "interface": "python",
        "collective": world.collective,
        "dtype": world.dtype,
        "order": world.order,
        "ranks": world.ranks,
        "bytes": world.size,
        "p50_us": time_us,
    }


WORLDS = [
    World(ranks, 1, size - size % (4 * ranks), collective)
    for ranks in range(2, 9)
    for collective in ("all_reduce", "reduce_scatter", "all_gather", "broadcast")
    for size in (64, 4096, 65536, 1 << 20, 1 << 24)
]


def test_the_choice_is_that_of_a_group_of_that_size() -> None:
    comm = isobit.init()
    for size in (0, 1024, 1 << 24):
        told = comm.explain("all_reduce", size // 4, dtype="f32")
        assert World(1, 1, size).outlook(Constants()).algorithm == told.algorithm


def test_a_table_has_a_line_for_each_algorithm_and_says_what_is_chosen_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--ranks", "64", "--nodes", "8", "--bytes", "4M"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["one-shot", "star", "direct", "butterfly"]
    assert lines[7].split()[:3] == ["*", "hierarchical", "4"]
    assert lines[9].startswith("Chosen: hierarchical, because ")


def test_leaves_that_cost_more_are_told_with_what_is_cheaper(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--ranks", "3", "--leaves", "64"]) == 0
    assert (
        "64 leaves: 3.67 contributions a rank, on average; cheaper are 48 leaves at 1, or 2 ranks at 1."
        in capsys.readouterr().out
    )


def test_four_thousand_ranks_have_few_messages_where_a_hierarchy_avoids_many() -> None:
    for collective in ("all_reduce", "reduce", "reduce_scatter", "all_gather", "gather", "broadcast", "barrier"):
        for nodes in (64, 512):
            chosen = World(4096, nodes, 1 << 20, collective).outlook(Constants()).chosen
            assert chosen.messages_sent < 4096 / 3, (collective, nodes, chosen)


def test_a_fit_finds_the_constants_that_made_the_measurements(tmp_path: Path) -> None:
    built_in = Constants(cores=2)
    made = replace(built_in, values={name: value * 2 for name, value in built_in.values.items()})
    cases = [_case(world, world.outlook(made).chosen.time_us) for world in WORLDS]
    bench = fit.read_bench([_bench(tmp_path / "bench.json", cases)], "python")
    rows = fit.compare(bench, fit.fit(bench))
    assert max(abs(row.error) for row in rows) < 15
    assert max(abs(row.error) for row in fit.compare(bench, built_in)) > 40


def test_a_wild_measurement_does_not_carry_the_fit_away(tmp_path: Path) -> None:
    constants, chance = Constants(cores=2), random.Random(1)
    times = [world.outlook(constants).chosen.time_us for world in WORLDS]
    wild = [time * 30 if chance.random() < 0.05 else time for time in times]
    cases = [_case(world, time) for world, time in zip(WORLDS, wild, strict=True)]
    bench = fit.read_bench([_bench(tmp_path / "bench.json", cases)], "python")
    found = fit.fit(bench)
    errors = sorted(
        abs(world.outlook(found).chosen.time_us / time - 1) for world, time in zip(WORLDS, times, strict=True)
    )
    assert errors[len(errors) * 3 // 4] < 0.25


def test_constants_are_written_to_a_file_and_read_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [_case(world, 5.0 + world.size / 1e4) for world in WORLDS]
    bench, out = _bench(tmp_path / "bench.json", cases), tmp_path / "constants.json"
    assert main(["plan", "--fit", str(bench), "-o", str(out)]) == 0
    assert "median error" in capsys.readouterr().out
    assert set(Constants.read(out).values) == set(NAMES)
    assert main(["plan", "--ranks", "8", "--constants", str(out)]) == 0
    assert f"Constants: {out}; 2 cores a node." in capsys.readouterr().out


def test_predictions_are_compared_with_measurements_for_each_number_of_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    constants = Constants(cores=2)
    cases = [_case(world, world.outlook(constants).chosen.time_us * 2) for world in WORLDS]
    assert main(["plan", "--compare", str(_bench(tmp_path / "bench.json", cases))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.endswith("-50 %") for line in lines) == len(WORLDS)
    assert [line.split() for line in lines[-8:]] == [
        [name, str(count), "50", "%", "50", "%"]
        for name, count in [*((str(ranks), 20) for ranks in range(2, 9)), ("all", 140)]
    ]


def test_a_picture_is_drawn_over_the_numbers_of_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.png"
    assert main(["plan", "--ranks", "48", "--nodes", "6", "--collective", "all_gather", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out
    assert picture.numbers(48) == [2, 4, 8, 16, 32, 48]


def test_sizes_and_times_are_written_as_people_read_them() -> None:
    assert [table.size(count) for count in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3 GiB"]
    assert [table.duration(time) for time in (0.5, 1500, 2e6)] == ["0.5 us", "1.5 ms", "2 s"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "plan needs --ranks R"),
        (["--ranks", "0"], "'0' is no integer from 1"),
        (["--ranks", "many"], "'many' is no integer"),
        (["--ranks", "4", "--nodes", "5"], "no node without one"),
        (["--ranks", "4", "--bytes", "-1"], "'-1' is no size in bytes"),
        (["--ranks", "4", "--bytes", "1X"], "'1X' is no size in bytes"),
        (["--ranks", "4", "--dtype", "f33"], "'f33' is no dtype"),
        (["--ranks", "4", "--collective", "sum"], "invalid choice: 'sum'"),
        (["--ranks", "4", "--dtype", "bool"], "bool"),
        (["--ranks", "4", "--constants", "nowhere.json"], "nowhere.json: No such file"),
        (["--ranks", "4", "--plot", "plan.txt"], "'plan.txt' is no .png"),
        (["--fit", "nowhere.json", "-o", "x.json"], "nowhere.json: No such file"),
        (["--fit", "nowhere.json"], "--fit needs -o FILE"),
        (["--compare", "broken.json"], "broken.json: no JSON"),
        (["--compare", "other.json"], "there is no list of cases"),
        (["--compare", "empty.json"], "no measurement of isobit from python"),
        (["--compare", "lacking.json"], "lacks its collective"),
        (["--ranks", "4", "--constants", "other.json"], "expected an object with call_us"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("other.json").write_text("{}")
    Path("empty.json").write_text('{"cases": []}')
    Path("lacking.json").write_text('[{"library": "isobit", "interface": "python"}]')
    assert main(["plan", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("isobit: plan")
    assert captured.err.count("\n") == 1
    assert says in captured.err
