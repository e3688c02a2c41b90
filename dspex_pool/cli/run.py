"""Running the rows: a few at a time, each exactly once, each ending in a record.

``RowRunner`` is all that this module knows of the pool, so that it runs in tests on a fake.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import trio

from dspex_pool.cli.problems import CliError, describe_problem, one_line
from dspex_pool.cli.program import UnfitRowError
from dspex_pool.cli.records import Answer, Entry, RowError, is_match
from dspex_pool.cli.rows import session_of
from dspex_pool.errors import (
    CircuitOpenError,
    DspexPoolError,
    InvalidArgumentError,
    PoolClosedError,
    ProgramError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from dspex_pool.cli.program import ProgramChoice
    from dspex_pool.cli.rows import Row

__all__ = ["DEFAULT_SESSION", "Job", "RowReply", "RowRunner", "RowsRun", "Sessions"]

#: The session of rows that name none.
DEFAULT_SESSION = "anonymous"

#: Errors after which no row can be answered any more. They end the run; the rows stay missing, not failed.
POOL_IS_GONE = (CircuitOpenError, PoolClosedError)


@dataclass(frozen=True, slots=True)
class RowReply:
    """What the pool says of a row that was answered."""

    #: The program's outputs.
    outputs: Mapping[str, Any]
    #: The worker that answered.
    worker_id: str | None
    #: How often the row was handed to a worker.
    attempts: int
    #: Seconds that the call took.
    duration: float


class RowRunner(Protocol):
    """The pool, as this command needs it. Every method raises the errors of ``dspex_pool.errors``."""

    async def begin_session(self, session_id: str) -> None:
        """Make model and program known to a session.

        Cancellation:
            The session may know one, both or none; beginning it again is right in each case.
        """

    async def run_row(self, session_id: str, inputs: Mapping[str, Any]) -> RowReply:
        """Answer one row.

        Cancellation:
            The caller leaves at once; the pool takes care of the worker.
        """

    async def end_session(self, session_id: str) -> None:
        """Forget a session that has no more rows.

        Cancellation:
            The session may stay until the pool closes.
        """


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with each row."""

    #: The program.
    program: ProgramChoice
    #: Most rows in the pool's hands at the same time.
    in_flight: int
    #: Field that names the row's session; ``None``: one session for all.
    session_field: str | None = None
    #: Field with the expected answer; ``None``: nothing is compared.
    expected_field: str | None = None
    #: Fields that are no inputs, where the program does not say what its inputs are.
    no_inputs: frozenset[str] = frozenset({"id"})


class Sessions:
    """Begins each session with its first row and ends it after its last.

    Args:
        runner: The pool.
        rows: Number of rows that will call ``leave``, by session. Others are never ended.
    """

    def __init__(self, runner: RowRunner, rows: Mapping[str, int]) -> None:
        self._runner = runner
        self._left = Counter(rows)
        self._locks: dict[str, trio.Lock] = {}
        self._begun: set[str] = set()

    async def enter(self, session_id: str) -> None:
        """Wait until the session is begun; the first to come begins it, and the next tries again if that fails.

        Cancellation:
            As ``RowRunner.begin_session``.
        """
        async with self._locks.setdefault(session_id, trio.Lock()):
            if session_id not in self._begun:
                await self._runner.begin_session(session_id)
                self._begun.add(session_id)

    async def leave(self, session_id: str) -> None:
        """Count one row of the session as settled, run or not, and end the session with the last.

        Cancellation:
            The row is counted.
        """
        self._left[session_id] -= 1
        if self._left[session_id] != 0:
            return
        self._locks.pop(session_id, None)
        if session_id in self._begun:
            self._begun.remove(session_id)
            # The rows have their answers: what is left of the session goes with the pool.
            with suppress(DspexPoolError):
                await self._runner.end_session(session_id)


