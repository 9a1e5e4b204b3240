"""PyTorch with gradient buckets reduced during backward: `isobit run -n 3 examples/torch_buckets.py`.

Hooks collect gradients in buckets, those of the last layers first, as DistributedDataParallel does. In a rank's last
micro-batch a full bucket's all_reduce starts at once and runs in the background while backward goes on. Neither the
number of ranks nor the size of the buckets changes a bit, nor does `--blocking`: no overlap.
"""

from __future__ import annotations

import argparse
import functools
import hashlib

import isobit
import torch
from torch import Tensor, nn

MICRO_BATCHES, MICRO_BATCH, SIDE, CLASSES = 12, 16, 10, 4


class Bucket:
    """Some parameters, and their gradients in one flat tensor."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []
        self.size = 0

    def begin(self, comm: isobit.Communicator) -> None:
        """Before the first micro-batch of a step."""
        self.flat, self.mean = torch.empty(self.size), torch.empty(self.size)
        self.acc = comm.accumulate(num_leaves=MICRO_BATCHES, shape=(self.size,), dtype="f32")
        self.missing = len(self.parameters)

    def views(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor's parts, each of its parameter's shape."""
        parts = flat.split([parameter.numel() for parameter in self.parameters])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.parameters, strict=True)]


class Buckets:
    """Reduces the gradients of a model, bucket by bucket."""

    def __init__(self, comm: isobit.Communicator, model: nn.Module, kib: float, blocking: bool) -> None:
        self.comm, self.blocking = comm, blocking
        self.leaves = comm.accumulate(num_leaves=MICRO_BATCHES).leaves
        self.buckets = [Bucket()]
        for parameter in reversed([*model.parameters()]):
            if self.buckets[-1].size and (self.buckets[-1].size + parameter.numel()) * 4 > kib * 1024:
                self.buckets.append(Bucket())
            bucket = self.buckets[-1]
            parameter.register_hook(functools.partial(self.arrived, bucket, len(bucket.parameters)))
            bucket.parameters.append(parameter)
            bucket.size += parameter.numel()

    def begin(self) -> None:
        """Before the first micro-batch of a step."""
        self.leaf = -1  # which micro-batch backward is in
        self.works: list[isobit.Work] = []
        for bucket in self.buckets:
            bucket.begin(self.comm)

    def arrived(self, bucket: Bucket, place: int, gradient: Tensor) -> None:
        """Backward has computed a parameter's gradient of this micro-batch."""
        bucket.views(bucket.flat)[place].copy_(gradient)
        bucket.missing -= 1
        if bucket.missing:
            return
        bucket.acc.add(self.leaf, bucket.flat)
        if self.leaf != self.leaves[-1]:
            bucket.missing = len(bucket.parameters)
            return
        # Ranks must issue their calls in one order: that of the buckets, whichever is full first.
        while len(self.works) < len(self.buckets) and not self.buckets[len(self.works)].missing:
            ready = self.buckets[len(self.works)]
            self.works.append(ready.acc.all_reduce(op="mean", out=ready.mean, async_op=True))
            if self.blocking:
                self.works[-1].wait()

    def finish(self) -> None:
        """After the last backward pass: the parameters get the mean of the gradients of all micro-batches."""
        for bucket, work in zip(self.buckets, self.works, strict=True):
            work.wait()
            for parameter, mean in zip(bucket.parameters, bucket.views(bucket.mean), strict=True):
                parameter.grad = mean


def images(step: int, leaf: int) -> tuple[Tensor, Tensor]:
    """Noisy images with a bar; its direction is the class. Drawn by the micro-batch's number."""
    generator = torch.Generator().manual_seed(1000 * step + leaf)
    label = torch.randint(CLASSES, (MICRO_BATCH,), generator=generator)
    at = torch.arange(SIDE) - SIDE // 2
    x, y = at[None, None, :], at[None, :, None]
    a, b = (torch.tensor(w)[label][:, None, None] for w in ([1, 0, 1, 1], [0, 1, 1, -1]))
    offset = torch.randint(-2, 3, (MICRO_BATCH, 1, 1), generator=generator)
    bar = (a * x + b * y == offset).float()
    return (bar + torch.randn(bar.shape, generator=generator) * 0.4)[:, None], label


def main() -> None:
    """Trains, and prints what came out on every rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--kib", type=float, default=16, help="the size of a bucket")
    parser.add_argument("--blocking", action="store_true", help="wait for each bucket before backward goes on")
    options = parser.parse_args()

    comm = isobit.init()
    torch.set_num_threads(1)  # a leaf must be a function of the leaf alone, not of how threads cut a sum
    torch.manual_seed(1)
    features = 16 * (SIDE - 4) ** 2
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    buckets = Buckets(comm, model, options.kib, options.blocking)

    for step in range(options.steps):
        buckets.begin()
        optimizer.zero_grad(set_to_none=True)
        losses = comm.accumulate(num_leaves=MICRO_BATCHES, shape=(1,), dtype="f32")
        for leaf in buckets.leaves:
            x, label = images(step, leaf)
            loss = nn.functional.cross_entropy(model(x), label)
            buckets.leaf = leaf
            loss.backward()
            losses.add(leaf, loss.detach().reshape(1))
        buckets.finish()
        optimizer.step()
        mean = losses.all_reduce(op="mean")
        if comm.rank == 0 and step % 20 == 19:
            print(f"step {step + 1}: loss {mean[0]:.4f}", flush=True)

    everything = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    print(f"{len(buckets.buckets)} buckets", flush=True)
    print(f"digest {hashlib.sha256(everything.numpy().tobytes()).hexdigest()[:16]}", flush=True)


if __name__ == "__main__":
    main()
