"""The examples with torch, in short. `make test-torch` runs this file where Debian's torch is installed."""

from __future__ import annotations

import re

import pytest
from test_examples import outputs

pytest.importorskip("torch", reason="this environment has no torch: make test-torch")


def test_overlap_bucket_size_and_number_of_ranks_change_no_bit() -> None:
    found = [
        *outputs("torch_buckets.py", "--steps=3", ranks=(1, 3)),
        *outputs("torch_buckets.py", "--steps=3", "--kib=1", ranks=(2,)),
        *outputs("torch_buckets.py", "--steps=3", "--kib=1000", "--blocking", ranks=(2,)),
    ]
    assert [set(re.findall(r"(\d+) buckets", output)) for output in found] == [{"3"}, {"3"}, {"5"}, {"1"}]
    assert len({digest for output in found for digest in re.findall(r"digest (\w+)", output)}) == 1
