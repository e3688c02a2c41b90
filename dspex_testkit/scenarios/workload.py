"""What goes on while faults run: clients that call all the time, and record every call and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from dspex_testkit.history.record import Outcome
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_testkit.history.record import History
    from dspex_testkit.ports.handle import PoolHandle

__all__ = ["Clients"]


@dataclass(frozen=True, kw_only=True)
class Clients:
    """Clients with a session each, that make one call after the other, and one more when all is over."""

    #: How many.
    count: int = 8
    #: What they ask for; each call has a ``nonce`` of its own among its arguments.
    command: str = "sleep"
    #: Further arguments.
    args: Mapping[str, Any] = field(default_factory=dict)
    #: Seconds of work that a call asks for at most; it is drawn.
    work: float = 0.03
    #: Seconds that a client takes at most after a call that failed; it is drawn.
    pause: float = 0.02
    #: Options of each call, such as ``timeout``.
    options: Mapping[str, Any] = field(default_factory=dict)

    async def run(self, pool: PoolHandle, history: History, *, seed: int, is_over: trio.Event) -> None:
        """Call until it is over, and once more.

        Cancellation: All clients leave; their calls count as ended in an unknown way.
        """
        async with trio.open_nursery() as nursery:
            for number in range(self.count):
                nursery.start_soon(self._call, pool, history, number, seed, is_over)

    async def _call(
        self, pool: PoolHandle, history: History, number: int, seed: int, is_over: trio.Event
    ) -> None:
        client, turn, is_last = f"client-{number}", 0, False
        numbers = random_of(seed, client)
        while not is_last:
            is_last = is_over.is_set()
            args = {**self.args, "nonce": f"{client}/{turn}", "seconds": numbers.uniform(0, self.work)}
            operation = await history.call(pool, client, self.command, args, client=client, **self.options)
            turn += 1
            if operation.outcome is not Outcome.OK:
                await trio.sleep(numbers.uniform(0, self.pause))
