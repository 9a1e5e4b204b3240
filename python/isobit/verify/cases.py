"""Which calls are made: every operation with every reduction, size and ownership that can make a difference."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from isobit.reference.contract import Contract, ContractError, contract
from isobit.reference.dtype import FLOATS, Dtype
from isobit.reference.op import Order, ReduceOp

WORLD_SIZES = tuple(range(1, 9))
REDUCING = ("all_reduce", "reduce", "reduce_scatter")
ACCUMULATING = ("accumulate + all_reduce", "accumulate + reduce_scatter")
MOVING = ("all_gather", "gather", "scatter", "broadcast", "all_to_all")
OPERATIONS = (*REDUCING, *ACCUMULATING, *MOVING)

#: The lines of the table have a group of dtypes each.
GROUPS = {
    "f8": (Dtype.F8E4M3FN, Dtype.F8E5M2),
    "f16 bf16": (Dtype.F16, Dtype.BF16),
    "f32": (Dtype.F32,),
    "f64": (Dtype.F64,),
    "int bool": tuple(dtype for dtype in Dtype if not dtype.is_float),
}

#: Elements of a call: not a multiple of any world size, and a multiple of all.
SMALL = (61, 840)
#: Beyond every algorithm's and every message's limit, with a rest.
LARGE = 70_560 + 13


@dataclass(frozen=True)
class Reduction:
    """A reduction as a caller asks for it."""

    dtype: Dtype
    op: ReduceOp
    order: Order
    accumulate: Dtype | None = None
    out_dtype: Dtype | None = None
    divisor: int | None = None

    def contract(self, leaves: int) -> Contract:
        """Its contract over so many leaves."""
        return contract(self.op, leaves, self.dtype, self.order, self.accumulate, self.out_dtype, self.divisor)

    def is_defined(self) -> bool:
        """Whether there is such a reduction."""
        try:
            self.contract(1)
        except ContractError:
            return False
        return True

    def __str__(self) -> str:
        words = [f"{self.op.value}, order {self.order.value}"]
        words += [f"accumulate {self.accumulate.value}"] if self.accumulate else []
        words += [f"out_dtype {self.out_dtype.value}"] if self.out_dtype else []
        words += [f"divisor {self.divisor}"] if self.divisor else []
        return ", ".join(words)


@dataclass(frozen=True)
class Case:
    """One call, the same on every rank."""

    operation: str
    dtype: Dtype
    #: Elements of the whole: of a rank's tensor in a reduction, of all blocks together in a movement.
    count: int
    reduction: Reduction | None = None
    #: Leaves of an accumulation; a plain reduction has one a rank.
    leaves: int | None = None
    root: int = 0
    #: Whether the call writes to its input, or to an array of its own; an accumulation adds its leaves backwards.
    in_place: bool = False

    @property
    def group(self) -> str:
        """The name of its dtype's group."""
        return next(name for name, dtypes in GROUPS.items() if self.dtype in dtypes)

    def __str__(self) -> str:
        words = [f"{self.operation} of {self.count} {self.dtype.value}"]
        words += [f"({self.reduction})"] if self.reduction else []
        words += [f"over {self.leaves} leaves"] if self.leaves is not None else []
        words += [f"with root {self.root}"] if self.operation in ("reduce", "gather", "scatter", "broadcast") else []
        return " ".join(words)


@functools.cache
def reductions(quick: bool) -> tuple[Reduction, ...]:
    """Every reduction there is; a quick run leaves out most of the unusual dtypes of results."""
    return tuple(reduction for dtype in Dtype for reduction in _of_dtype(dtype, quick) if reduction.is_defined())


def leaf_counts(quick: bool) -> tuple[int, ...]:
    """Of accumulations: one, fewer than ranks, more, a power of two and not, and costly to share out."""
    return (1, 5, 24) if quick else (1, 2, 3, 7, 8, 13, 24, 64)


def is_accumulated(reduction: Reduction) -> bool:
    """Whether leaves can be accumulated with it."""
    return reduction.op in (ReduceOp.SUM, ReduceOp.MEAN)


def cases(world_size: int, quick: bool) -> list[Case]:
    """The calls of a group of `world_size` ranks, in order."""
    made = [*_small(world_size, quick), *_moving(world_size, quick), *_other_sizes(world_size, quick)]
    assert len(set(made)) == len(made), "no case comes twice"
    return made


def _of_dtype(dtype: Dtype, quick: bool) -> Iterator[Reduction]:
    for op, order in itertools.product(ReduceOp, Order):
        for accumulate in (None, Dtype.F32, Dtype.F64):
            yield Reduction(dtype, op, order, accumulate)
    if not dtype.is_float:
        return
    for order in Order:
        yield Reduction(dtype, ReduceOp.MEAN, order, divisor=7)
        yield Reduction(dtype, ReduceOp.MAX, order, out_dtype=Dtype.BF16)
        for op, out in itertools.product((ReduceOp.SUM, ReduceOp.MEAN), FLOATS):
            if out is not dtype and not (quick and out is not Dtype.F32):
                yield Reduction(dtype, op, order, out_dtype=out)


def _small(world_size: int, quick: bool) -> Iterator[Case]:
    for number, reduction in enumerate(reductions(quick)):
        for shift, operation in enumerate(REDUCING):
            # A quick run makes each reduction with every operation too, but at another world size.
            if quick and (number + world_size) % len(REDUCING) != shift:
                continue
            odd = (number + shift) % 2
            yield Case(operation, reduction.dtype, SMALL[odd], reduction, None, odd * (world_size - 1), odd == 0)
        if not is_accumulated(reduction):
            continue
        counts = leaf_counts(quick)
        for shift, leaves in enumerate((counts[number % len(counts)],) if quick else counts):
            # The same at every world size, and so are the bits.
            odd = (number + shift) % 2
            yield Case(ACCUMULATING[0], reduction.dtype, SMALL[odd], reduction, leaves, in_place=odd == 0)
            yield Case(ACCUMULATING[1], reduction.dtype, SMALL[1 - odd], reduction, leaves, in_place=odd == 1)


def _moving(world_size: int, quick: bool) -> Iterator[Case]:
    for number, (dtype, operation) in enumerate(itertools.product(Dtype, MOVING)):
        rooted = operation in ("gather", "scatter", "broadcast")
        roots = {0, world_size - 1} if quick else range(world_size)
        for count in (SMALL[number % 2],) if quick else SMALL:
            for root in sorted(roots) if rooted else (0,):
                yield Case(operation, dtype, count, root=root)


def _other_sizes(world_size: int, quick: bool) -> Iterator[Case]:
    """Nothing, one element, and much."""
    del world_size
    few = (Dtype.BF16, Dtype.F32, Dtype.F64, Dtype.I32)
    for dtype in few if quick else Dtype:
        op = ReduceOp.MAX if dtype is Dtype.BOOL else ReduceOp.SUM
        for count in (0, 1, LARGE):
            for order in Order:
                reduction = Reduction(dtype, op, order)
                for operation in REDUCING:
                    yield Case(operation, dtype, count, reduction)
                if is_accumulated(reduction):
                    yield from (Case(operation, dtype, count, reduction, 5) for operation in ACCUMULATING)
            yield from (Case(operation, dtype, count) for operation in MOVING)
