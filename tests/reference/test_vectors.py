"""The committed golden vectors: what the code writes now, and what other arithmetic says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from isobit.reference import vectors

from . import oracle

DIRECTORY = Path(__file__).parents[1] / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((DIRECTORY / name).read_text())
    return loaded


def codes(tensor: str, size: int) -> list[int]:
    data = bytes.fromhex(tensor)
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


@pytest.mark.parametrize("file", vectors.FILES)
def test_the_committed_vectors_are_what_the_code_writes(file: str) -> None:
    committed = (DIRECTORY / file).read_bytes()
    written = vectors.text(file).encode()
    assert committed == written, f"{file} differs: python -m isobit.reference.vectors tests/vectors"


def test_the_vectors_stay_small() -> None:
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 1_500_000


def expected(spec: dict[str, Any], leaves: list[list[int]], count: int) -> list[int]:
    """The result of a contract over floats, by the oracle."""
    dtype, op, out = spec["dtype"], spec["op"], spec["out_dtype"] or spec["dtype"]
    divisor = spec["divisor"] or (count if op == "mean" else 1)
    acc = spec["accumulate"] or ("f64" if dtype in ("f32", "f64") else "f32")
    columns = list(zip(*leaves[:count], strict=True))
    if spec["order"] == "exact":
        return [oracle.exact(out, divisor, column, dtype) for column in columns]
    return [oracle.tree(op, acc, out, divisor, column, dtype) for column in columns]


def test_other_arithmetic_gives_the_named_reductions() -> None:
    checked = 0
    for vector in load("reductions.json"):
        spec = vector["contract"]
        if spec["dtype"] not in oracle.SIZE:
            continue
        leaves = [codes(leaf, oracle.SIZE[spec["dtype"]]) for leaf in vector["leaves"]]
        found = codes(vector["result"], oracle.SIZE[spec["out_dtype"]])
        assert found == expected(spec, leaves, spec["leaves"]), vector["name"]
        checked += 1
    assert checked > 500


@pytest.mark.parametrize("dtype", oracle.SIZE)
def test_other_arithmetic_gives_the_grid(dtype: str) -> None:
    pools = {entry["name"]: entry["leaves"] for entry in load("pools.json")}
    leaves = [codes(leaf, oracle.SIZE[dtype]) for leaf in pools[dtype]]
    for vector in load("grid.json"):
        if vector["dtype"] != dtype:
            continue
        out = vector["out_dtype"] or dtype
        for count, result in vector["results"].items():
            found = codes(result, oracle.SIZE[out])
            assert found == expected(vector, leaves, int(count)), f"{vector['name']}, {count} leaves"


def test_other_arithmetic_gives_the_integer_grid() -> None:
    pools = {entry["name"]: entry["leaves"] for entry in load("pools.json")}
    for vector in load("grid.json"):
        dtype, op = vector["dtype"], vector["op"]
        if dtype in oracle.SIZE:
            continue
        size = 1 if dtype == "bool" else int(dtype[1:]) // 8
        modulus, signed = 1 << 8 * size, dtype[0] == "i"
        leaves = [codes(leaf, size) for leaf in pools[dtype]]
        for count, result in vector["results"].items():
            for column, found in zip(zip(*leaves[: int(count)], strict=True), codes(result, size), strict=True):
                numbers = [code - modulus if signed and code >= modulus // 2 else code for code in column]
                if dtype == "bool":
                    numbers = [int(code != 0) for code in column]
                total = numbers[0]
                for value in numbers[1:]:
                    total = {
                        "sum": total + value,
                        "prod": total * value,
                        "min": min(total, value),
                        "max": max(total, value),
                        "band": total & value,
                        "bor": total | value,
                        "bxor": total ^ value,
                    }[op]
                assert found == total % modulus, f"{vector['name']}, {count} leaves"
