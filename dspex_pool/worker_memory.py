"""What a worker holds of sessions, and what it must be told before it can serve one. No I/O.

The session store is the truth, a worker's memory a cache of it. This record says which revision of what a worker
has, so that the difference can be sent ahead of a command in the same lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dspex_pool.session_table import Session

__all__ = ["DefaultModel", "Step", "WorkerMemory"]


class Step(NamedTuple):
    """One command to send ahead."""

    command: str
    args: dict[str, Any]


class DefaultModel(NamedTuple):
    """The language model of sessions that have none of their own."""

    revision: int
    args: dict[str, Any]


class WorkerMemory:
    """What one worker incarnation holds."""

    __slots__ = ("_default_model", "_models", "_programs", "_stale")

    def __init__(self) -> None:
        self._programs: dict[str, dict[str, int]] = {}
        self._models: dict[str, int] = {}
        self._default_model = 0
        self._stale: dict[str, None] = {}

    @property
    def sessions(self) -> frozenset[str]:
        """Sessions of which this worker holds something, ended ones included."""
        return frozenset(self._programs) | frozenset(self._models) | frozenset(self._stale)

    def missing(
        self, session: Session | None, program_id: str | None, default: DefaultModel | None
    ) -> list[Step]:
        """Return what to send before a command of ``session`` that uses ``program_id``.

        Args:
            session: The session, or ``None`` for a command of no session.
            program_id: The program that the command runs, or ``None``.
            default: The pool's language model, or ``None`` if none was set.
        """
        steps = self.cleaning()
        if default is not None and default.revision != self._default_model:
            steps.append(Step("configure_lm", default.args))
        if session is None:
            return steps
        held = self._programs.get(session.id, {})
        if session.lm_revision != self._models.get(session.id, 0):
            if session.record.lm is None:
                # It may have a model that was never committed; there is no command to take just that away.
                steps.append(Step("cleanup_session", {"session_id": session.id}))
                held = {}
            else:
                lm = session.record.lm | session.lm_secrets
                steps.append(Step("configure_lm", {**lm, "session_id": session.id}))
        program = session.program(program_id) if program_id is not None else None
        if program is not None and held.get(program.id) != program.revision:
            args = {"program_id": program.id, "definition": program.definition, "session_id": session.id}
            steps.append(
                Step("load_program", args if program.state is None else {**args, "state": program.state})
            )
        return steps

    def clearing(self, session_id: str, program_id: str) -> list[Step]:
        """Return what to send before ``program_id`` is created: a copy of a deleted one may be in the way."""
        if program_id not in self._programs.get(session_id, {}):
            return []
        return [Step("delete_program", {"program_id": program_id, "session_id": session_id})]

    def cleaning(self) -> list[Step]:
        """Return what to send to make the worker forget sessions that have ended."""
        return [Step("cleanup_session", {"session_id": session_id}) for session_id in self._stale]

    def note(self, step: Step, session: Session | None, default: DefaultModel | None) -> None:
        """Note that the worker has carried out ``step``."""
        if step.command == "cleanup_session":
            self._forget(step.args["session_id"])
        elif step.command == "configure_lm":
            if step.args.get("session_id") is None:
                self._default_model = default.revision if default is not None else 0
            elif session is not None:
                self._models[session.id] = session.lm_revision
        elif session is not None and step.command == "delete_program":
            self._programs.get(session.id, {}).pop(step.args["program_id"], None)
        elif session is not None and step.command == "load_program":
            program = session.program(step.args["program_id"])
            self.note_program(
                session.id, step.args["program_id"], program.revision if program is not None else 0
            )

    def note_program(self, session_id: str, program_id: str, revision: int) -> None:
        """Note that the worker holds this revision of a program; below one it must be replaced before use."""
        self._programs.setdefault(session_id, {})[program_id] = revision

    def confirm_program(self, session_id: str, program_id: str, mark: int, revision: int) -> None:
        """Note that what was noted as ``mark`` is ``revision``; if something else came since, nothing."""
        held = self._programs.get(session_id, {})
        if held.get(program_id) == mark:
            held[program_id] = revision

    def note_model(self, session_id: str, revision: int) -> None:
        """Note that the worker has the session's language model."""
        self._models[session_id] = revision

    def note_ended(self, session_id: str) -> bool:
        """Note that a session has ended; tell whether the worker holds something of it."""
        if session_id not in self._programs and session_id not in self._models:
            return False
        self._stale[session_id] = None
        return True

    def _forget(self, session_id: str) -> None:
        self._programs.pop(session_id, None)
        self._models.pop(session_id, None)
        self._stale.pop(session_id, None)
