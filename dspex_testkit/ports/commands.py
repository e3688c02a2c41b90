"""What a worker without a process answers: a handler's own functions, or plans where those would wait or die.

The worker model of the simulated port and of the mock server is given functions of the arguments. A handler class is
a table of such functions, so it serves there as it serves in a process, as long as its commands neither sleep nor end
the process. ``ECHO_PLANS`` says as plans what the commands of the echo handler do that would.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dspex_pool.bridge.failures import describe
from dspex_pool.bridge.handler import Answer, HandlerContext
from dspex_testkit.plan import CommandFailedError, Plan

__all__ = ["ECHO_PLANS", "Commands", "commands_of_handler"]

Args: TypeAlias = dict[str, Any]
#: Functions of the arguments that give a result or a ``Plan``, or raise ``CommandFailedError``, by command.
Commands: TypeAlias = Mapping[str, Callable[[Args], Any]]

_EVENTS = ("log", "chunk", "progress")


def commands_of_handler(name: str, worker_id: str) -> Commands:
    """Make a handler for one worker, and return its commands as functions that a worker model can call.

    Args:
        name: The class, as ``package.module:Class``.
        worker_id: Name of the worker that it serves.
    """
    module, _, attribute = name.partition(":")
    handler = getattr(importlib.import_module(module), attribute)(
        HandlerContext(mode="pool-worker", worker_id=worker_id)
    )
    return {command: _translated(function, handler) for command, function in handler.commands.items()}


def _translated(function: Callable[[Args], Any], handler: Any) -> Callable[[Args], Any]:
    """Have a command's exceptions say what the bridge would say of them."""

    def run(args: Args) -> Any:
        try:
            result = function(args)
        except Exception as error:
            text, info = describe(error, facts=getattr(handler, "error_facts", None))
            facts = {"code": info.code, "status": info.status, "retry_after_s": info.retry_after_s}
            raise CommandFailedError(text, type=info.type, retryable=info.retryable, **facts) from error
        return result.result if isinstance(result, Answer) else result

    return run


def _emit(args: Args) -> Plan:
    count, plan = int(args.get("count", 1)), Plan()
    for _ in range(count):
        plan.event(args["event"], args.get("data", {}))
    return plan.reply([args["event"] in _EVENTS] * count)


#: The commands of ``EchoHandler`` that wait, speak past their answer, or end their process.
ECHO_PLANS: Commands = {
    "emit": _emit,
    "sleep": lambda args: Plan().after(float(args["seconds"])).reply(args),
    "sleep_in_c": lambda args: Plan().after(float(args["seconds"]), deaf=True).reply(args),
    "hang_in_c": lambda args: Plan().stall(deaf=True),
    "print_python": lambda args: Plan().stderr(f"{args['text']}{args.get('end', chr(10))}").reply(None),
    "exit": lambda args: Plan().die(code=int(args.get("code", 1))),
    "crash": lambda args: Plan().die(signal=9),
}
