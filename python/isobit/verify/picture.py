"""The picture of `--peers`: a grid for each library, a cell for each world size, message size and bucket."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.colors
import numpy as np

from isobit.verify.contenders import WATCHED, Cell
from isobit.verify.peers import Comparison, Results

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

#: Light to dark in one colour, which tells colour-blind readers and a black-and-white print the same.
COLOURS = mpl.colors.ListedColormap(mpl.colormaps["Blues"](np.linspace(0.1, 0.95, 256)))


def draw(path: Path, comparison: Comparison) -> None:
    """Draws one panel a library; a cell's shade is how much differs, its number says which results are equal."""
    plt.rcParams.update({"font.size": 11})
    libraries = comparison.libraries
    figure, panels = plt.subplots(
        1, len(libraries), figsize=(2.5 + 4.6 * len(libraries), 5.6), sharey=True, layout="constrained", squeeze=False
    )
    for axes, library in zip(panels[0], libraries, strict=True):
        image = _panel(axes, comparison, library)
    panels[0][0].set_ylabel("elements of the message / buckets")
    bar = figure.colorbar(image, ax=panels[0], shrink=0.8, pad=0.02)
    bar.set_label("sums that are not the bits\nof the same library on 1 rank")
    bar.ax.yaxis.set_major_formatter("{x:.0f} %")
    figure.suptitle(
        f"The same {WATCHED:,} sums on every world size, message size\n"
        "and number of buckets. Equal numbers: equal bits",
        x=0.01,
        ha="left",
    )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axes: Axes, comparison: Comparison, library: Results) -> AxesImage:
    rows = sorted({(cell.size, cell.buckets) for cell in library.cells})
    columns = sorted({cell.world_size for cell in library.cells})
    share = np.array([[100 * comparison.differing(library, Cell(*row, n)) / WATCHED for n in columns] for row in rows])
    image = axes.imshow(share, cmap=COLOURS, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(share):
        number = comparison.numbers[library.cells[Cell(*rows[row], columns[column])]]
        axes.text(column, row, f"#{number}", ha="center", va="center", color="white" if value > 55 else "black")
    axes.set_xticks(range(len(columns)), [str(n) for n in columns])
    axes.set_yticks(range(len(rows)), [f"{size:,} / {buckets}" for size, buckets in rows])
    axes.set_xlabel("ranks")
    for edge in np.arange(0.5, len(columns) - 1):
        axes.axvline(edge, color="white", linewidth=1.5)
    for edge in np.arange(0.5, len(rows) - 1):
        new_size = rows[int(edge)][0] != rows[int(edge) + 1][0]
        axes.axhline(edge, color="white", linewidth=6 if new_size else 1.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    results = comparison.results_of(library)
    axes.set_title(
        f"{library.name}: {results} result{'' if results == 1 else 's'}", loc="left", fontsize=12, fontweight="bold"
    )
    return image
