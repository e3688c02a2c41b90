"""Ctrl-C in two steps: the first lets running rows finish, the second ends everything at once."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from dspex_pool.cli.problems import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.cli.run import RowsRun

__all__ = ["Stop", "watch_signals"]

#: The exit status for each signal that stops a run.
CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


@dataclass
class Stop:
    """What a run does when it is asked to stop."""

    #: Ends everything at once: the pool and the rows.
    end: Callable[[], None]
    #: Tells the user.
    say: Callable[[str], None]
    #: The rows, once they run.
    rows: RowsRun | None = None
    #: The exit status of the first signal; ``None`` while there was none.
    code: ExitCode | None = None

    def request(self, number: int) -> None:
        """Take a signal: the first drains, if there is anything to drain, any other ends the run at once."""
        if self.code is not None:
            self.say("stopping at once; rows that were running stay missing")
            self.end()
            return
        self.code = CODES[signal.Signals(number)]
        running = self.rows.running if self.rows is not None else 0
        if self.rows is None or not running:
            self.say("stopping")
            self.end()
            return
        self.rows.is_stopping = True
        rows = "1 running row" if running == 1 else f"{running} running rows"
        self.say(f"stopping: no new rows, waiting for {rows}; Ctrl-C again stops at once")


async def watch_signals(stop: Stop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Hand every SIGINT and SIGTERM to ``stop``. Runs until it is cancelled.

    Cancellation:
        The signals do again what they did before.
    """
    with trio.open_signal_receiver(*CODES) as signals:
        task_status.started()
        async for number in signals:
            stop.request(number)
