"""One clause of the protocol: what a worker must do, the sentence that says so, and how it is found out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_testkit.conform.wire import Wire

__all__ = ["BrokenClauseError", "Clause", "Opening", "Subject", "hold"]


class BrokenClauseError(Exception):
    """The worker did not do what the clause says; the text tells what it did."""


class Opening(Enum):
    """The worker that a clause is held against."""

    #: One that has been greeted, and may have served other clauses. It must serve the next one, too.
    SHARED = "shared"
    #: One of its own that has been greeted.
    FRESH = "fresh"
    #: One of its own to which nothing was said.
    RAW = "raw"
    #: One of its own that was greeted in version 1, whatever it speaks.
    VERSION_1 = "version 1"
    #: One of its own that was greeted in version 2 and asked for ``log``, ``chunk`` and ``progress``.
    EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """What a worker must do."""

    #: Its id, which never changes: the letter of its subject and a number.
    id: str
    #: Its subject, for people.
    subject: str
    #: What is promised.
    promise: str
    #: The sentence of ``docs/protocol.md`` that it is taken from, word for word.
    source: str
    #: Holds a worker to it; raises ``BrokenClauseError``.
    check: Callable[[Wire], None]
    #: The worker it needs.
    opening: Opening = Opening.SHARED
    #: Roles of commands, or settings of the profile, without which it cannot be judged.
    needs: tuple[str, ...] = ()
    #: The version of the protocol that it belongs to.
    version: int = 1
    #: Whether no other clause can be judged where this one is broken.
    is_foundation: bool = False


class Subject:
    """Collects the clauses of one subject, in order.

    Args:
        letter: What their ids begin with.
        name: The subject, for people.
    """

    def __init__(self, letter: str, name: str) -> None:
        self._letter = letter
        self._name = name
        self.clauses: list[Clause] = []

    def clause(
        self,
        number: int,
        source: str,
        *,
        opening: Opening = Opening.SHARED,
        needs: tuple[str, ...] = (),
        version: int = 1,
        is_foundation: bool = False,
    ) -> Callable[[Callable[[Wire], None]], Callable[[Wire], None]]:
        """Make a clause of a function; its docstring is the promise."""

        def add(check: Callable[[Wire], None]) -> Callable[[Wire], None]:
            clause = Clause(
                id=f"{self._letter}{number:02}",
                subject=self._name,
                promise=(inspect.getdoc(check) or "").splitlines()[0],
                source=source,
                check=check,
                opening=opening,
                needs=needs,
                version=version,
                is_foundation=is_foundation,
            )
            self.clauses.append(clause)
            return check

        return add


def hold(condition: object, seen: str) -> None:
    """Go on if ``condition`` is true.

    Raises:
        BrokenClauseError: It is not; ``seen`` says what was seen instead.
    """
    if not condition:
        raise BrokenClauseError(seen)
