"""The constants fitted to what `isobit bench` measured, and predictions beside measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from isobit.plan.model import NAMES, Constants, PlanError, Prediction, World, read_json

#: How much a constant is held where it begins: those that the measurements say nothing about stay there.
_HELD, _FIXED = 0.01, 1e4
#: What only ranks that share cores wait for.
_CROWDED = ("wait_us", "slice_us")
#: A difference beyond this factor counts less, and one far beyond it hardly: a scheduler's whims are not the model's.
_WHIM = np.log(1.5)
_ROUNDS = 200
Vector = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """A call that was measured on one machine."""

    world: World
    time_us: float


class Bench(NamedTuple):
    """What was measured of isobit, through one interface, and on how many cores."""

    measured: list[Measured]
    interface: str
    cores: int | None


def read_bench(paths: Iterable[Path], interface: str) -> Bench:
    """isobit's lines of the files that `isobit bench --json` wrote."""
    measured: list[Measured] = []
    cores: int | None = None
    for path in paths:
        found = read_json(path)
        if isinstance(found, dict):
            machine = found.get("machine")
            cores = machine.get("cores", cores) if isinstance(machine, dict) else cores
            found = found.get("cases")
        if not isinstance(found, list):
            raise PlanError(f"{path}: not what isobit bench --json writes: there is no list of cases")
        measured += [_measured(path, case) for case in found if _is_ours(case, interface)]
    # A barrier between ranks and a call of one rank have their times, but not the time of a tensor's way.
    measured = [one for one in measured if one.world.ranks > 1 and one.world.size > 0 and one.time_us > 0]
    if not measured:
        raise PlanError(f"no measurement of isobit from {interface} on 2 or more ranks in {', '.join(map(str, paths))}")
    return Bench(measured, interface, cores)


def _is_ours(case: Any, interface: str) -> bool:
    return isinstance(case, dict) and case.get("library") == "isobit" and case.get("interface") == interface


def _measured(path: Path, case: dict[str, Any]) -> Measured:
    try:
        ranks, size, time_us = int(case["ranks"]), int(case["bytes"]), float(case["p50_us"])
        collective, dtype, order = (str(case[name]) for name in ("collective", "dtype", "order"))
    except (KeyError, TypeError, ValueError):
        raise PlanError(f"{path}: a case lacks its collective, dtype, order, ranks, bytes or p50_us") from None
    return Measured(World(ranks, 1, size, collective, dtype, order), time_us)


def fit(bench: Bench) -> Constants:
    """The constants with which the predictions are nearest to the measurements, by their ratio.

    The logarithms of the constants are fitted, so that none is negative, and all sizes count alike. Ranks that have a
    core each say what things cost; the others, what it costs to share one.
    """
    built_in = Constants(cores=bench.cores)
    at = np.log([_cost(name, built_in.values[name]) for name in NAMES])
    crowded = np.array([one.world.ranks > (bench.cores or one.world.ranks) for one in bench.measured])
    counts = np.array([_terms(one.world.outlook(built_in).chosen) for one in bench.measured])
    wanted = np.log([one.time_us for one in bench.measured])
    if not crowded.all():
        at = _minimise(counts[~crowded], wanted[~crowded], at, np.full(len(NAMES), _HELD))
    if crowded.any():
        free = _CROWDED if not crowded.all() else NAMES
        held = np.array([_HELD if name in free else _FIXED for name in NAMES])
        at = _minimise(counts[crowded], wanted[crowded], at, held)
    values = {name: _cost(name, float(np.exp(cost))) for name, cost in zip(NAMES, at, strict=True)}
    return Constants(values, bench.cores, built_in.cache_bytes, "fitted")


def _minimise(counts: Vector, wanted: Vector, start: Vector, held: Vector) -> Vector:
    """Gauss-Newton with damping (Levenberg and Marquardt) on the logarithms, with weights after Cauchy."""

    def off(at: Vector) -> Vector:
        return np.asarray(wanted - np.log(counts @ np.exp(at)))

    def loss(at: Vector) -> float:
        return float(_WHIM**2 * np.log1p((off(at) / _WHIM) ** 2).sum() + (held * (at - start) ** 2).sum())

    at, damping = start.copy(), 1.0
    for _ in range(_ROUNDS):
        slopes = counts * np.exp(at) / (counts @ np.exp(at))[:, None]
        weights = 1 / (1 + (off(at) / _WHIM) ** 2)
        matrix = slopes.T @ (weights[:, None] * slopes) + np.diag(held)
        gradient = slopes.T @ (weights * off(at)) - held * (at - start)
        step = np.linalg.solve(matrix + damping * np.eye(len(at)), gradient)
        if loss(at + step) < loss(at):
            at, damping = at + step, max(damping / 3, 1e-6)
        else:
            damping *= 4
    return at


def _terms(prediction: Prediction) -> list[float]:
    return [prediction.terms[name] for name in NAMES]


def _cost(name: str, value: float) -> float:
    """From GB/s to us a byte and back; times stay what they are."""
    return value if name.endswith("_us") else 1e-3 / value


class Comparison(NamedTuple):
    """A measurement and what the model says of it."""

    measured: Measured
    predicted: Prediction

    @property
    def error(self) -> float:
        """How much longer than measured, in percent: -50 is half, 100 is twice."""
        return 100 * (self.predicted.time_us / self.measured.time_us - 1)


def compare(bench: Bench, constants: Constants) -> list[Comparison]:
    """Predictions beside measurements, by ranks, collective and size."""
    rows = [Comparison(one, one.world.outlook(constants).chosen) for one in bench.measured]
    return sorted(
        rows, key=lambda row: (row.measured.world.ranks, row.measured.world.collective, row.measured.world.size)
    )


def summary(rows: Sequence[Comparison]) -> list[tuple[str, int, float, float]]:
    """For each number of ranks and for all: how many, the median and the 90th percentile of the errors' sizes."""
    by_ranks: dict[str, list[float]] = {}
    for row in rows:
        by_ranks.setdefault(str(row.measured.world.ranks), []).append(abs(row.error))
    by_ranks["all"] = [abs(row.error) for row in rows]
    return [(name, len(errors), median(errors), float(np.percentile(errors, 90))) for name, errors in by_ranks.items()]
