"""The parts of a transformer block, forward and backward in plain numpy, for `sequence_parallel.py`.

A shard gives its part of a sum over all shards; the norm looks at one position at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
#: From the gradient of a part of the output to those of the input and of the weights.
Back: TypeAlias = Callable[[Array], tuple[Array, list[Array]]]


def head(n: Array, weights: list[Array]) -> tuple[Array, Back]:
    """An attention head's part of the output, and the step back: the gradients of its input and of its weights."""
    q, k, v = (n @ w for w in weights[:3])
    root = np.float32(q.shape[1] ** 0.5)
    mask = np.where(np.tri(len(n), dtype=bool), np.float32(0), np.float32(-1e9))
    scores = q @ k.T / root + mask
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def back(d: Array) -> tuple[Array, list[Array]]:
        to_o = d @ weights[3].T
        to_p = to_o @ v.T
        to_scores = p * (to_p - (p * to_p).sum(axis=1, keepdims=True)) / root
        inner = (to_scores @ k, to_scores.T @ q, p.T @ to_o)
        to_n = sum((x @ w.T for x, w in zip(inner, weights[:3], strict=True)), np.float32(0))
        return np.asarray(to_n), [*(n.T @ x for x in inner), (p @ v).T @ d]

    return p @ v @ weights[3], back


def hidden_units(n: Array, weights: list[Array]) -> tuple[Array, Back]:
    """The same for a block of the MLP's hidden units."""
    h = np.maximum(n @ weights[0], 0)

    def back(d: Array) -> tuple[Array, list[Array]]:
        to_h = (d @ weights[1].T) * (h > 0)
        return to_h @ weights[0].T, [n.T @ to_h, h.T @ d]

    return h @ weights[1], back


def norm(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Layer norm of each position by itself, without its gain, and its step back."""
    centred = x - x.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(1e-5))
    y = centred * scale
    return y, lambda d: scale * (d - d.mean(axis=1, keepdims=True) - y * (d * y).mean(axis=1, keepdims=True))
