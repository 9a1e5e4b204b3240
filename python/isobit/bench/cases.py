"""What is measured: a collective, a dtype, a size and a number of ranks, and what the measurement takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COLLECTIVES = (
    "all_reduce",
    "reduce",
    "reduce_scatter",
    "all_gather",
    "gather",
    "scatter",
    "broadcast",
    "all_to_all",
    "barrier",
    "send_recv",
)
#: Those with a root, which is rank 0.
ROOTED = ("reduce", "gather", "scatter", "broadcast")
REDUCING = ("all_reduce", "reduce", "reduce_scatter")
#: Those in which a rank has a block of the whole.
_SPLIT = ("reduce_scatter", "all_gather", "gather", "scatter", "all_to_all")
#: Element sizes by dtype.
DTYPES = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i8": 1, "u8": 1, "i32": 4, "u32": 4, "i64": 8, "u64": 8}
ORDERS = ("tree", "exact")
#: From this size on every call has a barrier before it; below, calls follow each other, each timed by itself. Those
#: with a root always have one: a root that is not waited for runs ahead, and its time would say nothing.
SYNCHRONISED_FROM = 128 * 1024
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Case:
    """One line of the table; `size` is in bytes, of the whole tensor: all blocks where each rank has one."""

    collective: str
    dtype: str
    order: str
    ranks: int
    size: int

    @property
    def count(self) -> int:
        """Elements of the whole tensor."""
        return self.size // DTYPES[self.dtype]

    @property
    def block(self) -> int:
        """Elements of one rank's block."""
        return self.count // self.ranks

    @property
    def is_synchronised(self) -> bool:
        """Whether there is a barrier before every call."""
        return self.size >= SYNCHRONISED_FROM or self.collective in ROOTED

    @property
    def is_small(self) -> bool:
        """Whether a call is so short that more than one must warm up."""
        return self.size < SYNCHRONISED_FROM

    @property
    def bus_factor(self) -> float:
        """From algbw to busbw, as nccl-tests has it: what the links carry, whatever the number of ranks."""
        if self.collective == "all_reduce":
            return 2 * (self.ranks - 1) / self.ranks
        return (self.ranks - 1) / self.ranks if self.collective in _SPLIT else 1.0

    def bandwidth(self, seconds: float) -> tuple[float, float]:
        """algbw and busbw in GB/s (10^9 bytes), of a call that takes so long."""
        algbw = self.size / seconds / 1e9 if seconds > 0 else 0.0
        return algbw, algbw * self.bus_factor


def cases(collectives: Sequence[str], dtype: str, order: str, ranks: int, sizes: Sequence[int]) -> list[Case]:
    """All that is to be measured; sizes are rounded down to what can be divided among the ranks."""
    found: list[Case] = []
    for collective in collectives:
        if collective == "barrier":
            found.append(Case(collective, dtype, order, ranks, 0))
            continue
        grain = DTYPES[dtype] * (ranks if collective in _SPLIT else 1)
        rounded = dict.fromkeys(size - size % grain for size in sizes)
        found += [Case(collective, dtype, order, ranks, size) for size in rounded if size]
    return found


def bytes_needed(case: Case) -> int:
    """The most that the buffers of one library's ranks take, a table of one period aside."""
    whole, block = case.size, case.size // case.ranks
    per_rank = {"all_reduce": 2 * whole, "all_to_all": 2 * whole, "broadcast": whole, "barrier": 0}
    if case.collective in per_rank:
        return case.ranks * per_rank[case.collective]
    if case.collective == "send_recv":
        return 2 * 2 * whole
    if case.collective == "reduce":
        return (case.ranks + 1) * whole
    if case.collective in ("gather", "scatter"):
        return whole + case.ranks * block
    return case.ranks * (whole + block)


def parse_sizes(text: str) -> list[int]:
    """Sizes in bytes from `8,64K,1M`, or `8:256M` (every power of two between) or `8:256M:4` (every fourth)."""
    first, colon, rest = text.partition(":")
    if not colon:
        return list(dict.fromkeys(_size(word) for word in text.split(",")))
    last, _, factor = rest.partition(":")
    size, end, step = _size(first), _size(last), int(factor or "2") if (factor or "2").isdecimal() else 0
    if step < 2:
        raise ValueError(f"{text!r}: the factor is an integer of at least 2")
    if size > end:
        raise ValueError(f"{text!r}: the first size is larger than the last")
    found = []
    while size <= end:
        found.append(size)
        size *= step
    return found


def shown(size: int) -> str:
    """A size as people write it: 64K for 65536."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _size(text: str) -> int:
    digits = text.strip().upper().removesuffix("IB").rstrip("BKMG")
    unit = text.strip().upper().removesuffix("IB")[len(digits) :]
    if not (digits.isascii() and digits.isdecimal()) or unit.removesuffix("B") not in _UNITS or int(digits) == 0:
        raise ValueError(f"{text!r} is no size: write 8, 64K, 1M or 8:256M")
    return int(digits) * _UNITS[unit.removesuffix("B")]
