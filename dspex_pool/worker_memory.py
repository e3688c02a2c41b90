"""What a worker holds of sessions, and what it must be told before it can serve one. No I/O.

The session store is the truth, a worker's memory a cache of it. This record says which revision of what a worker
has, so that the difference can be sent ahead of a command in the same lease. Whatever is about to be sent is noted
as doubtful first, under a mark that no revision ever equals; only the answer makes it a revision. So whoever leaves
in between, or ends the session meanwhile, leaves a worker behind that is told again, or told to forget.
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
    #: The revision that the worker has afterwards; zero where nothing is left there.
    revision: int = 0

    def __repr__(self) -> str:
        # Tools that show the variables of a failure show this; the arguments may hold keys.
        return f"<Step {self.command!r} revision {self.revision}>"


class DefaultModel(NamedTuple):
    """The language model of sessions that have none of their own."""

    revision: int
    args: dict[str, Any]

    def __repr__(self) -> str:
        return f"<DefaultModel revision {self.revision}>"


class WorkerMemory:
    """What one worker incarnation holds."""

    __slots__ = ("_default_model", "_last_mark", "_models", "_programs", "_stale")

    def __init__(self) -> None:
        self._programs: dict[str, dict[str, int]] = {}
        self._models: dict[str, int] = {}
        self._default_model = 0
        self._stale: dict[str, None] = {}
        self._last_mark = 0

    @property
    def sessions(self) -> frozenset[str]:
        """Sessions of which this worker may hold something, ended ones included."""
        return frozenset(self._programs) | frozenset(self._models)

    # --- what to send ahead -----------------------------------------------------------------------------------

    def missing(
        self,
        session: Session | None,
        program_id: str | None,
        default: DefaultModel | None,
        *,
        needs_model: bool = True,
    ) -> list[Step]:
        """Return what to send before a command of ``session`` that uses ``program_id``.

        Args:
            session: The session, or ``None`` for a command of no session.
            program_id: The program that the command runs, or ``None``.
            default: The pool's language model, or ``None`` if none was set.
            needs_model: Whether the command may ask a language model.

        Raises:
            InvalidArgumentError: The key of the session's language model is lost.
        """
        steps = self.cleaning() if self._stale else []
        if needs_model and (session is not None or default is not None):
            steps += self._missing_model(session, default)
        if session is None or program_id is None or (program := session.program(program_id)) is None:
            return steps
        # Nothing is left of the session once it was cleaned up.
        is_cleaned = any(step.args["session_id"] == session.id for step in steps if _cleans(step))
        held = {} if is_cleaned else self._programs.get(session.id, {})
        if held.get(program.id) != program.revision:
            args = {"program_id": program.id, "definition": program.definition, "session_id": session.id}
            if program.state is not None:
                args["state"] = program.state
            steps.append(Step("load_program", args, program.revision))
        return steps

    def _missing_model(self, session: Session | None, default: DefaultModel | None) -> list[Step]:
        if session is not None and session.record.lm is not None:
            if self.model_of(session.id) == session.lm_revision:
                return []
            args = session.lm_arguments() | {"session_id": session.id}
            return [Step("configure_lm", args, session.lm_revision)]
        steps = []
        if session is not None and self.model_of(session.id) != 0:
            # It may have a model that was never committed; there is no command to take just that away.
            steps.append(_cleaning_of(session.id))
        if default is not None and default.revision != self._default_model:
            steps.append(Step("configure_lm", default.args, default.revision))
        return steps

    def model_of(self, session_id: str | None) -> int:
        """Return the revision of a session's language model, or of the default one; zero for none."""
        if session_id is None:
            return self._default_model
        return 0 if session_id in self._stale else self._models.get(session_id, 0)

    def clearing(self, session_id: str, program_id: str) -> list[Step]:
        """Return what to send before ``program_id`` is created: a copy of a deleted one may be in the way."""
        if session_id in self._stale or program_id not in self._programs.get(session_id, {}):
            return []
        return [Step("delete_program", {"program_id": program_id, "session_id": session_id})]

    def cleaning(self) -> list[Step]:
        """Return what to send to make the worker forget sessions that have ended."""
        return [_cleaning_of(session_id) for session_id in self._stale]

    # --- what was sent ----------------------------------------------------------------------------------------

    def meet(self, session_id: str) -> None:
        """Note that a command of a session is about to be sent; who knows what it leaves behind."""
        self._models.setdefault(session_id, 0)

    def begin(self, step: Step) -> None:
        """Note that ``step`` is about to be sent."""
        session_id = step.args.get("session_id")
        if step.command in ("load_program", "delete_program"):
            self.doubt_program(step.args["session_id"], step.args["program_id"])
        elif step.command == "configure_lm":
            self.doubt_model(session_id)

    def note(self, step: Step) -> None:
        """Note that the worker has carried out ``step``."""
        session_id = step.args.get("session_id")
        if step.command == "configure_lm":
            self._set_model(session_id, step.revision)
        elif step.command == "cleanup_session":
            self._forget(step.args["session_id"])
        elif step.command == "delete_program":
            self._programs.get(step.args["session_id"], {}).pop(step.args["program_id"], None)
        else:
            self._programs.setdefault(step.args["session_id"], {})[step.args["program_id"]] = step.revision

    def doubt_program(self, session_id: str, program_id: str) -> int:
        """Note that a program is about to change in the worker; returns the mark that stands for it."""
        mark = self._new_mark()
        self._programs.setdefault(session_id, {})[program_id] = mark
        return mark

    def doubt_model(self, session_id: str | None) -> int:
        """Note that a session's language model, or the default one, is about to change; returns its mark."""
        mark = self._new_mark()
        self._set_model(session_id, mark)
        return mark

    def confirm_program(self, session_id: str, program_id: str, mark: int, revision: int) -> None:
        """Note that what was marked is ``revision``; if something else came since, nothing."""
        held = self._programs.get(session_id, {})
        if held.get(program_id) == mark:
            held[program_id] = revision

    def confirm_model(self, session_id: str | None, mark: int, revision: int) -> None:
        """Note that the language model that was marked is ``revision``; if something else came since, nothing."""
        if self.model_of(session_id) == mark:
            self._set_model(session_id, revision)

    def note_ended(self, session_id: str) -> bool:
        """Note that a session has ended; tell whether the worker may hold something of it."""
        if session_id not in self._programs and session_id not in self._models:
            return False
        self._stale[session_id] = None
        return True

    def _set_model(self, session_id: str | None, revision: int) -> None:
        if session_id is None:
            self._default_model = revision
        else:
            self._models[session_id] = revision

    def _forget(self, session_id: str) -> None:
        self._programs.pop(session_id, None)
        self._models.pop(session_id, None)
        self._stale.pop(session_id, None)

    def _new_mark(self) -> int:
        # Below zero, so that a mark is never taken for a revision.
        self._last_mark -= 1
        return self._last_mark


def _cleaning_of(session_id: str) -> Step:
    return Step("cleanup_session", {"session_id": session_id})


def _cleans(step: Step) -> bool:
    return step.command == "cleanup_session"
