"""The data: scikit-learn's handwritten digits, cut into training and test images and into micro-batches."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SEED = 20260101
TRAIN_IMAGES = 1440
LEAVES = 24
LEAF_IMAGES = 16
STEPS_PER_EPOCH = TRAIN_IMAGES // (LEAVES * LEAF_IMAGES)


class Digits(NamedTuple):
    """1797 images of 8 x 8 pixels in [0, 1], shuffled once, and their labels."""

    train_x: Floats
    train_y: Labels
    test_x: Floats
    test_y: Labels


def load(cache: Path | None = None) -> Digits:
    """The digits from scikit-learn's own package, or from a file that `save` wrote.

    Importing scikit-learn takes longer than the training: the demo starts 46 ranks and does it once.
    """
    if cache is None:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
    else:
        with np.load(cache) as file:
            pixels, labels = file["pixels"], file["labels"]
    order = np.random.default_rng(SEED).permutation(len(labels))
    x = (pixels[order] / 16.0).astype(np.float32)
    y = labels[order].astype(np.int64)
    return Digits(x[:TRAIN_IMAGES], y[:TRAIN_IMAGES], x[TRAIN_IMAGES:], y[TRAIN_IMAGES:])


def save(cache: Path) -> None:
    """Writes what `load` reads."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    np.savez(cache, pixels=pixels, labels=labels)


def leaf_images(step: int, leaf: int) -> npt.NDArray[np.int64]:
    """Which training images are in micro-batch `leaf` of `step`: the rank and the world size play no part."""
    epoch, within = divmod(step, STEPS_PER_EPOCH)
    start = (within * LEAVES + leaf) * LEAF_IMAGES
    return _shuffled(epoch)[start : start + LEAF_IMAGES]


@functools.lru_cache(maxsize=1)
def _shuffled(epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((SEED, epoch)).permutation(TRAIN_IMAGES)


if __name__ == "__main__":
    save(Path(sys.argv[1]))
