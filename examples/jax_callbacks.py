"""Data-parallel training in JAX on CPU: `isobit run -n 3 examples/jax_callbacks.py`.

The whole step is one `jax.jit`: a loop over the micro-batches that this rank owns, whose gradients leave through
ordered callbacks, and the update with the mean that comes back through another. The bounds of the loop are arguments,
so every rank runs the same compiled code, and parameters are the same bits on 1 to 12 ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
from typing import Any, TypeAlias

# A leaf must be a function of the leaf alone: no product is cut by the number of threads.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import isobit
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jax.flatten_util import ravel_pytree

Parameters: TypeAlias = dict[str, jax.Array]

MICRO_BATCHES, MICRO_BATCH = 12, 32
WIDTHS = (8, 64, 64, 1)
RATE, MOMENTUM = 0.05, 0.9


def initial_parameters() -> Parameters:
    """A multi-layer perceptron as a pytree."""
    keys = jax.random.split(jax.random.key(1), len(WIDTHS) - 1)
    parameters: Parameters = {}
    for i, (n_in, n_out) in enumerate(itertools.pairwise(WIDTHS)):
        parameters[f"w{i}"] = jax.random.normal(keys[i], (n_in, n_out)) / n_in**0.5
        parameters[f"b{i}"] = jnp.zeros(n_out)
    return parameters


def loss_of(parameters: Parameters, step: jax.Array, leaf: jax.Array) -> jax.Array:
    """The loss of a micro-batch, which is drawn by its number."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(2), step), leaf)
    x = jax.random.normal(key, (MICRO_BATCH, WIDTHS[0]))
    wanted = jnp.sin(x[:, 0] * 2) * x[:, 1] + jnp.abs(x[:, 2])
    for i in range(len(WIDTHS) - 1):
        x = x @ parameters[f"w{i}"] + parameters[f"b{i}"]
        x = jnp.tanh(x) if i < len(WIDTHS) - 2 else x
    return jnp.mean((x[:, 0] - wanted) ** 2)


class Reduction:
    """What the callbacks do: leaves go in one by one, and their mean comes out on every rank."""

    def __init__(self, comm: isobit.Communicator, size: int) -> None:
        self.comm, self.size = comm, size
        self.begin()

    def begin(self) -> None:
        """Before the first leaf of a step."""
        self.acc = self.comm.accumulate(num_leaves=MICRO_BATCHES, shape=(self.size,), dtype="f32")

    def add(self, leaf: Any, value: Any) -> None:
        """A leaf, as it leaves the compiled code."""
        self.acc.add(int(leaf), np.asarray(value))

    def mean(self) -> Any:
        """After the last leaf."""
        result = self.acc.all_reduce(op="mean")
        self.begin()
        return result


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()

    comm = isobit.init()
    parameters, unravel = ravel_pytree(initial_parameters())
    velocity = jnp.zeros_like(parameters)
    reduction = Reduction(comm, parameters.size + 1)
    result = jax.eval_shape(lambda: jnp.zeros(parameters.size + 1))

    @jax.jit
    def train(
        parameters: jax.Array, velocity: jax.Array, step: int, first: int, end: int
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        def one_leaf(leaf: jax.Array, _: None) -> None:
            loss, slopes = jax.value_and_grad(loss_of)(unravel(parameters), step, leaf)
            value = jnp.append(ravel_pytree(slopes)[0], loss)
            io_callback(reduction.add, None, leaf, value, ordered=True)

        jax.lax.fori_loop(first, end, one_leaf, None)
        mean = io_callback(reduction.mean, result, ordered=True)
        velocity = MOMENTUM * velocity + mean[:-1]
        return parameters - RATE * velocity, velocity, mean[-1]

    first, end = reduction.acc.leaves[0], reduction.acc.leaves[-1] + 1
    for step in range(options.steps):
        parameters, velocity, loss = train(parameters, velocity, step, first, end)
        if comm.rank == 0 and step % 50 == 49:
            print(f"step {step + 1}: loss {float(loss):.4f}", flush=True)
    print(f"digest {hashlib.sha256(np.asarray(parameters).tobytes()).hexdigest()[:16]}", flush=True)


if __name__ == "__main__":
    main()
