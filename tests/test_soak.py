"""A short soak: a rank holds after ten thousands of operations what it held after some thousands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import isobit
import pytest
import soak
from ranks import Processes, results

PLAN = soak.Plan(small=24_000, large=160, mib=2, samples=32)
SHORT = soak.Plan(small=4_000, large=0, mib=1, samples=16)


@pytest.fixture
def pair() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.close()


def samples(comm: isobit.Communicator, plan: soak.Plan, leak: Callable[[], object] | None = None) -> list[soak.Sample]:
    found: list[soak.Sample] = []
    soak.run(comm, plan, found.append, leak)
    return found


def grown(found: list[list[soak.Sample]]) -> list[str]:
    """What is not flat, as the table's lines."""
    return [soak.table([growth]) for growth in soak.growths(found) if not growth.is_flat]


def test_ranks_hold_no_more_after_many_operations(pair: Processes) -> None:
    assert grown(results(pair, samples, PLAN)) == []


_kept: list[object] = []


def _keep_memory() -> None:
    _kept.append(bytearray(1000))


def _keep_a_file() -> None:
    if len(_kept) % 500 == 0:
        os.open("/dev/null", os.O_RDONLY)
    _kept.append(None)


@pytest.mark.parametrize(("leak", "what"), [(_keep_memory, "own KiB"), (_keep_a_file, "files")])
def test_a_leak_is_found(pair: Processes, leak: Callable[[], object], what: str) -> None:
    lines = grown(results(pair, samples, SHORT, leak))
    assert any(what in line for line in lines), lines
