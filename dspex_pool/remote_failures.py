"""From a worker's failure message to the error that the caller sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import (
    CallCancelledError,
    DspexPoolError,
    InvalidArgumentError,
    ProgramError,
    ProgramExistsError,
    ProgramNotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.protocol.messages import Failure

__all__ = ["error_from_failure"]

_BY_TYPE: dict[str, type[ProgramError]] = {
    "ProgramNotFound": ProgramNotFoundError,
    "ProgramExists": ProgramExistsError,
    "Cancelled": CallCancelledError,
}

# Version 1 workers tell the kind of a failure in the text alone; these are the texts of the protocol.
_BY_TEXT: tuple[tuple[re.Pattern[str], type[ProgramError]], ...] = (
    (re.compile(r"^Program not found\b|^Program with ID '.*' not found"), ProgramNotFoundError),
    (re.compile(r"^Program with ID '.*' already exists"), ProgramExistsError),
)


def error_from_failure(
    failure: Failure, *, command: str, args: Mapping[str, Any], worker_id: str, pid: int | None = None
) -> DspexPoolError:
    """Make the error of a failed command.

    Args:
        failure: What the worker answered.
        command: The command that failed.
        args: Its arguments; the ids of program and session are taken from them.
        worker_id: The worker that answered.
        pid: Its process id.

    Returns:
        An ``InvalidArgumentError`` where the worker blames an argument, else a ``ProgramError``.
    """
    info = failure.error_info
    kind = info.type if info is not None else None
    if kind == "InvalidArgument":
        return InvalidArgumentError(failure.error, worker_id=worker_id, pid=pid)
    facts: dict[str, Any] = {
        "worker_id": worker_id,
        "pid": pid,
        "command": command,
        "request_id": failure.id,
        "program_id": args.get("program_id", args.get("id")),
        "session_id": args.get("session_id"),
    }
    if info is not None:
        facts |= {
            "type": info.type,
            "remote_traceback": info.traceback,
            "code": info.code,
            "status": info.status,
            "retry_after": info.retry_after_s,
            "retryable": info.retryable,
        }
    known = {name: value for name, value in facts.items() if value is not None}
    return _class_for(kind, failure.error)(failure.error, **known)


def _class_for(kind: str | None, text: str) -> type[ProgramError]:
    if kind is not None:
        return _BY_TYPE.get(kind, ProgramError)
    return next((found for pattern, found in _BY_TEXT if pattern.search(text)), ProgramError)
