"""What the examples in docstrings may take for granted: `np` and `isobit`."""

from __future__ import annotations

import numpy as np
import pytest

import isobit


@pytest.fixture(autouse=True)
def _names_of_the_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np
    doctest_namespace["isobit"] = isobit
