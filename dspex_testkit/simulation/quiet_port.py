"""A mock port whose attendant sleeps through requests and answers: they are a quarter of a simulated run.

The mock port wakes whoever attends at every change, and lets each who waits keep the time. Here one alarm of the port
moves the worker on, and wakes those whom it concerns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from dspex_testkit.mock_port import MockPort
from dspex_testkit.trio_seam import Alarm

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_pool.transport.port import ExitStatus

__all__ = ["QuietPort"]


class QuietPort(MockPort):
    """One simulated worker."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._attendant = trio.lowlevel.ParkingLot()
        self._alarm = Alarm(self._move_on)
        #: Is told each frame that was received.
        self.on_answer: Callable[[bytes], object] = len

    def _move_on(self) -> None:
        """Do what is due, and tell those who wait for it."""
        self.model.advance(trio.current_time())
        self._changed.unpark_all()
        self._look_ahead()

    def _look_ahead(self) -> None:
        self._alarm.set(self.model.next_wakeup)
        if self.model.has_ended:
            self._attendant.unpark_all()

    def die(self, *, code: int | None = None, signal: int | None = None) -> None:
        """End the worker now, by itself; without arguments with status 1."""
        super().die(code=code, signal=signal)
        self._look_ahead()

    def go_on(self) -> None:
        """Undo ``accept_only``, ``stop_reading`` and ``stop``."""
        super().go_on()
        self._look_ahead()

    def _signal(self, name: str, act: Callable[[float], None]) -> None:
        super()._signal(name, act)
        self._look_ahead()

    def _read(self, now: float) -> None:
        super()._read(now)
        self._look_ahead()

    async def _wait_for_change(self) -> None:
        await self._changed.park()

    async def receive(self) -> bytes:
        """Return the payload of the next frame; see ``MockPort.receive``.

        Cancellation: Loses nothing.
        """
        payload = await super().receive()
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
                await self._attendant.park()
        finally:
            self._attending = False
        return await super().attend()
