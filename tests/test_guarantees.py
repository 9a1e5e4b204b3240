"""docs/guarantees.md names tests and mutations that there are, and each mutation beside the test that finds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mutations.run import LIST, ROOT, load

PAGE = ROOT / "docs" / "guarantees.md"
MUTATIONS = {mutation.name: mutation for mutation in load(ROOT / LIST)}
TEST = re.compile(r"`((?:rust|tests|examples)/[\w/.]+\.(?:rs|py)::[\w:]+)`")
NAME = re.compile(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`")


def _rows() -> list[tuple[str, str, str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert all(len(row) == 3 for row in cells), [row for row in cells if len(row) != 3]
    return [(row[0], row[1], row[2]) for row in cells if row[0] != "guarantee"]


ROWS = _rows()


def _is_there(test: str) -> bool:
    path, _, name = test.partition("::")
    file, function = ROOT / path, name.rpartition("::")[2]
    return file.is_file() and re.search(rf"\b{function}\b", file.read_text()) is not None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_guarantee_has_tests_that_exist(row: tuple[str, str, str]) -> None:
    tests = TEST.findall(row[1])
    assert tests
    assert [test for test in tests if not _is_there(test)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_guarantees_mutations_are_found_by_its_tests(row: tuple[str, str, str]) -> None:
    names = NAME.findall(row[2])
    assert names or row[2] == "-"
    assert [name for name in names if name not in MUTATIONS or f"`{MUTATIONS[name].test}`" not in row[1]] == []


def test_every_mutation_stands_beside_a_guarantee() -> None:
    assert set(MUTATIONS) - {name for row in ROWS for name in NAME.findall(row[2])} == set()


def test_every_mutation_names_a_test_that_exists() -> None:
    assert {mutation.name for mutation in MUTATIONS.values() if not _is_there(mutation.test)} == set()


def test_a_test_that_is_not_there_is_noticed() -> None:
    here = Path(__file__).relative_to(ROOT).as_posix()
    assert _is_there(f"{here}::test_a_test_that_is_not_there_is_noticed")
    assert not _is_there(f"{here}::test_that_nobody_" + "wrote")
    assert not _is_there("tests/test_that_is_no_file.py::test_anything")
