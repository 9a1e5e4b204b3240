"""The picture: the predicted time against the number of ranks, one line an algorithm, named where it ends."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl

from isobit.plan.model import Constants, World
from isobit.plan.table import duration, size

mpl.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker
from matplotlib.axes import Axes

#: One colour for each algorithm, which the colour-blind can tell apart (Okabe and Ito's).
COLOURS = {
    "one-shot": "#0072B2",
    "direct": "#009E73",
    "butterfly": "#CC79A7",
    "hierarchical": "#D55E00",
    "tree": "#0072B2",
    "star": "#E69F00",
    "flat": "#009E73",
    "dissemination": "#D55E00",
}
Lines = dict[str, list[tuple[int, float]]]


def draw(path: Path, world: World, constants: Constants) -> None:
    """Times from 2 ranks to the world's, with as many ranks a node; dots where the algorithm is chosen."""
    lines: Lines = {}
    chosen: list[tuple[int, float]] = []
    for ranks in numbers(world.ranks):
        nodes = max(1, round(ranks * world.nodes / max(1, world.ranks)))
        outlook = replace(world, ranks=ranks, nodes=nodes).outlook(constants)
        for found in outlook.predictions:
            lines.setdefault(found.algorithm, []).append((ranks, found.time_us))
        chosen.append((ranks, outlook.chosen.time_us))
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(figsize=(9.6, 5.6), layout="constrained")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for algorithm, points in lines.items():
        axes.plot(*zip(*points, strict=True), color=COLOURS[algorithm], linewidth=2)
    axes.plot(*zip(*chosen, strict=True), "o", color="black", markersize=5, zorder=3)
    drawn = [number for number, _ in chosen]
    axes.set_xticks(drawn, [f"{number:,}" for number in drawn])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: duration(value)))
    axes.grid(axis="y", color="0.9")
    axes.set_xlabel("ranks")
    _name(axes, lines)
    per_node = max(1, world.ranks // world.nodes)
    leaves = "one leaf a rank" if world.leaves is None else f"{world.leaves:,} leaves"
    axes.set_title(
        f"{world.collective} of {size(world.size)} of {world.dtype}, up to {per_node} ranks a node, {leaves}:\n"
        "predicted time by the algorithm. Dots: the one that is chosen",
        loc="left",
        fontsize=12,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def numbers(most: int) -> list[int]:
    """The numbers of ranks that are drawn: powers of two, and the last.

    >>> numbers(12)
    [2, 4, 8, 12]
    """
    powers = [1 << power for power in range(1, max(2, most).bit_length()) if 1 << power < most]
    return [*powers, max(2, most)]


def _name(axes: Axes, lines: Lines) -> None:
    """Each line's name and last value beside its end, moved up or down until none covers another."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    ends = sorted(((math.log(points[-1][1]) - low) / (high - low), name) for name, points in lines.items())
    place = -1.0
    for wanted, name in ends:
        place = max(wanted, place + 0.06)
        ranks, time_us = lines[name][-1]
        axes.annotate(
            f"{name}  {duration(time_us)}",
            xy=(ranks, time_us),
            xytext=(1.02, place),
            textcoords="axes fraction",
            va="center",
            color=COLOURS[name],
            fontweight="bold",
            annotation_clip=False,
        )
