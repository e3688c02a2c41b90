"""A mock port whose attendant sleeps through requests and answers: they are a quarter of a simulated run.

The mock port wakes whoever attends at every change. Here somebody who receives moves the worker on, and wakes the
attendant when the worker has ended; while nobody receives, the attendant's own alarm does. Sending sets no alarm: who
sends receives next, or is cancelled in it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from dspex_testkit.mock_port import MockPort

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import ExitStatus

__all__ = ["QuietPort"]


class QuietPort(MockPort):
    """One simulated worker."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._attendant = trio.lowlevel.ParkingLot()
        self._alarm = trio.CancelScope()
        #: Is told each frame that was received.
        self.on_answer: Callable[[bytes], object] = len

    def _set_alarm(self) -> None:
        if self.model.has_ended:
            self._attendant.unpark_all()
        due = math.inf if self._receiving else self.model.next_wakeup
        if self._alarm.deadline != due:
            self._alarm.deadline = due

    def die(self, *, code: int | None = None, signal: int | None = None) -> None:
        """End the worker now, by itself; without arguments with status 1."""
        super().die(code=code, signal=signal)
        self._set_alarm()

    def _signal(self, name: str, act: Callable[[float], None]) -> None:
        super()._signal(name, act)
        self._set_alarm()

    def go_on(self) -> None:
        """Undo ``accept_only``, ``stop_reading`` and ``stop``."""
        super().go_on()
        self._set_alarm()

    def _pull(self) -> None:
        super()._pull()
        if self._ended:
            self._attendant.unpark_all()

    async def receive(self) -> bytes:
        """Return the payload of the next frame; see ``MockPort.receive``.

        Cancellation: Loses nothing.
        """
        try:
            if self._alarm.deadline != math.inf:
                self._alarm.deadline = math.inf
            payload = await super().receive()
        finally:
            self._set_alarm()
        self.on_answer(payload)
        return payload

    async def attend(self) -> ExitStatus:
        """Wait until the worker has ended, and reap it; see ``MockPort.attend``.

        Cancellation: The worker stays as it is.
        """
        self._attending = True
        try:
            await trio.lowlevel.checkpoint()
            while not self.model.has_ended:
                with trio.CancelScope() as self._alarm:
                    self._set_alarm()
                    await self._attendant.park()
                self.model.advance(trio.current_time())
        finally:
            self._attending = False
        return await super().attend()
