"""A mixture of experts, spread over the ranks: `isobit run -n 3 examples/expert_parallel.py`.

A router sends each token to two of eight experts, on whichever rank these live, by all_to_all with uneven counts; the
results come back the same way, and so do the gradients. An expert gets its tokens in the order of the whole batch,
so routes, losses and weights are the same bits on 1 to 8 ranks.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any, TypeAlias

import isobit
import numpy as np
from threadpoolctl import threadpool_limits

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

EXPERTS, CHOICES = 8, 2
SEQUENCES, TOKENS = 12, 20  # a rank has whole sequences
WIDTH, HIDDEN = 16, 32
RATE = np.float32(0.5 / TOKENS / SEQUENCES)


def sequence(step: int, number: int) -> tuple[Array, Array]:
    """Tokens around a few places, some crowded, so that experts get uneven shares; and what they should become."""
    rng = np.random.default_rng((step, number))
    places = np.random.default_rng(5).standard_normal((6, WIDTH), np.float32)
    x = places[rng.geometric(0.4, TOKENS) % 6] + rng.standard_normal((TOKENS, WIDTH), np.float32) / 4
    return x, np.sin(2 * x[:, ::-1])


def odds_of_experts(x: Array, router: Array) -> Array:
    """Each token's probabilities. A whole sequence at a time: the shape of a product may change its bits."""
    scores = x @ router
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


class Dispatch:
    """Moves rows, one for each choice of a token, to the ranks of the experts, and back."""

    def __init__(self, comm: isobit.Communicator, choices: Array, owners: Array) -> None:
        self.comm = comm
        # A stable sort leaves each expert's tokens in their order, and ranks have theirs in the order of ranks.
        self.order = np.argsort(choices, kind="stable")
        self.sent = np.bincount(owners[choices], minlength=comm.world_size)
        self.received = comm.all_to_all(self.sent)
        self.expert_of_row = self.to_experts(choices)

    def to_experts(self, rows: Array) -> Array:
        """The rows, from all ranks, that are for this rank's experts."""
        counts = {"send_counts": self.sent.tolist(), "recv_counts": self.received.tolist()}
        received: Array = self.comm.all_to_all(rows[self.order], **counts)
        return received

    def back(self, rows: Array) -> Array:
        """What the experts made of this rank's rows."""
        result = np.empty((len(self.order), *rows.shape[1:]), rows.dtype)
        counts = {"send_counts": self.received.tolist(), "recv_counts": self.sent.tolist()}
        result[self.order] = self.comm.all_to_all(rows, **counts)
        return result


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()

    comm = isobit.init()
    rng = np.random.default_rng(1)
    router = rng.standard_normal((WIDTH, EXPERTS), np.float32) / 4
    up = rng.standard_normal((EXPERTS, WIDTH, HIDDEN), np.float32) / 4
    down = rng.standard_normal((EXPERTS, HIDDEN, WIDTH), np.float32) / 6
    owners = np.arange(EXPERTS) * comm.world_size // EXPERTS
    mine = np.flatnonzero(owners == comm.rank)

    for step in range(options.steps):
        with comm.accumulate(num_leaves=SEQUENCES) as acc:
            x, wanted = map(np.stack, zip(*(sequence(step, leaf) for leaf in acc.leaves), strict=True))
            odds = np.stack([odds_of_experts(tokens, router) for tokens in x])
            choices = np.argsort(-odds, axis=-1, kind="stable")[..., :CHOICES]
            gates = np.take_along_axis(odds, choices, axis=-1)[..., None]

            dispatch = Dispatch(comm, choices.ravel(), owners)
            rows = dispatch.to_experts(np.repeat(x.reshape(-1, WIDTH), CHOICES, axis=0))
            made = np.empty_like(rows)
            hidden = {}
            for expert in mine:
                at = dispatch.expert_of_row == expert
                hidden[expert] = np.maximum(rows[at] @ up[expert], 0)
                made[at] = hidden[expert] @ down[expert]
            parts = dispatch.back(made).reshape(*choices.shape, WIDTH)
            error = (gates * parts).sum(axis=-2) - wanted

            slopes = dispatch.to_experts((gates * error[..., None, :]).reshape(-1, WIDTH))
            for expert in mine:
                at = dispatch.expert_of_row == expert
                slope = (slopes[at] @ down[expert].T) * (hidden[expert] > 0)
                down[expert] -= RATE * (hidden[expert].T @ slopes[at])
                up[expert] -= RATE * (rows[at].T @ slope)

            to_odds = np.zeros_like(odds)
            np.put_along_axis(to_odds, choices, (error[..., None, :] * parts).sum(axis=-1), axis=-1)
            to_scores = odds * (to_odds - (odds * to_odds).sum(axis=-1, keepdims=True))
            for leaf, tokens, slope, miss in zip(acc.leaves, x, to_scores, error, strict=True):
                acc.add(leaf, np.append(tokens.T @ slope, np.square(miss).sum()))
            total = acc.all_reduce()
        router -= RATE * total[:-1].reshape(router.shape)
        if comm.rank == 0 and step % 50 == 49:
            print(f"step {step + 1}: loss {total[-1] / SEQUENCES / TOKENS:.4f}", flush=True)

    print(f"experts {mine.tolist()} here; in the last step they got {len(rows)} rows", flush=True)
    counts = np.bincount(owners, minlength=comm.world_size).tolist()
    weights = [router, comm.all_gather(up[mine], counts=counts), comm.all_gather(down[mine], counts=counts)]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in weights)).hexdigest()
    print(f"digest {digest[:16]}", flush=True)


if __name__ == "__main__":
    # A product must be a function of its operands alone: on more threads BLAS may add in another order.
    with threadpool_limits(limits=1):
        main()
