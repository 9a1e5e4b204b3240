"""What can go wrong, as exceptions.

Wrong arguments are `TypeError` and `ValueError`, raised before anything is sent; the other ranks
get `RemoteArgumentError`. Everything else is an `isobit.Error`. A collective that is wrong on one rank raises on every
rank in that call, and the group goes on. One that is interrupted or times out raises on every rank that still has part
in it; a rank that was done raises at its next call instead, so ranks that catch such an error must agree where they
resume. Only after `PeerLost`, `Corruption` and `Aborted` by `abort()` the group's work is over, and each later call
raises the same.
"""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """The base of isobit's errors.

    Its text says what happened, to whom, and what to do next. The attributes are `None` where the
    error has nothing to say about them.

    >>> error = Error("rank 2 did not answer", rank=0, peer=2, sequence=7)
    >>> error.rank, error.peer, error.sequence, str(error)
    (0, 2, 7, 'rank 2 did not answer')
    """

    #: The rank on which it was raised.
    rank: int | None
    #: The other rank concerned.
    peer: int | None
    #: The operation, in the words of its caller.
    operation: str | None
    #: The operation's number in the group's (or, for send and recv, the pair's) sequence, from 0.
    sequence: int | None
    #: The group's epoch.
    epoch: int | None

    def __init__(
        self,
        message: str = "",
        *,
        rank: int | None = None,
        peer: int | None = None,
        operation: str | None = None,
        sequence: int | None = None,
        epoch: int | None = None,
        flight: str | None = None,
    ) -> None:
        super().__init__(message)
        self.rank = rank
        self.peer = peer
        self.operation = operation
        self.sequence = sequence
        self.epoch = epoch
        self._flight = flight

    @property
    def flight_recorder(self) -> list[dict[str, Any]]:
        """The last operations of the rank when this happened, the failed one among them, the latest at the end.

        The fields are those of a dump (docs/debugging.md); empty for errors that no operation met.

        >>> Error("rank 2 did not answer").flight_recorder
        []
        """
        import json  # as in Communicator.flight_recorder

        return [json.loads(line) for line in (self._flight or "").splitlines()[1:]]


class Timeout(Error, TimeoutError):
    """The deadline passed; `peer` is the rank that was waited for."""


class PeerLost(Error):
    """The process of `peer` ended, or it left the group."""


class Desync(Error):
    """Ranks called different operations, or with arguments that do not fit together."""


class ContractMismatch(Desync):
    """Ranks called the same reduction, but not with the same contract."""


class RemoteArgumentError(Error):
    """The call of `rank` can't be answered: that of another rank was refused for its arguments."""


class Corruption(Error):
    """A message from `peer` arrived damaged twice."""


class Aborted(Error):
    """A rank ended the group's work."""


class VersionMismatch(Error):
    """Ranks run releases of isobit that do not understand each other."""


class AuthError(Error):
    """A process that does not belong to the group was there."""


class Unavailable(Error):
    """What was asked for can't be had here."""


class ConcurrentUseError(Error, RuntimeError):
    """Two threads used one communicator at the same time; the second one's call was not made."""


class ForkedProcessError(Error, RuntimeError):
    """A forked child used its parent's communicator; the parent's group is untouched."""
