"""The adapter interface: one session's programs, whatever stands behind them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex_pool.session_call import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ANONYMOUS", "Adapter", "Signature"]

#: ``"question -> answer"``, or ``{name, description, inputs: [{name, type, description}], outputs: […]}``.
Signature: TypeAlias = "str | Mapping[str, Any]"


class Adapter(ABC):
    """The programs of one session.

    All implementations raise the same errors for the same mistakes: ``ProgramNotFoundError``,
    ``ProgramExistsError``, ``InvalidArgumentError`` (a missing or unknown input, an unknown setting, a bad
    signature, a number that JSON cannot carry), ``ProgramError`` (the program itself failed), and where a worker
    stands behind them the families *checkout*, *protocol* and *worker* of ``dspex_pool.errors``. Results are JSON
    objects, as described for each command in the bridge protocol. ``timeout`` is in seconds and covers the call,
    not the wait for a worker.

    Cancellation: every coroutine may be cancelled; the caller leaves at once. Whether the command took effect
    is then unknown, except that a change is in the session store if and only if the call returned or its commit
    had begun.
    """

    @property
    @abstractmethod
    def session_id(self) -> str:
        """The session that this adapter speaks for."""

    @abstractmethod
    def session_adapter(self, session_id: str) -> Adapter:
        """Return an adapter for another session that shares everything else with this one."""

    @abstractmethod
    async def ping(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Ask a worker for a sign of life: ``{status, timestamp, uptime, mode, dspy_available, …}``."""

    @abstractmethod
    async def configure_lm(self, *, timeout: float | None = None, **settings: Any) -> dict[str, Any]:
        """Set the session's language model: ``model``, ``api_key_env``, ``engine``, ``temperature``, …

        The adapter of the session ``anonymous`` sets that of all sessions that have none of their own.
        """

    @abstractmethod
    async def create_program(
        self,
        program_id: str,
        signature: Signature | None = None,
        *,
        program_type: str = "predict",
        factory: str | None = None,
        state: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Create a program: ``{program_id, status: "created", signature, program_type}``."""

    @abstractmethod
    async def execute_program(
        self,
        program_id: str,
        inputs: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Run a program on ``inputs``: ``{program_id, outputs, execution_time, …}``."""

    @abstractmethod
    async def list_programs(self, *, timeout: float | None = None) -> dict[str, Any]:
        """List the session's programs: ``{programs: [{id, program_type, …}], total_count}``."""

    @abstractmethod
    async def get_program_info(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Describe one program: ``{program_id, signature, created_at, execution_count, last_executed}``."""

    @abstractmethod
    async def delete_program(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Delete a program: ``{program_id, status: "deleted"}``."""

    @abstractmethod
    async def dump_program(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a program as JSON: ``{program_id, definition, state}``."""

    @abstractmethod
    async def load_program(
        self,
        program_id: str,
        definition: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Create or overwrite a program from its JSON: ``{program_id, status: "loaded"}``."""

    @abstractmethod
    async def cleanup_session(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Forget the session and its programs: ``{status: "cleaned", session_id, programs_removed}``."""

    @abstractmethod
    async def get_stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return counters: ``{programs_count, command_count, error_count, uptime, …}``."""

    @abstractmethod
    async def health_check(self, *, timeout: float | None = None) -> bool:
        """Tell whether a worker answers."""
