"""What the pool answers without a worker: lists, descriptions, and refusals of what no worker needs to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError

if TYPE_CHECKING:
    from dspex_pool.session_store import ProgramRecord

__all__ = ["BEGINNING", "USING", "already_exists", "answer", "not_found", "program_id_of"]

#: Commands that begin a session that does not live yet.
BEGINNING = frozenset({"create_program", "load_program", "configure_lm"})

#: Commands that need a program of the session.
USING = frozenset({"execute_program", "get_program_info", "delete_program", "dump_program"})


def answer(
    session_id: str, programs: Mapping[str, ProgramRecord], command: str, args: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Answer what needs no worker, and refuse what no worker needs to see.

    Args:
        session_id: The session's id, for messages.
        programs: Its programs; none if it does not live.
        command: The command.
        args: Its arguments.

    Returns:
        The result, or ``None`` if a worker has to be asked.

    Raises:
        InvalidArgumentError: The id, the definition or the state of a program is missing or of the wrong type.
        ProgramNotFoundError: The session has no such program.
        ProgramExistsError: The session has it already.
    """
    if command == "list_programs":
        return {"programs": [_listing(each) for each in programs.values()], "total_count": len(programs)}
    if command not in USING and command not in ("create_program", "load_program"):
        return None
    program_id = program_id_of(command, args)
    if command == "create_program" and program_id in programs:
        raise already_exists(session_id, program_id)
    if command in USING and program_id not in programs:
        raise not_found(session_id, program_id, command)
    if command == "load_program" and not isinstance(args.get("definition"), Mapping):
        raise InvalidArgumentError(
            "load_program needs 'definition', an object as dump_program gives it.", argument="definition"
        )
    if command in BEGINNING:
        _check_state(command, args.get("state"))
    return _info(programs[program_id]) if command == "get_program_info" else None


def program_id_of(command: str, args: Mapping[str, Any]) -> str:
    """Return the id of the program that a command is about.

    Raises:
        InvalidArgumentError: It is missing, empty or no string.
    """
    name = "id" if command == "create_program" else "program_id"
    program_id = args.get(name)
    if not isinstance(program_id, str) or not program_id:
        what = "an empty one" if program_id == "" else type(program_id).__name__
        raise InvalidArgumentError(
            f"{command} needs {name!r}, a string that is not empty; got {what}.", argument=name
        )
    return program_id


def _check_state(command: str, state: object) -> None:
    # A worker may take anything; what a store gives back is an object.
    if state is not None and not isinstance(state, Mapping):
        raise InvalidArgumentError(
            f"{command} takes a 'state' that is an object, as dump_program gives it; got {type(state).__name__}.",
            argument="state",
        )


def already_exists(session_id: str, program_id: str) -> ProgramExistsError:
    """Make the error for an id that is taken."""
    return ProgramExistsError(
        f"Program with ID '{program_id}' already exists.",
        type="ProgramExists",
        command="create_program",
        program_id=program_id,
        session_id=session_id,
    )


def not_found(session_id: str, program_id: str, command: str) -> ProgramNotFoundError:
    """Make the error for a program that a session does not have."""
    return ProgramNotFoundError(
        f"Program not found: {program_id}",
        type="ProgramNotFound",
        command=command,
        program_id=program_id,
        session_id=session_id,
    )


def _listing(program: ProgramRecord) -> dict[str, Any]:
    return {
        "id": program.id,
        "program_type": _kind(program.definition),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }


def _kind(definition: Mapping[str, Any]) -> str:
    """Return a program's kind as a worker tells it: clients send the default kind along with a factory."""
    return "factory" if definition.get("factory") is not None else definition.get("program_type", "predict")


def _info(program: ProgramRecord) -> dict[str, Any]:
    return {
        "program_id": program.id,
        "signature": program.definition.get("signature"),
        "created_at": program.created_at,
        "execution_count": program.execution_count,
        "last_executed": program.last_executed,
    }
