"""A call of a group that is not there, the model's constants and their file, and the predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from isobit import _native
from isobit.dtypes import dtype_of

#: The names of the model's constants: times in us, bandwidths and speeds in GB/s (10^9 bytes).
NAMES = tuple(_native.default_constants())
CACHE_BYTES = 32 << 20
_COLLECTIVES = {"send_recv": "send/recv"}


class PlanError(Exception):
    """There is nothing to predict; the text says why, in one line."""


@dataclass(frozen=True)
class Constants:
    """What the model multiplies its counts by, and what a machine has; `cores=None` is a core for every rank."""

    values: Mapping[str, float] = field(default_factory=_native.default_constants)
    cores: int | None = None
    cache_bytes: int = CACHE_BYTES
    source: str = "built in"

    @classmethod
    def read(cls, path: Path) -> Constants:
        """From the file that `--fit` wrote."""
        found = read_json(path)
        if not isinstance(found, dict) or set(found) != {*NAMES, "cores", "cache_bytes"}:
            raise PlanError(f"{path}: expected an object with {', '.join(NAMES)}, cores and cache_bytes")
        for name, value in found.items():
            if name == "cores" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise PlanError(f"{path}: {name} is a number above 0, not {value!r}")
        cores, cache_bytes = found.pop("cores"), int(found.pop("cache_bytes"))
        return cls(found, cores and int(cores), cache_bytes, str(path))

    def write(self, path: Path) -> None:
        """To a file for `--constants`."""
        content = {**{name: float(f"{value:.4g}") for name, value in self.values.items()}}
        path.write_text(json.dumps({**content, "cores": self.cores, "cache_bytes": self.cache_bytes}, indent=2) + "\n")


class Prediction(NamedTuple):
    """What one algorithm should take on its busiest rank."""

    algorithm: str
    steps: float
    messages_sent: float
    bytes_within: float
    bytes_between: float
    staging_bytes: float
    time_us: float
    #: How many of each constant the time is made of.
    terms: dict[str, float]


class Outlook(NamedTuple):
    """The choice, why, and the predictions of all that could be chosen."""

    algorithm: str
    reason: str
    multiplier: float | None
    nearest_ranks: int | None
    nearest_ranks_multiplier: float | None
    nearest_leaves: int | None
    predictions: list[Prediction]

    @property
    def chosen(self) -> Prediction:
        """The prediction of what is chosen."""
        return next(found for found in self.predictions if found.algorithm == self.algorithm)


@dataclass(frozen=True)
class World:
    """A collective of `size` bytes (the whole tensor, or all blocks) by `ranks` ranks on `nodes` machines."""

    ranks: int
    nodes: int = 1
    size: int = 1 << 20
    collective: str = "all_reduce"
    dtype: str = "f32"
    order: str = "tree"
    leaves: int | None = None

    @property
    def count(self) -> int:
        """The elements of the tensor."""
        return self.size // dtype_of(self.dtype).itemsize

    def outlook(self, constants: Constants) -> Outlook:
        """What each algorithm should take; `PlanError` if the library would refuse the call."""
        try:
            told: dict[str, Any] = _native.plan(
                ranks=self.ranks,
                nodes=self.nodes,
                collective=_COLLECTIVES.get(self.collective, self.collective),
                count=self.count,
                dtype=self.dtype,
                op="sum",
                order=self.order,
                num_leaves=self.leaves or self.ranks,
                constants=dict(constants.values),
                cores=constants.cores,
                cache_bytes=constants.cache_bytes,
            )
        except ValueError as error:
            raise PlanError(str(error)) from None
        predictions = [Prediction(**found) for found in told.pop("predictions")]
        return Outlook(**told, predictions=predictions)


def read_json(path: Path) -> Any:
    """What a JSON file holds; `PlanError` if it is none."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"{path}: no JSON: {error}") from None
