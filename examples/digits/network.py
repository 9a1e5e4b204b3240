"""The network: 64-128-64-10, relu, softmax cross-entropy, in f32; all its weights are one flat array."""

from __future__ import annotations

import itertools
import math

import numpy as np
from data import Floats, Labels

LAYERS = (64, 128, 64, 10)
PARAMETERS = sum(n_in * n_out + n_out for n_in, n_out in itertools.pairwise(LAYERS))


def initial_weights(seed: int) -> Floats:
    """He's initialisation: the same on every rank, because the seed is."""
    weights = np.zeros(PARAMETERS, np.float32)
    rng = np.random.default_rng(seed)
    for matrix, _ in layers(weights):
        matrix[:] = rng.standard_normal(matrix.shape, np.float32) * np.float32(math.sqrt(2 / len(matrix)))
    return weights


def layers(flat: Floats) -> list[tuple[Floats, Floats]]:
    """Each layer's matrix and bias as views of a flat array."""
    views, start = [], 0
    for n_in, n_out in itertools.pairwise(LAYERS):
        matrix = flat[start : start + n_in * n_out].reshape(n_in, n_out)
        start += n_in * n_out
        views.append((matrix, flat[start : start + n_out]))
        start += n_out
    return views


def forward(weights: Floats, x: Floats) -> list[Floats]:
    """The input and every layer's output; the last one holds log-probabilities."""
    outputs = [x]
    for number, (matrix, bias) in enumerate(layers(weights), start=1):
        linear = outputs[-1] @ matrix + bias
        outputs.append(np.maximum(linear, 0) if number < len(LAYERS) - 1 else _log_softmax(linear))
    return outputs


def gradient_and_loss(weights: Floats, x: Floats, y: Labels) -> Floats:
    """The gradient of the mean loss over `x`, and behind it the loss itself, as one array.

    The loss rides along, so one reduction gives every rank both.
    """
    result = np.empty(PARAMETERS + 1, np.float32)
    outputs = forward(weights, x)
    rows = np.arange(len(y))
    result[-1] = -outputs[-1][rows, y].mean()
    error = np.exp(outputs[-1])
    error[rows, y] -= 1
    error /= np.float32(len(y))
    pairs = list(zip(layers(weights), layers(result[:-1]), outputs, strict=False))
    for (matrix, _), (matrix_gradient, bias_gradient), below in reversed(pairs):
        np.matmul(below.T, error, out=matrix_gradient)
        np.sum(error, axis=0, out=bias_gradient)
        error = (error @ matrix.T) * (below > 0)
    return result


def evaluate(weights: Floats, x: Floats, y: Labels) -> tuple[float, float]:
    """Mean loss and accuracy over all of `x`."""
    log_probabilities = forward(weights, x)[-1]
    loss = -log_probabilities[np.arange(len(y)), y].mean(dtype=np.float64)
    return float(loss), float((log_probabilities.argmax(axis=1) == y).mean())


def _log_softmax(linear: Floats) -> Floats:
    shifted: Floats = linear - linear.max(axis=1, keepdims=True)
    log_probabilities: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities
