"""SIGINT and SIGTERM for what runs under trio: the first cancels it."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from dspex_pool.cli.signals import Stopped, handle_signals, ignore_signals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

__all__ = ["Stop"]

T = TypeVar("T")


@dataclass(kw_only=True)
class Stop:
    """Runs something under trio until it ends or a signal ends it. For one run."""

    #: What else the user should know if a signal ends it.
    advice: str = ""
    #: The first signal that came; ``None`` while there was none.
    number: int | None = None
    #: What a signal ends.
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _token: trio.lowlevel.TrioToken | None = field(default=None, init=False)
    _early: list[int] = field(default_factory=list, init=False)

    def request(self, number: int) -> None:
        """Take a signal: the first ends the run, and others change nothing."""
        if self.number is None:
            self.number = number
            self.scope.cancel()

    def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run ``function`` under trio. For the main thread.

        Afterwards signals do again what they did before, unless one has come: then the program is about to end, and
        more of them are ignored.

        Raises:
            Stopped: A signal came. ``function`` was cancelled and has ended.
        """
        before = handle_signals(self._take)
        try:
            result = trio.run(self._run, function)
        finally:
            if self.number is None:
                for number, handler in before.items():
                    signal.signal(number, handler)
            else:
                ignore_signals()
        if self.number is not None:
            raise Stopped(self.number, self.advice)
        # It is only missing where the scope was cancelled.
        return cast("T", result)

    async def _run(self, function: Callable[[], Awaitable[T]]) -> T | None:
        self._token = trio.lowlevel.current_trio_token()
        for number in self._early:
            self.request(number)
        with self.scope:
            return await function()
        return None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._token is None:
            self._early.append(number)
            return
        try:
            # Between two steps of tasks, not in the middle of one.
            self._token.run_sync_soon(self.request, number)
        except trio.RunFinishedError:
            self.number = self.number or number
