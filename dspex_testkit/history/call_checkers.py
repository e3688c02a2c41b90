"""Checkers of operations: how each ended, whose answer it got, and whether the history can prove anything at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex_pool import errors as pool_errors
from dspex_pool.errors import (
    CheckoutError,
    RemoteProtocolError,
    SessionLostError,
    SessionStoreError,
    WorkerError,
)
from dspex_pool.session_call import ANONYMOUS
from dspex_testkit.history.record import Outcome
from dspex_testkit.history.verdict import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_testkit.history.record import History, Operation
    from dspex_testkit.history.verdict import Checker

__all__ = [
    "Errors",
    "lawful",
    "not_empty",
    "not_vacuous",
    "one_outcome_each",
    "own_answers",
    "own_programs",
    "program_made_by",
    "programs_shown_by",
    "whose",
]

#: Classes of errors, or their names.
Errors: TypeAlias = Collection[str | type[BaseException]]

#: Errors that come from what happens to workers, to the line or to the store, and not from what was asked.
_OF_FAULTS = (CheckoutError, RemoteProtocolError, SessionLostError, SessionStoreError, WorkerError)


def one_outcome_each(history: History) -> list[Violation]:
    """Check that every operation has ended, and none twice."""
    found = []
    for operation in history.operations:
        if operation.outcome is None:
            found.append(Violation("an operation has no outcome", (operation,)))
        elif operation.ends != 1:
            found.append(Violation(f"an operation ended {operation.ends} times", (operation,)))
    return found


def lawful(errors: Errors | Mapping[str, Errors] = ()) -> Checker:
    """Return a checker that every operation was answered, or ended in an error that may happen in this run.

    Args:
        errors: The errors that may happen, as classes or their names, ``Cancelled`` for a cancelled caller; or such
            errors by command, ``*`` for all commands.
    """
    given = errors if isinstance(errors, Mapping) else {"*": errors}
    by_command = {
        command: {kind if isinstance(kind, str) else kind.__name__ for kind in kinds}
        for command, kinds in given.items()
    }

    def check(history: History) -> list[Violation]:
        return [
            Violation(f"{operation.error} is not among the errors that may happen here", (operation,))
            for operation in history.operations
            if operation.error
            and operation.error not in by_command.get(operation.command, ())
            and operation.error not in by_command.get("*", ())
        ]

    return check


def own_answers(name: str = "nonce") -> Checker:
    """Return a checker that every answer is the caller's own: with the value that was sent, which no other has.

    Args:
        name: The argument that comes back in the answer. Operations without it are not looked at.
    """

    def check(history: History) -> list[Violation]:
        found: list[Violation] = []
        senders: dict[Any, Operation] = {}
        for operation in history.operations:
            if name not in operation.args:
                continue
            sent = operation.args[name]
            if sent in senders:
                text = f"two operations sent the same {name}, so nobody can tell their answers apart"
                found.append(Violation(text, (senders[sent], operation)))
            senders[sent] = operation
            got = operation.value.get(name) if isinstance(operation.value, dict) else None
            if operation.outcome is Outcome.OK and got != sent:
                found.append(
                    Violation(f"an answer is somebody else's: sent {sent!r}, got {got!r}", (operation,))
                )
        return found

    return check


def own_programs(history: History) -> list[Violation]:
    """Check that no session was shown a program that nobody tried to make in it."""
    made: dict[str, set[str]] = defaultdict(set)
    for operation in history.operations:
        if (program := program_made_by(operation)) is not None:
            made[whose(operation)].add(program)
    return [
        Violation(
            f"session {whose(operation)!r} sees program {program!r}, which is not its own", (operation,)
        )
        for operation in history.operations
        if operation.outcome is Outcome.OK and operation.command != "delete_program"
        for program in programs_shown_by(operation)
        if program not in made[whose(operation)]
    ]


def not_empty(history: History) -> list[Violation]:
    """Check that anything was recorded at all."""
    if history.operations or history.leases or history.events:
        return []
    text = "vacuous: nothing was recorded; call the pool by history.call, or have the history attend it"
    return [Violation(text)]


def not_vacuous(faults: int) -> Checker:
    """Return a checker that the run could prove something: faults happened, calls felt them, and calls succeeded.

    Args:
        faults: How many faults were proven to have happened.
    """

    def check(history: History) -> list[Violation]:
        missing = []
        if faults < 1:
            missing.append(Violation("vacuous: no fault happened"))
        if not any(map(_is_affected, history.operations)):
            missing.append(Violation("vacuous: no operation was affected by a fault"))
        if not any(operation.outcome is Outcome.OK for operation in history.operations):
            missing.append(Violation("vacuous: no operation succeeded"))
        return missing

    return check


def whose(operation: Operation) -> str:
    """Return the session that an operation is about."""
    return operation.session if operation.session is not None else ANONYMOUS


def program_made_by(operation: Operation) -> str | None:
    """Return the id of the program that an operation was to make, if it was."""
    if operation.command not in ("create_program", "load_program"):
        return None
    found = operation.args.get("id" if operation.command == "create_program" else "program_id")
    return found if isinstance(found, str) else None


def programs_shown_by(operation: Operation) -> Iterator[str]:
    """Give the ids of the programs that an answer tells of."""
    if not isinstance(operation.value, dict):
        return
    if operation.command == "list_programs":
        yield from (program["id"] for program in operation.value["programs"])
    elif isinstance(program_id := operation.value.get("program_id"), str):
        yield program_id


def _is_affected(operation: Operation) -> bool:
    kind = getattr(pool_errors, operation.error, None) if operation.error else None
    is_of_fault = isinstance(kind, type) and issubclass(kind, _OF_FAULTS)
    return is_of_fault or operation.attempts > 1 or operation.outcome is Outcome.UNKNOWN
