"""`make demo`: the same training on 1, 2, 3, 4, 5 and 8 ranks, with isobit and the usual way, and what came out.

Prints one table, draws `demo.png`, and fails if the weights that isobit gave are not the same bits everywhere.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import data
import numpy as np
from picture import Drift, draw

TRAIN = Path(__file__).with_name("train.py")
WORLD_SIZES = (1, 2, 3, 4, 5, 8)
WAYS = {"isobit": [], "usual": ["--usual"]}


class Run(NamedTuple):
    """One training run: which way, on how many ranks, and what rank 0 wrote at its end."""

    way: str
    ranks: int
    loss: float
    accuracy: float
    seconds: float
    sha256: str
    drift: Drift


def main() -> int:
    """Runs everything, shows it, and says whether isobit kept its promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--ranks", type=int, nargs="+", default=WORLD_SIZES, help="the world sizes to try")
    parser.add_argument("--picture", type=Path, default=Path("demo.png"))
    options = parser.parse_args()
    print(
        f"Training a 64-128-64-10 network on handwritten digits: {options.steps} steps, "
        f"{data.LEAVES} micro-batches of {data.LEAF_IMAGES} images a step.",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, "digits.npz")
        data.save(cache)
        runs = [train(way, ranks, options.steps, cache, Path(folder)) for way in WAYS for ranks in options.ranks]
    runs = with_drift(runs)
    digests = {way: len({run.sha256 for run in runs if run.way == way}) for way in WAYS}
    print_table(runs)
    print(
        f"\nisobit: {_count(digests['isobit'], 'digest')} on {_count(len(options.ranks), 'world size')}; "
        f"the usual way: {_count(digests['usual'], 'digest')}."
    )
    draw(options.picture, {way: {run.ranks: run.drift for run in runs if run.way == way} for way in WAYS})
    print(f"How far the weights drift from those of {options.ranks[0]} rank: {options.picture}")
    return 0 if digests["isobit"] == 1 else 1


def train(way: str, ranks: int, steps: int, cache: Path, folder: Path) -> Run:
    """Runs `train.py` on some ranks under the launcher, with a live line of its progress."""
    out = folder / f"{way}-{ranks}.json"
    script = [str(TRAIN), f"--steps={steps}", f"--data={cache}", f"--out={out}", *WAYS[way]]
    command = [sys.executable, "-m", "isobit", "run", "-n", str(ranks), *script]
    name = f"{way:6}  {_count(ranks, 'rank'):7}"
    latest: collections.deque[str] = collections.deque(maxlen=40)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            latest.append(line)
            if progress := re.search(r"step (\d+)/(\d+) loss (\S+)", line):
                show_progress(name, int(progress[1]), int(progress[2]), progress[3])
    if process.returncode != 0:
        sys.exit(f"\n{name}: exit status {process.returncode}\n{''.join(latest)}")
    with np.load(out.with_suffix(".npz")) as file:
        drift = Drift(file["steps"], file["weights"])
    return Run(way=way, ranks=ranks, drift=drift, **json.loads(out.read_text()))


def show_progress(name: str, step: int, steps: int, loss: str) -> None:
    """Rewrites the live line on a terminal; in a log, writes one line a run."""
    bar = "#" * (24 * step // steps)
    line = f"{name}  [{bar:24}] step {step:3}/{steps}  loss {loss}"
    if sys.stdout.isatty():
        print(f"\r\x1b[K{line}", end="\n" if step == steps else "", flush=True)
    elif step == steps:
        print(line, flush=True)


def with_drift(runs: Sequence[Run]) -> list[Run]:
    """Replaces each run's weights by their largest distance from those of the way's first run."""
    first = {run.way: run.drift.values for run in reversed(runs)}
    return [
        run._replace(drift=Drift(run.drift.steps, np.abs(run.drift.values - first[run.way]).max(axis=1)))
        for run in runs
    ]


def print_table(runs: Sequence[Run]) -> None:
    """One line a run. Equal digests have the same letter."""
    letters: dict[str, str] = {}
    print("\nway     ranks  training loss  test accuracy  seconds  SHA-256 of the weights")
    for run in runs:
        letter = letters.setdefault(run.sha256, chr(ord("A") + len(letters)))
        print(
            f"{run.way:6}  {run.ranks:5}  {run.loss:13.9f}  {run.accuracy:12.2%}  {run.seconds:8.2f}  "
            f"{run.sha256[:16]}  {letter}"
        )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