@dataclass
class RowsRun:
    """One pass over the rows."""

    job: Job
    runner: RowRunner
    sessions: Sessions
    #: Takes each finished row. Called once a row.
    record: Callable[[Entry], Awaitable[None]]
    #: Tells whether a row is run, by its line; others are skipped.
    wants: Callable[[int], bool] = lambda _line: True
    #: Set from outside: no further row is begun.
    is_stopping: bool = False
    #: Rows in the pool's hands.
    running: int = 0
    _slots: trio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = trio.Semaphore(self.job.in_flight)

    async def prepare(self) -> None:
        """Let one worker build the program, so that a wrong one is one error and not one a row.

        Raises:
            CliError: The program or the model cannot be built.
            DspexPoolError: No worker could try.

        Cancellation:
            As ``RowRunner.begin_session``.
        """
        try:
            await self.sessions.enter(DEFAULT_SESSION)
        except (InvalidArgumentError, ProgramError) as error:
            label, problem = one_line(self.job.program.label, 200), describe_problem(error)
            if isinstance(error, ProgramError) and error.type is not None:
                problem = f"{error.type}: {problem}"
                error.add_note(f"In the worker: {error.remote_traceback}")  # which --verbose shows
            raise CliError(f"the program {label!r} cannot be built: {problem}") from error

    async def run(self, rows: Iterable[Row]) -> None:
        """Run all wanted rows; return when the last is recorded.

        Raises:
            CircuitOpenError: The pool has no worker and cannot start one.
            PoolClosedError: The pool closed under the run.

        Cancellation:
            Rows that are not recorded yet stay missing.
        """
        async with trio.open_nursery() as nursery:
            for row in rows:
                if not self.wants(row.line):
                    await self._skip(row)
                    continue
                await self._slots.acquire()
                if self.is_stopping:
                    return
                self.running += 1
                nursery.start_soon(self._run_row, row)

    async def _skip(self, row: Row) -> None:
        await trio.lowlevel.checkpoint()
        await self._leave(row)

    async def _run_row(self, row: Row) -> None:
        try:
            started = trio.current_time()
            try:
                answer = await self._answer(row)
            except POOL_IS_GONE:
                raise
            except (DspexPoolError, UnfitRowError) as error:
                answer = failed_answer(row, error, trio.current_time() - started)
            await self.record(Entry(row.line, self._match(row, answer), answer))
            await self._leave(row)
        finally:
            self.running -= 1
            self._slots.release()

    async def _leave(self, row: Row) -> None:
        session_id = self._session_of(row)
        # A row without a session counts for none, not even for one that is called like the session of such rows.
        if session_id is not None:
            await self.sessions.leave(session_id)

    async def _answer(self, row: Row) -> Answer:
        inputs = self.job.program.inputs_of(row, without=self.job.no_inputs)
        session_id = self._session_of(row)
        if session_id is None:
            raise UnfitRowError(
                f"{row.name} has no session: {self.job.session_field!r} must be a text or a whole number"
            )
        await self.sessions.enter(session_id)
        reply = await self.runner.run_row(session_id, inputs)
        seconds = round(reply.duration, 6)
        return Answer(row.id, reply.outputs, None, reply.attempts, reply.worker_id, seconds)

    def _session_of(self, row: Row) -> str | None:
        if self.job.session_field is None:
            return DEFAULT_SESSION
        return session_of(row, self.job.session_field)

    def _match(self, row: Row, answer: Answer) -> bool | None:
        expected = None if self.job.expected_field is None else row.fields.get(self.job.expected_field)
        if expected is None or expected == "":
            return None
        return answer.outputs is not None and is_match(expected, answer.outputs)


def failed_answer(row: Row, error: DspexPoolError | UnfitRowError, duration: float) -> Answer:
    """Make the record of a row that has no answer.

    Args:
        row: The row.
        error: Why.
        duration: Seconds from its start until it was given up.
    """
    seconds = round(duration, 6)
    if isinstance(error, UnfitRowError):
        return Answer(row.id, None, RowError("InvalidArgumentError", one_line(str(error))), 0, None, seconds)
    kind = (error.type if isinstance(error, ProgramError) else None) or type(error).__name__
    attempts = error.attempts if error.attempts is not None else int(error.worker_id is not None)
    problem = RowError(kind, describe_problem(error))
    return Answer(row.id, None, problem, attempts, error.worker_id, seconds)
