"""The picture: latency and bandwidth against size, one line for each library, named where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.ticker

from isobit.bench.cases import shown
from isobit.bench.peers import Library
from isobit.bench.rounds import Result

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

#: One colour for each library, which the colour-blind can tell apart (Okabe and Ito's).
COLOURS = {"isobit": "#D55E00", "Gloo": "#009E73", "Open MPI": "#0072B2", "MPICH": "#CC79A7", "Intel MPI": "#000000"}
#: Called from Python a line is dashed.
_STYLES = {"python": (0, (4, 1.5)), "c": "-", "rust": "-"}
#: Latency is read where messages are small, bandwidth where they are large.
LATENCY_TO, BANDWIDTH_FROM = 64 << 10, 4 << 10


def draw(path: Path, results: Sequence[Result]) -> None:
    """A row for each collective: on the left p50 of the time, on the right busbw of it."""
    measured = [result for result in results if result.times and result.case.size]
    collectives = list(dict.fromkeys(result.case.collective for result in measured))
    if not collectives:
        raise ValueError("nothing was measured that has a size")
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(len(collectives), 2, figsize=(14, 4.6 * len(collectives)), squeeze=False)
    for (left, right), collective in zip(panels, collectives, strict=True):
        of_it = [result for result in measured if result.case.collective == collective]
        case = of_it[0].case
        small = [result for result in of_it if result.case.size <= LATENCY_TO]
        large = [result for result in of_it if result.case.size >= BANDWIDTH_FROM]
        title = f"{collective}, {case.dtype}, {case.ranks} ranks"
        _panel(left, small or of_it, f"{title}: time, us", is_time=True)
        _panel(right, large or of_it, f"{title}: bus bandwidth, GB/s", is_time=False)
    inches = figure.get_figheight()
    text = "Medians. On the left less is better, on the right more. Solid: called from C or Rust; dashed: from Python."
    figure.suptitle(text, x=0.01, y=1 - 0.1 / inches, ha="left", va="top", fontsize=11)
    figure.tight_layout(w_pad=4, h_pad=2.5, rect=(0, 0, 1, 1 - 0.35 / inches))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, results: Sequence[Result], title: str, *, is_time: bool) -> None:
    lines: dict[Library, list[tuple[int, float]]] = {}
    for result in results:
        value = result.p50 * 1e6 if is_time else result.case.bandwidth(result.p50)[1]
        lines.setdefault(result.library, []).append((result.case.size, value))
    sizes = sorted({result.case.size for result in results})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for library, points in lines.items():
        axes.plot(
            *zip(*sorted(points), strict=True),
            color=COLOURS.get(library.library, "0.5"),
            linestyle=_STYLES[library.interface],
            linewidth=2.6 if library.library == "isobit" else 1.4,
            marker="o",
            markersize=2.5,
        )
    ticks = sizes[:: max(1, len(sizes) // 7)]
    axes.set_xticks(ticks, [shown(size) for size in ticks])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(10, subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.grid(axis="y", color="0.9")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel("bytes")
    if is_time:
        axes.yaxis.tick_right()
        axes.spines.right.set_visible(True)
        axes.spines.left.set_visible(False)
    _name_lines(axes, lines, sizes[0] if is_time else sizes[-1], on_left=is_time)


def _name_lines(axes: Axes, lines: dict[Library, list[tuple[int, float]]], size: int, *, on_left: bool) -> None:
    """Each line's name and value beside its end, moved up or down until none covers another."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    ends = {library: (min(points) if on_left else max(points))[1] for library, points in lines.items()}
    wanted = [(math.log10(end) - low) / (high - low) for end in ends.values()]
    for (library, end), place in zip(ends.items(), spread(wanted, 0.064), strict=True):
        colour = COLOURS.get(library.library, "0.5")
        axes.annotate(
            f"{library.label}  {end:.3g}",
            xy=(size, end),
            xytext=(-0.08 if on_left else 1.08, place),
            textcoords="axes fraction",
            ha="right" if on_left else "left",
            va="center",
            color=colour,
            fontsize=9.5,
            fontweight="bold" if library.library == "isobit" else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (1 if on_left else 0, 0.5),
            },
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], apart: float) -> list[float]:
    """The places nearest to those wanted, in their order, of which no two are closer than `apart`; 0 to 1 if possible.

    >>> spread([0.5, 0.5, 0.9, 1.0], 0.1)
    [0.45, 0.55, 0.9, 1.0]
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    # Runs of names that touch, each around the mean of what its names want.
    runs: list[list[int]] = []
    for index in order:
        runs.append([index])
        while (
            len(runs) > 1 and _first(runs[-1], wanted, apart) < _first(runs[-2], wanted, apart) + len(runs[-2]) * apart
        ):
            last = runs.pop()
            runs[-1] += last
    places = [0.0] * len(wanted)
    for run in runs:
        for step, index in enumerate(run):
            places[index] = round(_first(run, wanted, apart) + step * apart, 6)
    return places


def _first(run: Sequence[int], wanted: Sequence[float], apart: float) -> float:
    length = apart * (len(run) - 1)
    middle = sum(wanted[index] for index in run) / len(run)
    return max(0.0, min(1.0 - length, middle - length / 2))
