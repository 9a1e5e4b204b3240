"""The groups that tests share, their environment, and what the examples in docstrings may take for granted."""

from __future__ import annotations

import os
from collections.abc import Iterator

import isobit
import numpy as np
import pytest
from ranks import Group, Processes, Threads

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHER_PREFIXES = ("OMPI_", "PMI", "SLURM_", "TORCHELASTIC_", "ISOBIT_")
WORLD_SIZES = (1, 2, 3, 4, 5, 8)


@pytest.fixture(autouse=True, scope="session")
def _no_launcher() -> Iterator[None]:
    """Tests that run under a launcher must not take its world for theirs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name in LAUNCHER_VARIABLES or name.startswith(LAUNCHER_PREFIXES):
                patch.delenv(name)
        yield


class Groups:
    """Groups by kind and size, made when first asked for."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, int], Threads | Processes] = {}

    def get(self, transport: str, world_size: int) -> Group:
        key = (transport, world_size)
        if key not in self._groups:
            self._groups[key] = Threads(world_size) if transport == "memory" else Processes(world_size)
        return self._groups[key]

    def drop(self, transport: str, world_size: int) -> None:
        """Ends a group in which a test failed: its ranks may be anywhere."""
        self._groups.pop((transport, world_size)).close()

    def close(self) -> None:
        for group in self._groups.values():
            group.close()


@pytest.fixture(scope="session")
def groups(_no_launcher: None) -> Iterator[Groups]:
    made = Groups()
    yield made
    made.close()


@pytest.fixture(params=["memory", "shm"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=WORLD_SIZES, ids=lambda n: f"N={n}")
def world_size(request: pytest.FixtureRequest) -> int:
    size: int = request.param
    return size


@pytest.fixture
def group(groups: Groups, transport: str, world_size: int, request: pytest.FixtureRequest) -> Iterator[Group]:
    """A group of every size over every transport."""
    failed = request.session.testsfailed
    yield groups.get(transport, world_size)
    if request.session.testsfailed > failed:
        groups.drop(transport, world_size)


@pytest.fixture(autouse=True)
def _names_of_the_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np
    doctest_namespace["isobit"] = isobit
