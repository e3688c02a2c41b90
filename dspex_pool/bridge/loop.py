"""The loop: one request after the other, on the main thread, each answered exactly once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.failures import UNKNOWN_COMMAND, describe
from dspex_pool.bridge.logs import MAX_RECORDS_PER_REQUEST
from dspex_pool.protocol.messages import ErrorInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_pool.bridge.handler import Command, HandlerContext
    from dspex_pool.bridge.interrupts import Interrupts
    from dspex_pool.bridge.logs import RequestLog, RequestScope
    from dspex_pool.bridge.outlet import Outlet
    from dspex_pool.bridge.process import Process
    from dspex_pool.bridge.reader import Reader
    from dspex_pool.protocol.messages import Request

__all__ = ["Loop"]


class Loop:
    """Runs the commands that the client asks for.

    Args:
        process: What ends after ``shutdown``.
        outlet: What reads and answers requests.
        interrupts: What makes a running command stop.
        log: Where the records of the commands go.
        scope: Where the loop notes what is running.
    """

    def __init__(
        self, process: Process, outlet: Outlet, interrupts: Interrupts, log: RequestLog, scope: RequestScope
    ) -> None:
        self._process = process
        self._outlet = outlet
        self._interrupts = interrupts
        self._log = log
        self._scope = scope

    def serve(
        self,
        reader: Reader,
        commands: Mapping[str, Command],
        context: HandlerContext,
        error_facts: Callable[[BaseException], Mapping[str, Any]] | None,
    ) -> None:
        """Serve one request after the other until the process ends, or until ``shutdown`` was answered.

        Args:
            reader: Gives the requests.
            commands: What can be asked for.
            context: Counters and secrets.
            error_facts: The handler's knowledge about exceptions.
        """
        outlet, scope, counters = self._outlet, self._scope, context.counters
        while True:
            request = outlet.receive(reader.next_payload())
            counters.command_count += 1
            if request is None:
                counters.error_count += 1
                continue
            scope.enter(request.id, request.args.get("session_id"))
            problem = self._answer(request, commands)
            if problem is not None:
                counters.error_count += 1
                outlet.fail(request.id, *_explain(problem, context, error_facts))
            scope.leave()
            if problem is None and request.command == "shutdown":
                return

    def _answer(self, request: Request, commands: Mapping[str, Command]) -> BaseException | ErrorInfo | None:
        """Run the command and send its result; return what is wrong if there is none, or none that can be sent."""
        command = commands.get(request.command)
        if command is None:
            return ErrorInfo(type=UNKNOWN_COMMAND, message=f"Unknown command: {request.command}")
        began = time.monotonic()
        try:
            result = self._interrupts.run(command, request.args)
        except BaseException as error:
            # Also SystemExit and the cancellations of event loops: a command may end itself, not its worker.
            # The error is raised again at the other end, where the caller is.
            return error
        finally:
            if self._scope.record_count > MAX_RECORDS_PER_REQUEST:
                self._log.end_request(time.time())
        try:
            self._outlet.succeed(request.id, result, duration_s=time.monotonic() - began)
        except Exception as error:
            return error
        return None


def _explain(
    problem: BaseException | ErrorInfo,
    context: HandlerContext,
    error_facts: Callable[[BaseException], Mapping[str, Any]] | None,
) -> tuple[str, ErrorInfo]:
    if isinstance(problem, ErrorInfo):
        return problem.message, problem
    return describe(problem, mask=context.secrets.mask, facts=error_facts)
