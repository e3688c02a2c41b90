"""One command of a session on its way, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.protocol import Event
    from dspex_pool.session_table import Session
    from dspex_pool.worker_memory import WorkerMemory

__all__ = ["ANONYMOUS", "Call", "Reply"]

#: The session of programs that belong to nobody in particular.
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a command, and how it came about."""

    #: The command's result, a JSON value.
    result: Any
    #: The worker that answered, or ``None`` if the pool knew the answer itself.
    worker_id: str | None = None
    #: How often the command was tried.
    attempts: int = 1
    #: Seconds from the call to the answer, the wait for a worker included.
    duration_s: float = 0.0
    #: Tokens by model, where the command used one.
    usage: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Call:
    """One command on its way."""

    session: Session | None
    command: str
    args: dict[str, Any]
    timeout: float | None
    on_event: Callable[[Event], None] | None
    #: Whether the last try got as far as the command itself.
    begun: bool = False
    #: The memory of the worker that carried it out, and the mark that stands there for its program.
    memory: WorkerMemory | None = None
    mark: int = 0

    @property
    def session_id(self) -> str | None:
        """The session's id."""
        return self.session.id if self.session is not None else None

    @property
    def makes(self) -> str:
        """The id of the program that the command makes."""
        program_id: str = self.args["id" if self.command == "create_program" else "program_id"]
        return program_id
