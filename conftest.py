"""What the examples in docstrings may take for granted: `np` and `isobit`."""

from __future__ import annotations

import isobit
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _names_of_the_examples(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["np"] = np
    doctest_namespace["isobit"] = isobit
