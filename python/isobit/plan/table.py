"""What `isobit plan` prints."""

from __future__ import annotations

from collections.abc import Sequence

from isobit.plan.fit import Comparison, summary
from isobit.plan.model import Constants, Outlook, World

REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter")
#: The model overlaps nothing and knows no noise, so smaller differences say nothing.
_CLOSE = 1.25


def text(world: World, outlook: Outlook, constants: Constants) -> str:
    """The table of one call, the choice and its reason, and what the leaves cost."""
    rows = [
        (
            "*" if found.algorithm == outlook.algorithm else "",
            found.algorithm,
            f"{found.steps:.0f}",
            f"{found.messages_sent:,.0f}",
            size(found.bytes_within),
            size(found.bytes_between),
            size(found.staging_bytes),
            duration(found.time_us),
        )
        for found in outlook.predictions
    ]
    names = ("", "algorithm", "steps", "messages", "within nodes", "between nodes", "staging", "time")
    return "\n".join([_title(world), "", *_aligned([names, *rows], left=2), "", *_sentences(world, outlook, constants)])


def _title(world: World) -> str:
    of = f" of {world.count:,} {world.dtype} ({size(world.size)})" if world.collective != "barrier" else ""
    order = f" in {world.order} order" if world.collective in REDUCTIONS else ""
    where = f"{world.ranks:,} {_many(world.ranks, 'rank')} on {world.nodes:,} {_many(world.nodes, 'node')}"
    return f"{world.collective}{of}{order}, {where}; of the busiest rank, what it sends:"


def _sentences(world: World, outlook: Outlook, constants: Constants) -> list[str]:
    lines = [f"Chosen: {outlook.algorithm}, because {outlook.reason}."]
    best = min(outlook.predictions, key=lambda found: found.time_us)
    if best.time_us * _CLOSE < outlook.chosen.time_us:
        times = outlook.chosen.time_us / best.time_us
        lines.append(f"By the model {best.algorithm} would be {times:.1f} times as fast.")
    if outlook.multiplier is not None:
        leaves = world.leaves or world.ranks
        line = f"{leaves:,} {_many(leaves, 'leaf')}: {outlook.multiplier:.3g} contributions a rank, on average"
        if outlook.multiplier > 1:
            line += (
                f"; cheaper are {outlook.nearest_leaves:,} leaves at 1, "
                f"or {outlook.nearest_ranks:,} ranks at {outlook.nearest_ranks_multiplier:.3g}"
            )
        lines.append(f"{line}.")
    cores = "a core for every rank" if constants.cores is None else f"{constants.cores} cores a node"
    lines.append(f"Constants: {constants.source}; {cores}.")
    return lines


def constants(found: Constants) -> str:
    """The constants, with their units."""
    rows = [(name, f"{value:.4g}", "us" if name.endswith("_us") else "GB/s") for name, value in found.values.items()]
    return "\n".join(_aligned(rows, left=1))


def comparison(rows: Sequence[Comparison]) -> str:
    """Predictions beside measurements, line by line."""
    names = ("ranks", "collective", "bytes", "algorithm", "measured us", "predicted us", "error")
    lines = [
        (
            str(row.measured.world.ranks),
            row.measured.world.collective,
            str(row.measured.world.size),
            row.predicted.algorithm,
            f"{row.measured.time_us:.1f}",
            f"{row.predicted.time_us:.1f}",
            f"{row.error:+.0f} %",
        )
        for row in rows
    ]
    return "\n".join(_aligned([names, *lines], left=0))


def errors(rows: Sequence[Comparison]) -> str:
    """How far predictions are off, by the number of ranks."""
    names = ("ranks", "calls", "median error", "90 % within")
    lines = [(name, str(count), f"{middle:.0f} %", f"{most:.0f} %") for name, count, middle, most in summary(rows)]
    return "\n".join(_aligned([names, *lines], left=0))


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns, the first `left` of them and every name to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def size(count: float) -> str:
    """Bytes, as people read them."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.4g} {unit}"
    return f"{count:.0f} B"


def duration(time_us: float) -> str:
    """A time, as people read it."""
    for unit, scale in (("s", 1e6), ("ms", 1e3)):
        if time_us >= scale:
            return f"{time_us / scale:.3g} {unit}"
    return f"{time_us:.3g} us"


def _many(count: int, what: str) -> str:
    if count == 1:
        return what
    return "leaves" if what == "leaf" else f"{what}s"
