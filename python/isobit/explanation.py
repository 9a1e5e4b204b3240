"""What a call would do, in numbers and in words."""

from __future__ import annotations

from typing import NamedTuple

from isobit.dtypes import dtype_of


class Explanation(NamedTuple):
    """What a call would do on one rank; `print` it, or read its numbers. `Communicator.explain` makes it."""

    collective: str
    rank: int
    world_size: int
    #: The elements of the tensor that this rank would pass, and what they are.
    elements: int
    dtype: str
    algorithm: str
    #: The steps of this rank's program: sends, receives, reductions, copies.
    steps: int
    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    bytes_reduced: int
    staging_bytes: int
    #: Of a reduction, else None: how many leaves it has, and how many contributions a rank has on average.
    num_leaves: int | None
    multiplier: float | None
    #: The number of ranks (2^a or 3*2^a) nearest to the group's at which these leaves cost least, and what.
    nearest_ranks: int | None
    nearest_ranks_multiplier: float | None
    #: The number of leaves nearest to these with one contribution a rank at this world size.
    nearest_leaves: int | None

    def __str__(self) -> str:
        tensor = self.elements * dtype_of(self.dtype).itemsize
        lines = [
            f"{self.collective} of {self.elements} {self.dtype} "
            f"on rank {self.rank} of {self.world_size}: {self.algorithm}",
            f"  steps                {self.steps}",
            f"  messages             {self.messages_sent} sent, {self.messages_received} received",
            f"  bytes on the wire    {self.bytes_sent} sent, {self.bytes_received} received ({tensor} in the tensor)",
            f"  staging              {self.staging_bytes} bytes",
        ]
        if self.num_leaves is not None and self.multiplier is not None:
            many = "contribution" if self.multiplier == 1 else "contributions"
            title = f"{self.num_leaves} leaves"
            lines.append(f"  {title:<20} {self.multiplier:.3g} {many} a rank, on average")
            if self.multiplier > 1:
                lines.append(
                    f"  cheaper              {self.nearest_leaves} leaves at 1, "
                    f"or {self.nearest_ranks} ranks at {self.nearest_ranks_multiplier:.3g}"
                )
        return "\n".join(lines)
