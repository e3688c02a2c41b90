"""The adapter interface in terms of the bridge's commands, for everything that can carry commands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex_pool.adapters.base import ANONYMOUS, Adapter, Signature
from dspex_pool.errors import (
    DspexPoolError,
    InvalidArgumentError,
    LocalFrameTooLargeError,
    LocalProtocolError,
)
from dspex_pool.session_call import check_timeout
from dspex_pool.session_table import check_session_id

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CommandAdapter"]

#: What ``configure_lm`` and ``create_program`` know. On the wire a worker ignores whatever else it is sent.
_LM_SETTINGS = (
    "model", "api_key", "api_key_env", "api_base", "temperature", "max_tokens", "provider", "engine"
)  # fmt: skip
_PROGRAM_OPTIONS = ("tools", "max_iters")
_SIGNATURE_KEYS = ("name", "description", "inputs", "outputs")
_FIELD_KEYS = ("name", "type", "description")


class CommandAdapter(Adapter):
    """An adapter whose methods are bridge commands, carried by ``_run``.

    Cancellation: As for ``Adapter``.

    Args:
        session_id: The session it speaks for.

    Raises:
        InvalidArgumentError: The session's id cannot be one.
    """

    def __init__(self, session_id: str = ANONYMOUS) -> None:
        self._session_id = check_session_id(session_id)

    @abstractmethod
    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Run one command and return its result; ``args`` name the session where the command has one."""

    @property
    def session_id(self) -> str:
        """The session that this adapter speaks for."""
        return self._session_id

    async def _ask(self, command: str, args: Mapping[str, Any], timeout: float | None) -> dict[str, Any]:
        given = {name: value for name, value in args.items() if value is not None}
        try:
            result: dict[str, Any] = await self._run(command, given, check_timeout(timeout))
        except LocalFrameTooLargeError:
            raise
        except LocalProtocolError as error:
            # What this side sends are the caller's arguments: one of them cannot be carried by JSON.
            raise InvalidArgumentError(error.message) from error
        return result

    async def _ask_of_session(
        self, command: str, args: Mapping[str, Any], timeout: float | None
    ) -> dict[str, Any]:
        return await self._ask(command, {**args, "session_id": self._session_id}, timeout)

    async def ping(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Ask a worker for a sign of life."""
        return await self._ask("ping", {}, timeout)

    async def configure_lm(self, *, timeout: float | None = None, **settings: Any) -> dict[str, Any]:
        """Set the session's language model, or as ``anonymous`` that of all sessions without one."""
        _refuse_unknown("configure_lm", settings, _LM_SETTINGS)
        if self._session_id == ANONYMOUS:
            return await self._ask("configure_lm", settings, timeout)
        return await self._ask_of_session("configure_lm", settings, timeout)

    async def create_program(
        self,
        program_id: str,
        signature: Signature | None = None,
        *,
        program_type: str = "predict",
        factory: str | None = None,
        state: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Create a program; ``options`` are those of its kind, such as ``tools`` of ``react``."""
        _refuse_unknown("create_program", options, _PROGRAM_OPTIONS)
        if isinstance(signature, Mapping):
            _refuse_unknown_keys(signature)
        args = {
            "id": program_id,
            "signature": signature,
            "program_type": program_type,
            "factory": factory,
            "state": state,
        }
        return await self._ask_of_session("create_program", args | options, timeout)

    async def execute_program(
        self,
        program_id: str,
        inputs: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Run a program on ``inputs``."""
        args = {"program_id": program_id, "inputs": inputs, "options": options}
        return await self._ask_of_session("execute_program", args, timeout)

    async def list_programs(self, *, timeout: float | None = None) -> dict[str, Any]:
        """List the session's programs."""
        return await self._ask_of_session("list_programs", {}, timeout)

    async def get_program_info(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Describe one program."""
        return await self._ask_of_session("get_program_info", {"program_id": program_id}, timeout)

    async def delete_program(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Delete a program."""
        return await self._ask_of_session("delete_program", {"program_id": program_id}, timeout)

    async def dump_program(self, program_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a program as JSON."""
        return await self._ask_of_session("dump_program", {"program_id": program_id}, timeout)

    async def load_program(
        self,
        program_id: str,
        definition: Mapping[str, Any],
        state: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Create or overwrite a program from its JSON."""
        args = {"program_id": program_id, "definition": definition, "state": state}
        return await self._ask_of_session("load_program", args, timeout)

    async def cleanup_session(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Forget the session and its programs."""
        return await self._ask_of_session("cleanup_session", {}, timeout)

    async def get_stats(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Return counters."""
        return await self._ask("get_stats", {}, timeout)

    async def health_check(self, *, timeout: float | None = None) -> bool:
        """Tell whether a worker answers."""
        try:
            return (await self.ping(timeout=timeout)).get("status") == "ok"
        except DspexPoolError:
            return False


def _refuse_unknown(command: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse a slip of the pen, which would be paid for and do nothing."""
    for name in given:
        if name not in known:
            raise InvalidArgumentError(
                f"{command} has no argument {name!r}; known are {', '.join(known)}.",
                argument=name,
            )


def _refuse_unknown_keys(signature: Mapping[str, Any]) -> None:
    """Refuse what no model would be shown, DSPy's own words among it: ``instructions``, ``desc``."""
    _refuse_unknown_key("signature", signature, _SIGNATURE_KEYS)
    for part in ("inputs", "outputs"):
        fields = signature.get(part)
        for field in fields if isinstance(fields, list | tuple) else ():
            if isinstance(field, Mapping):
                _refuse_unknown_key(f"signature's field {field.get('name')!r}", field, _FIELD_KEYS)


def _refuse_unknown_key(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise InvalidArgumentError(
                f"the {what} has a key {key!r} that is unknown; known are {', '.join(known)}.",
                argument="signature",
            )
