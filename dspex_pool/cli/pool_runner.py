"""The pool behind the rows: the last wire between ``dspex-pool run`` and ``PythonPool``."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.cli.problems import CliError
from dspex_pool.cli.run import RowReply
from dspex_pool.errors import (
    CallTimeoutError,
    ProgramError,
    RemoteProtocolError,
    WorkerDiedError,
    WorkerStartError,
)
from dspex_pool.telemetry import PREFIX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from dspex_pool.cli.execution import Plan
    from dspex_pool.cli.program import ProgramChoice
    from dspex_pool.config import PoolConfig
    from dspex_pool.session_call import Reply

__all__ = ["PoolRunner", "open_pool_runner", "wait_ready"]

#: Name of the program in every session.
PROGRAM_ID = "run"

#: Further attempts to make a program known, which asks no model and may be repeated freely.
RETRIES_OF_LOADING = 10

#: Attempts of a row after which no more are made, although no worker lived long enough to have it.
MOST_ATTEMPTS = 20


@asynccontextmanager
async def open_pool_runner(
    plan: Plan, config: PoolConfig, on_restart: Callable[[str], None]
) -> AsyncIterator[PoolRunner]:
    """Open the pool of a run and wait until a worker is ready and has its language model.

    Args:
        plan: What is run.
        config: The pool's settings.
        on_restart: Called with the reason for each worker that is replaced.

    Raises:
        WorkerStartError: The first start failed, and not because somebody killed the worker.
        CliError: The workers run no programs.
        InvalidArgumentError: The language model cannot be used.
        DspexPoolError: The pool could not start otherwise.

    Cancellation: The pool is closed; no worker is left.
    """

    def count(_event: tuple[str, ...], _measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        on_restart(str(about["reason"]))

    async with PythonPool.open(config) as pool:
        with pool.telemetry.attach((*PREFIX, "worker_restarted"), count):
            await wait_ready(pool)
            await _configure_lm(pool, plan)
            yield PoolRunner(pool, plan.program, timeout=plan.row_timeout)


async def _configure_lm(pool: PythonPool, plan: Plan) -> None:
    try:
        await pool.configure_lm(**plan.lm.settings)
    except ProgramError as error:
        if error.type != "UnknownCommand":
            raise
        raise CliError(
            f"the workers run no programs ({error}): leave the setting handler or command out, "
            "or name a handler that serves what DSPy's does"
        ) from error


async def wait_ready(pool: PythonPool) -> None:
    """Wait for the first worker; a start that fails by itself ends the wait.

    Raises:
        WorkerStartError: The first start failed, and not because somebody killed the worker.
        PoolClosedError: The pool closed meanwhile.

    Cancellation: Changes nothing.
    """
    try:
        await pool.wait_ready(fail_fast=True)
    except WorkerStartError as error:
        # A command that is wrong fails again; a worker that was killed, for want of memory say, may not.
        if error.signal is None:
            raise
        await pool.wait_ready()


class PoolRunner:
    """Runs rows on a pool; see ``RowRunner``.

    Args:
        pool: The pool, ready, with its language model.
        program: The program of every session.
        timeout: Seconds that a row has once a worker has it, or ``None``.
    """

    def __init__(self, pool: PythonPool, program: ProgramChoice, *, timeout: float | None) -> None:
        self._pool = pool
        # Of the pool a call without a time gets that of the settings, which is here for all but the rows.
        self._timeout = math.inf if timeout is None else timeout
        self._program = {"program_id": PROGRAM_ID, "definition": dict(program.definition)}
        if program.state is not None:
            self._program["state"] = dict(program.state)

    async def begin_session(self, session_id: str) -> None:
        """Make the program known to a session.

        Cancellation: The session may know it or not; beginning it again is right in each case.
        """
        await self._pool.call(
            session_id, "load_program", self._program, retries=RETRIES_OF_LOADING, idempotent=True
        )

    async def run_row(self, session_id: str, inputs: Mapping[str, Any]) -> RowReply:
        """Answer one row.

        Cancellation: The caller leaves at once; the pool takes care of the worker.
        """
        args = {"program_id": PROGRAM_ID, "inputs": dict(inputs)}
        retries, before = self._pool.config.retries, 0
        while True:
            try:
                reply = await self._pool.call(
                    session_id,
                    "execute_program",
                    args,
                    timeout=self._timeout,
                    retries=retries,
                    idempotent=True,
                )
                break
            except (WorkerDiedError, CallTimeoutError) as error:
                before += error.attempts or 1
                error.attempts = before
                # Workers that are lost before they have the row, while they import say, cost the row no retry.
                if _had_row(error) or before > MOST_ATTEMPTS:
                    raise
                retries = max(0, self._pool.config.retries - before + 1)
        return _row_reply(reply, before)

    async def end_session(self, session_id: str) -> None:
        """Forget a session that has no more rows.

        Cancellation: The session may stay until the pool closes.
        """
        await self._pool.sessions.end_session(session_id)


def _had_row(error: WorkerDiedError | CallTimeoutError) -> bool:
    """Tell whether the worker may have begun the row, and was not lost over what it must be told first."""
    if isinstance(error, CallTimeoutError):
        return error.command == "execute_program"
    return error.request_sent is not False and error.request_read is not False


def _row_reply(reply: Reply, attempts_before: int) -> RowReply:
    result = reply.result if isinstance(reply.result, dict) else {}
    outputs, seconds = result.get("outputs"), result.get("execution_time", reply.duration_s)
    if not isinstance(outputs, dict) or not isinstance(seconds, (int, float)):
        raise RemoteProtocolError(
            f"worker {reply.worker_id} answered execute_program without outputs: does its handler run programs?",
            worker_id=reply.worker_id,
        )
    return RowReply(outputs, reply.worker_id, attempts_before + reply.attempts, float(seconds))
