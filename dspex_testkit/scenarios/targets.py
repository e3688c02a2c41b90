"""Whom a strike hits: chosen among the workers in service at that moment, without I/O."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

__all__ = ["All", "AnyTarget", "BoundTo", "Candidate", "LeaseHolder", "One", "Some", "Target"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker in service that no deadly strike has hit."""

    #: Its place among the pool's workers; the oldest is number 0.
    index: int
    #: Its incarnation number.
    incarnation: int
    #: Whether it is in a caller's hands.
    is_lent: bool = False
    #: The sessions that are bound to it.
    sessions: frozenset[str] = frozenset()


class Target(msgspec.Struct, frozen=True, tag=True):
    """Which workers a strike hits."""

    @abc.abstractmethod
    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Return those that are hit; none if the target does not exist now."""


class One(Target, frozen=True):
    """Any one worker."""

    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Draw one."""
        return [numbers.choice(living)] if living else []


class Some(Target, frozen=True, kw_only=True):
    """Several workers: a number, or a share of those in service, rounded up; as many as there are."""

    count: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.count is None) == (self.share is None):
            raise ValueError("some workers are a count or a share, and not both")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")

    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Draw them."""
        wanted = math.ceil((self.share or 0) * len(living)) if self.count is None else self.count
        return numbers.sample(living, min(wanted, len(living)))


class All(Target, frozen=True):
    """All workers in service."""

    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Return them all."""
        return list(living)


class LeaseHolder(Target, frozen=True):
    """Any one worker that is in a caller's hands."""

    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Draw one of them."""
        lent = [candidate for candidate in living if candidate.is_lent]
        return [numbers.choice(lent)] if lent else []


class BoundTo(Target, frozen=True):
    """The worker that a session is bound to."""

    session: str

    def choose(self, living: Sequence[Candidate], numbers: random.Random) -> list[Candidate]:
        """Find it."""
        return [candidate for candidate in living if self.session in candidate.sessions]


AnyTarget: TypeAlias = One | Some | All | LeaseHolder | BoundTo
