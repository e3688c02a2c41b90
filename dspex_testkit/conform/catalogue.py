"""All clauses in order, and how some of them are chosen."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.conform.clauses import (
    endings,
    events,
    framing,
    handshake,
    hygiene,
    ids,
    limits,
    messages,
    pipelining,
    refusals,
    signals,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dspex_testkit.conform.clause import Clause

__all__ = ["CLAUSES", "FOUNDATIONS", "choose"]

_SUBJECTS = (
    framing, handshake, ids, messages, refusals, hygiene, endings, signals, limits, pipelining, events
)  # fmt: skip

#: Every clause, by subject.
CLAUSES: tuple[Clause, ...] = tuple(clause for subject in _SUBJECTS for clause in subject.CLAUSES)
#: Those without which no other can be judged.
FOUNDATIONS: tuple[Clause, ...] = tuple(clause for clause in CLAUSES if clause.is_foundation)


def choose(patterns: Iterable[str]) -> tuple[Clause, ...]:
    """Return the clauses whose ids match any of the patterns, such as ``F03`` or ``G*``; all if there is none.

    Raises:
        InvalidArgumentError: A pattern matches no clause.
    """
    wanted = list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(clause.id, pattern) for clause in CLAUSES):
            raise InvalidArgumentError(f"there is no clause {pattern!r}; --list shows all", argument="only")
    return tuple(
        clause
        for clause in CLAUSES
        if not wanted or any(fnmatchcase(clause.id, pattern) for pattern in wanted)
    )
