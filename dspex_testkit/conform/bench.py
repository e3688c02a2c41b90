"""Where workers are held against clauses: opens them, lends the unspoilt ones again, and ends them all."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from dspex_testkit.conform.clause import BrokenClauseError, Clause, Opening
from dspex_testkit.conform.profile import ROLES
from dspex_testkit.conform.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_testkit.conform.profile import Profile

__all__ = ["Bench", "Outcome", "Verdict", "WorkerStartError"]

_ALL_EVENTS = ("log", "chunk", "progress")


class WorkerStartError(Exception):
    """The command does not start a worker; the text says why."""


class Outcome(Enum):
    """How a clause ended."""

    #: The worker keeps it.
    PASSED = "passed"
    #: The worker breaks it.
    FAILED = "failed"
    #: It does not concern this worker, or nobody said how it can be judged.
    NOT_APPLICABLE = "not applicable"
    #: A clause on which it stands is broken.
    NOT_JUDGED = "not judged"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one clause."""

    #: The clause.
    clause: Clause
    #: How it ended.
    outcome: Outcome
    #: What the worker did instead, or why nothing was found; empty if it passed.
    seen: str = ""
    #: How long it took, in seconds.
    duration: float = 0.0


class Bench:
    """Holds workers of one command against clauses, from several threads.

    Args:
        command: What starts a worker.
        profile: What is known of it.
        version: The version to be spoken, 1 or 2.
        is_sharing: Whether clauses that leave a worker unspoilt may use the same one, one after the other.
    """

    def __init__(
        self, command: Sequence[str], profile: Profile, *, version: int = 2, is_sharing: bool = True
    ) -> None:
        self.command = tuple(command)
        self.profile = profile
        self.version = version
        self._is_sharing = is_sharing
        self._lock = threading.Lock()
        self._open: set[Wire] = set()
        self._unspoilt: list[Wire] = []
        self._is_closed = False

    def judge(self, clause: Clause) -> Verdict:
        """Hold a worker against a clause."""
        if reason := self._objection(clause):
            return Verdict(clause, Outcome.NOT_APPLICABLE, reason)
        began = time.monotonic()
        seen = self._broken(clause)
        outcome = Outcome.PASSED if seen is None else Outcome.FAILED
        return Verdict(clause, outcome, seen or "", time.monotonic() - began)

    def _objection(self, clause: Clause) -> str | None:
        if clause.version > self.version:
            return f"version {clause.version} is not spoken"
        missing = [need for need in clause.needs if not self.profile.knows(need)]
        return f"needs {_named(missing[0])}" if missing else None

    def _broken(self, clause: Clause) -> str | None:
        """Return what the worker did against the clause, or ``None``."""
        wire = self._borrow() if clause.opening is Opening.SHARED else None
        # If it fails there, what came before may be to blame: what counts is a worker of its own.
        if wire is not None and self._try(clause, wire) is None:
            return None
        try:
            wire = self._opened(clause.opening)
        except BrokenClauseError as error:
            return f"before it could be tried: {error}"
        return self._try(clause, wire)

    def _try(self, clause: Clause, wire: Wire) -> str | None:
        is_kept = False
        try:
            clause.check(wire)
            is_kept = True
        except BrokenClauseError as error:
            return str(error)
        except OSError as error:
            return f"its pipes broke: {error}"
        finally:
            if is_kept and clause.opening is Opening.SHARED:
                self._give_back(wire)
            else:
                self._end(wire)
        return None

    def _opened(self, opening: Opening) -> Wire:
        wire = self._start()
        is_greeted = False
        try:
            self._greet(wire, opening)
            is_greeted = True
        finally:
            if not is_greeted:
                self._end(wire)
        return wire

    def _greet(self, wire: Wire, opening: Opening) -> None:
        if opening is Opening.VERSION_1:
            wire.greet(1)
        elif opening is Opening.EVENTS:
            wire.greet(2, events=_ALL_EVENTS)
        elif opening is not Opening.RAW:
            wire.greet(self.version)

    def _start(self) -> Wire:
        # Under the lock, so that no worker is started behind the back of ``kill``.
        with self._lock:
            if self._is_closed:
                raise BrokenClauseError("the run was stopped")
            try:
                wire = Wire(self.command, self.profile)
            except OSError as error:
                raise WorkerStartError(f"{self.command[0]}: {error.strerror or error}") from error
            self._open.add(wire)
            return wire

    def _borrow(self) -> Wire | None:
        with self._lock:
            return self._unspoilt.pop() if self._unspoilt else None

    def _give_back(self, wire: Wire) -> None:
        is_unspoilt = self._is_sharing and wire.process.poll() is None and not wire.has_said()
        with self._lock:
            if is_unspoilt and not self._is_closed:
                self._unspoilt.append(wire)
                return
        self._end(wire)

    def _end(self, wire: Wire) -> None:
        with self._lock:
            if wire not in self._open:
                return
            self._open.discard(wire)
        wire.close()

    def probe(self, version: int | None = None) -> int:
        """Find out whether the command starts a worker, and which version it speaks.

        Args:
            version: The version that it is meant to speak; ``None`` to take what it says.

        Raises:
            WorkerStartError: There is no such program, or it ends without a word.
        """
        wire = self._start()
        try:
            wire.greet(1 if version == 1 else 2)
            self.version = version or wire.version
        except (BrokenClauseError, OSError) as error:
            if not wire.unread and _has_ended(wire):
                raise WorkerStartError(_how_it_ended(wire)) from error
            # Something is there, even if it speaks badly. Which clause it breaks is found out one by one.
            self.version = version or 1
        finally:
            self._end(wire)
        return self.version

    def kill(self) -> None:
        """End all workers at once, and start no more. For any thread; ``close`` comes after it."""
        with self._lock:
            self._is_closed = True
            for wire in self._open:
                wire.kill()

    def close(self) -> None:
        """End all workers, and start no more."""
        self.kill()
        with self._lock:
            ending, self._open = self._open, set()
        for wire in ending:
            wire.close()


def _named(need: str) -> str:
    return (
        f"a command for the role {need!r}"
        if need in ROLES
        else "a profile with a max_frame_bytes of 1 MiB or less"
    )


def _has_ended(wire: Wire) -> bool:
    """Tell whether the worker has ended, or does so in the next moment: its stdout ends before it does."""
    try:
        wire.left(0.0)
    except BrokenClauseError:
        return False
    return True


def _how_it_ended(wire: Wire) -> str:
    status = wire.process.returncode
    said = " ".join(wire.stderr()[-300:].split())
    return (
        f"the worker ended with status {status} before its first answer; its stderr ends: {said or 'nothing'}"
    )
