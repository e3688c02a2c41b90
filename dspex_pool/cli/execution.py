"""One run, carried out: the pool, the rows, the signals and the screen together under one roof."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio

from dspex_pool.cli.plan import STDOUT, Selection, in_flight_limit
from dspex_pool.cli.recorder import Recorder, sync_journal, write_stdout
from dspex_pool.cli.run import Job, RowsRun, Sessions
from dspex_pool.cli.signals import CODES, Stopped
from dspex_pool.cli.stop import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.cli.journal import Journal
    from dspex_pool.cli.plan import Files
    from dspex_pool.cli.problems import ExitCode
    from dspex_pool.cli.program import LmChoice, ProgramChoice
    from dspex_pool.cli.records import Fingerprint
    from dspex_pool.cli.rows import InputFile, Survey
    from dspex_pool.cli.run import RowRunner
    from dspex_pool.cli.screen import Screen
    from dspex_pool.cli.summary import Tally
    from dspex_pool.config import PoolConfig

__all__ = ["Drain", "Execution", "OpenRunner", "Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is going to do. Nothing is started and nothing is written yet."""

    #: The input, checked from end to end.
    source: InputFile
    #: What is in it.
    survey: Survey
    #: The program.
    program: ProgramChoice
    #: The language model.
    lm: LmChoice
    #: Where the results go.
    files: Files
    #: What of an earlier run is run now; ``None`` for a run from the start.
    selection: Selection | None
    #: What the journal must belong to.
    fingerprint: Fingerprint
    #: Field that names the row's session.
    session_field: str | None
    #: Field with the expected answer.
    expected_field: str | None
    #: Seconds that a row has once a worker has it, or ``None``.
    row_timeout: float | None

    def job(self, in_flight: int) -> Job:
        """Return what is to be done with each row."""
        named = {"id", self.session_field, self.expected_field}
        return Job(
            program=self.program,
            in_flight=in_flight,
            session_field=self.session_field,
            expected_field=self.expected_field,
            no_inputs=frozenset(name for name in named if name is not None),
        )


#: Opens the pool: ``open_runner(plan, config, on_restart)``, where ``on_restart(reason)`` is called for each
#: worker that is replaced.
OpenRunner: TypeAlias = (
    "Callable[[Plan, PoolConfig, Callable[[str], None]], AbstractAsyncContextManager[RowRunner]]"
)


@dataclass(kw_only=True)
class Drain(Stop):
    """Stops rows in two steps: the first signal lets those finish that run, any other ends everything at once."""

    #: Tells the user.
    say: Callable[[str], None]
    #: The rows, once they run.
    rows: RowsRun | None = None

    def request(self, number: int) -> None:
        """Take a signal: the first drains, if there is anything to drain, any other ends the run at once."""
        if self.number is not None:
            self.say("stopping at once; rows that were running stay missing")
            self.scope.cancel()
            return
        self.number = number
        running = self.rows.running if self.rows is not None else 0
        if self.rows is None or not running:
            self.say("stopping")
            self.scope.cancel()
            return
        self.rows.is_stopping = True
        rows = "1 running row" if running == 1 else f"{running} running rows"
        self.say(f"stopping: no new rows, waiting for {rows}; Ctrl-C again stops at once")


@dataclass
class Execution:
    """A plan while it is carried out."""

    plan: Plan
    #: The pool's settings, fitted to the run.
    config: PoolConfig
    #: The books; rows of an earlier run are in them already.
    tally: Tally
    screen: Screen
    open_runner: OpenRunner
    journal: Journal | None = None
    is_verbose: bool = False
    _stop: Drain = field(init=False)
    _began: float | None = field(default=None, init=False)
    _ended: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._stop = Drain(say=self.screen.say)

    @property
    def stopped_by(self) -> ExitCode | None:
        """The exit status of the signal that stopped the run, if one did."""
        return None if self._stop.number is None else CODES[self._stop.number]

    @property
    def elapsed(self) -> float:
        """Seconds from the first row to now, or to the last."""
        if self._began is None:
            return 0.0
        return (time.monotonic() if self._ended is None else self._ended) - self._began

    def carry_out(self) -> None:
        """Run the rows until all are recorded or a signal ends it. For the main thread.

        Raises:
            CliError: The program cannot be built, or a file cannot be written.
            DspexPoolError: The pool could not start, or lost its workers for good.
        """
        with suppress(Stopped):
            self._stop.run(self._run)

    async def _run(self) -> None:
        async with trio.open_nursery() as background:
            background.start_soon(self._show_progress)
            if self.journal is not None:
                background.start_soon(sync_journal, self.journal)
            await self._run_rows()
            background.cancel_scope.cancel()

    async def _run_rows(self) -> None:
        in_flight = in_flight_limit(self.config.pool_size)
        async with (
            self.open_runner(self.plan, self.config, self._on_restart) as runner,
            self._stdout_lines(in_flight) as lines,
        ):
            rows = RowsRun(
                self.plan.job(in_flight),
                runner,
                Sessions(runner, self.plan.survey.sessions),
                Recorder(self.tally, self.journal, lines).record,
                self._wants,
            )
            await rows.prepare()
            self._stop.rows = rows
            self._began = time.monotonic()
            try:
                await rows.run(self.plan.source.rows())
            finally:
                self._ended = time.monotonic()
                self.screen.show(self.tally, self.elapsed)

    def _wants(self, line: int) -> bool:
        if self.journal is None or self.plan.selection is None:
            return True
        return self.plan.selection.wants(self.journal.marks.get(line))

    def _on_restart(self, reason: str) -> None:
        self.tally.restarts[reason] += 1
        if self.is_verbose:
            self.screen.say(f"a worker was replaced: {reason}")

    async def _show_progress(self) -> None:
        while True:
            self.screen.show(self.tally, self.elapsed)
            await trio.sleep(self.screen.period)

    @asynccontextmanager
    async def _stdout_lines(self, size: int) -> AsyncIterator[trio.MemorySendChannel[bytes] | None]:
        if self.plan.files.output != STDOUT:
            yield None
            return
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[bytes](size)
            nursery.start_soon(write_stdout, receive)
            async with send:
                yield send
