"""The demo's picture: how far each run's weights are from those of one rank, over the steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers tell apart. Later lines are thinner and drawn on top, so
# that lines in the same place can all be seen.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#000000")
WIDTHS = (7, 5.2, 3.6, 2.2, 1)
NAMES = {"isobit": "isobit", "usual": "the usual way"}
SMALLEST = 1e-9


class Drift(NamedTuple):
    """Values at some steps of a run."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def draw(path: Path, ways: Mapping[str, Mapping[int, Drift]]) -> None:
    """Draws a panel a way and a line a world size; zero has its own place below the logarithmic axis."""
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, len(ways), figsize=(11, 4.8), sharey=True, layout="constrained")
    for axes, (way, runs) in zip(np.atleast_1d(panels), ways.items(), strict=True):
        _panel(axes, runs)
        axes.set_title(f"{NAMES[way]}: {_summary(runs)}", loc="left", fontsize=12, fontweight="bold")
    figure.suptitle("Largest difference of any weight from the run on 1 rank", x=0.01, ha="left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axes: Axes, runs: Mapping[int, Drift]) -> None:
    axes.set_yscale("symlog", linthresh=SMALLEST, linscale=0.6)
    axes.set_ylim(-SMALLEST / 3, 20)
    powers = [10.0**power for power in range(-8, 2, 2)]
    axes.set_yticks([0, *powers], ["0", *(f"$10^{{{power}}}$" for power in range(-8, 2, 2))])
    axes.set_yticks([], minor=True)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_xlabel("training step")
    last = max(drift.steps[-1] for drift in runs.values())
    axes.set_xlim(0, last * 1.2)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= last])
    compared = list(runs.items())[1:]
    for number, (_, drift) in enumerate(compared):
        colour, width = COLOURS[number % 5], WIDTHS[number % 5]
        axes.plot(drift.steps, drift.values, color=colour, linewidth=width, clip_on=False, solid_capstyle="butt")
    ends = [float(drift.values[-1]) for _, drift in compared]
    if not any(ends):
        names = ", ".join(str(ranks) for ranks, _ in compared)
        axes.annotate(f"{names} ranks: exactly 0", (last / 2, 0), (0, 9), textcoords="offset points", ha="center")
        return
    for number, (end, place) in enumerate(zip(ends, _spread(axes, ends), strict=True)):
        axes.annotate(
            f"{compared[number][0]} ranks",
            (last, end),
            (last * 1.06, place),
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": COLOURS[number % 5],
                "linewidth": 1.5,
                "relpos": (0, 0.5),
                "shrinkA": 2,
                "shrinkB": 0,
            },
        )


def _summary(runs: Mapping[int, Drift]) -> str:
    apart = [drift.steps[drift.values > 0].min() for drift in runs.values() if drift.values.any()]
    return f"apart from step {min(apart)} on" if apart else "no difference, at any step"


def _spread(axes: Axes, ends: list[float]) -> list[float]:
    """Heights for labels near their lines' ends, pushed apart until they can be read."""
    to_display, gap_pixels = axes.transData, 0.062 * axes.bbox.height
    heights = [float(to_display.transform((0, end))[1]) for end in ends]
    order = sorted(range(len(ends)), key=lambda number: heights[number])
    for _ in range(200):
        for lower, upper in itertools.pairwise(order):
            push = (gap_pixels - (heights[upper] - heights[lower])) / 2
            if push > 0:
                heights[lower] -= push
                heights[upper] += push
    return [float(to_display.inverted().transform((0, height))[1]) for height in heights]
