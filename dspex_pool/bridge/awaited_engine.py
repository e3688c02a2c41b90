"""An engine of a language model for programs that await its answers.

DSPy wants another engine for ``acall`` than for a plain call. Those that the bridge is told of by name are plain.

Source:
    ``dspy/clients/engines/base.py`` of DSPy 3.4, ``AsyncEngine``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.handler import import_named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["AwaitedEngine"]


class AwaitedEngine:
    """Asks a plain engine within the event loop, which stands still meanwhile.

    A thread would leave the loop free, and be left behind by a command that is cancelled.

    Args:
        engine: The plain engine.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def complete(self, request: Any) -> Any:
        """Answer a request as the plain engine does.

        Raises:
            Exception: Whatever the plain engine raises.

        Cancellation: Comes when the plain engine has answered.
        """
        return self._engine.complete(request)

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Answer a request with the plain engine's events.

        Raises:
            Exception: Whatever the plain engine raises.

        Cancellation: Comes between two events.
        """
        for event in self._engine.stream(request):
            yield event

    async def aclose(self) -> None:
        """Do nothing: the plain engine is closed by itself.

        Cancellation: Never comes.
        """

    def dump_state(self) -> dict[str, Any]:
        """Return the state that DSPy saves with a program.

        Raises:
            AttributeError: The plain engine has none.
        """
        kind = type(self._engine)
        return {"engine": f"{kind.__module__}:{kind.__name__}", "state": self._engine.dump_state()}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> AwaitedEngine:
        """Return an engine for what ``dump_state`` returned. DSPy asks before whether the state may be trusted.

        Raises:
            InvalidArgumentError: The plain engine's class cannot be imported.
        """
        return cls(import_named(state["engine"], argument="engine").load_state(state["state"]))
