"""The programs of a worker, by session."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.arguments import text
from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.bridge.signatures import SignatureSpec

__all__ = ["Program", "Session", "Sessions"]

#: Key of the only space of a standalone worker.
_GLOBAL = "global"


@dataclass(slots=True)
class Program:
    """One program of one session."""

    #: Its id.
    id: str
    #: How it was made: the args of ``create_program`` without the ids and the state.
    definition: dict[str, Any]
    #: Its signature, or ``None`` where a factory made it and none was given.
    spec: SignatureSpec | None
    #: The DSPy module.
    module: Any
    #: What it has told ``dspy.configure``.
    settings: dict[str, Any] = field(default_factory=dict)
    #: When it was made, in Unix seconds.
    created_at: float = field(default_factory=time.time)
    #: How often it has run, failures included.
    execution_count: int = 0
    #: When it ran last, in Unix seconds.
    last_executed: float | None = None

    def ran(self) -> None:
        """Count one run."""
        self.execution_count += 1
        self.last_executed = time.time()


@dataclass(slots=True)
class Session:
    """What a worker holds of one session."""

    #: Its programs by id.
    programs: dict[str, Program] = field(default_factory=dict)
    #: Its language model, or ``None`` for the worker's.
    lm: Any = None


class Sessions:
    """All sessions of a worker. A standalone worker has one space for all, whatever session a call names.

    Args:
        mode: ``standalone`` or ``pool-worker``.
    """

    def __init__(self, mode: str) -> None:
        self._is_global = mode == "standalone"
        self._sessions: dict[str, Session] = {}
        #: Key of the session that was used last.
        self.current: str | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def programs_count(self) -> int:
        """Number of all programs."""
        return sum(len(session.programs) for session in self._sessions.values())

    def key(self, args: Mapping[str, Any]) -> str:
        """Return the key of the session that a request names.

        Raises:
            InvalidArgumentError: It names none, but the worker keeps sessions apart.
        """
        if self._is_global:
            return _GLOBAL
        if args.get("session_id") is None:
            raise InvalidArgumentError("session_id is required in pool-worker mode", argument="session_id")
        self.current = text(args, "session_id")
        return self.current

    def look(self, args: Mapping[str, Any]) -> Session:
        """Return the session that a request names; an empty one, which is not kept, if it is not known."""
        return self._sessions.get(self.key(args)) or Session()

    def open(self, args: Mapping[str, Any]) -> Session:
        """Return the session that a request names, and begin it if it is not known."""
        return self._sessions.setdefault(self.key(args), Session())

    def find(self, args: Mapping[str, Any]) -> Program:
        """Return the program that a request names.

        Raises:
            ProgramNotFoundError: The session has no such program.
        """
        session = self.look(args)
        program_id = text(args, "program_id")
        if program_id not in session.programs:
            raise ProgramNotFoundError(f"Program not found: {program_id}", program_id=program_id)
        return session.programs[program_id]

    def refuse_existing(self, args: Mapping[str, Any], program_id: str) -> None:
        """Check that a program can be created.

        Raises:
            ProgramExistsError: The session has a program of this id.
        """
        if program_id in self.look(args).programs:
            raise ProgramExistsError(f"Program with ID '{program_id}' already exists.", program_id=program_id)

    def remove(self, args: Mapping[str, Any]) -> tuple[str, int]:
        """Forget the session that a request names; return its key and how many programs it had."""
        key = self.key(args)
        session = self._sessions.pop(key, Session())
        return key, len(session.programs)

    def clear(self) -> int:
        """Forget all sessions; return how many programs they had."""
        removed = self.programs_count
        self._sessions.clear()
        self.current = None
        return removed
