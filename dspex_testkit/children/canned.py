"""A handler for the real bridge that has programs without DSPy: canned ones, beside what the echo handler serves.

Start it as ``python -m dspex_pool.bridge --handler dspex_testkit.children.canned:CannedHandler``. A test in another
process can have it do anything instead of answering, see ``dspex_testkit.ports.orders``.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.handler import command
from dspex_pool.errors import DspexPoolError, InvalidArgumentError, ProgramExistsError, ProgramNotFoundError
from dspex_testkit.canned_bridge import PROGRAM_COMMANDS, CannedBridge
from dspex_testkit.children.echo import EchoHandler
from dspex_testkit.children.planned import PlannedCommands
from dspex_testkit.plan import CommandFailedError, Plan
from dspex_testkit.plan_json import plan_from_json
from dspex_testkit.ports.orders import HANDSHAKE, ORDERS_VARIABLE, comes_before, ordered

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
        self._planned = PlannedCommands(context)
        self._orders = os.environ.get(ORDERS_VARIABLE)
        self._is_greeted = False

    @functools.cached_property
    def commands(self) -> Mapping[str, Command]:
        """The commands by name."""
        programs = {name: functools.partial(self._run, name) for name in PROGRAM_COMMANDS}
        served: dict[str, Command] = {**programs, **super().commands}
        if self._orders is None:
            return served
        return {name: functools.partial(self._obey, name, function) for name, function in served.items()}

    @command
    def reset_state(self, args: dict[str, Any]) -> dict[str, Any]:
        """Forget all sessions and all counts."""
        counters = self.context.counters
        counts = {"commands_reset": counters.command_count, "errors_reset": counters.error_count}
        counters.command_count = counters.error_count = 0
        return {**self._bridge.run("reset_state", args), **counts}

    @command
    def do(self, args: dict[str, Any]) -> None:
        """Carry out the plan ``steps``, see ``plan_to_json``."""
        self._planned.run(plan_from_json(args["steps"]))

    @command
    def held(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the sessions that this worker holds something of, each with the name of its language model."""
        return self._bridge.held()

    def ping_facts(self) -> Mapping[str, Any]:
        """Do what is ordered instead of answering a ping."""
        name, self._is_greeted = "ping" if self._is_greeted else HANDSHAKE, True
        self._carry_out(name)
        return super().ping_facts()

    def _run(self, name: str, args: dict[str, Any]) -> Any:
        try:
            return self._bridge.run(name, args)
        except CommandFailedError as error:
            raise _ERRORS.get(error.type, InvalidArgumentError)(error.message) from None

    def _obey(self, name: str, function: Command, args: dict[str, Any]) -> Any:
        return None if self._carry_out(name) else function(args)

    def _carry_out(self, name: str) -> bool:
        """Do what is ordered for a command, if anything; tell whether that was its answer, too."""
        plan: Plan | None = None
        if self._orders is not None:
            plan = ordered(self._orders, self.context.worker_id, name)
        if plan is None:
            return False
        if comes_before(plan):
            for step in plan.steps:
                self._planned._do(step, 0)
            return False
        self._planned.run(plan)
        return True
