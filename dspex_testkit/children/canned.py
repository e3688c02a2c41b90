"""A handler for the real bridge that has programs without DSPy: canned ones, beside what the echo handler serves.

Start it as ``python -m dspex_pool.bridge --handler dspex_testkit.children.canned:CannedHandler``.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import DspexPoolError, InvalidArgumentError, ProgramExistsError, ProgramNotFoundError
from dspex_testkit.canned_bridge import PROGRAM_COMMANDS, CannedBridge
from dspex_testkit.children.echo import EchoHandler
from dspex_testkit.plan import CommandFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.bridge.handler import Command

__all__ = ["CannedHandler"]

#: The errors whose names on the wire are not those of their classes.
_ERRORS: dict[str, type[DspexPoolError]] = {
    "InvalidArgument": InvalidArgumentError,
    "ProgramNotFound": ProgramNotFoundError,
    "ProgramExists": ProgramExistsError,
}


class CannedHandler(EchoHandler):
    """Serves what ``EchoHandler`` does, and the program commands of the DSPy bridge on canned programs."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self._bridge = CannedBridge(mode=context.mode, worker_id=context.worker_id or "w-0")

    @functools.cached_property
    def commands(self) -> Mapping[str, Command]:
        """The commands by name."""
        programs = {name: functools.partial(self._run, name) for name in PROGRAM_COMMANDS}
        return {**super().commands, **programs}

    def _run(self, name: str, args: dict[str, Any]) -> Any:
        try:
            return self._bridge.run(name, args)
        except CommandFailedError as error:
            raise _ERRORS.get(error.type, InvalidArgumentError)(error.message) from None
