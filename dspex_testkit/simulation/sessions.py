"""The simulated world from the top: supervisor, sessions, monitor and adapter above the same simulated workers.

Calls belong to sessions that hold a program, so workers are told of programs before they run one, forget them when
they die, and a call may move to another worker. What is checked of a call is therefore coarser than for a worker
pool: it ends once, in its own answer or an error that the faults of its run allow.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.adapters.python_pool import PythonPool
from dspex_pool.errors import DspexPoolError, ProgramExistsError
from dspex_pool.session_store import MemorySessionStore
from dspex_testkit.report.recorder import LENT
from dspex_testkit.seeds import random_of
from dspex_testkit.simulation.faults import GRID
from dspex_testkit.simulation.outcomes import BrokenPromiseError
from dspex_testkit.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dspex_testkit.simulation.outcomes import Outcome
    from dspex_testkit.simulation.workload import Call

__all__ = ["SessionWorld"]

#: Sessions that have a program; session 0 is nobody's.
SESSIONS = ("s-1", "s-2", "s-3")


class SessionWorld(World):
    """One simulated run of a ``PythonPool``; for ``explore(world=SessionWorld)``."""

    #: The adapter, from the moment that the world is open.
    adapter: PythonPool

    @contextlib.asynccontextmanager
    async def _open_pool(self) -> AsyncIterator[None]:
        settings = {"session_ttl": None, "monitor_interval": 5.0} | self.settings
        async with PythonPool.open(
            ports=self.workers, store=MemorySessionStore(), telemetry=self.telemetry, **settings
        ) as self.adapter:
            self.pool = self.adapter.sessions.workers
            # The supervisor has no argument for it, since only a run that is to be had again needs one.
            self.pool._state._starts._random = random_of(self.case.seed, "pool")
            for session in SESSIONS:
                await self._create_program(session)
            yield

    async def _create_program(self, session: str) -> None:
        """Begin a session."""
        while True:
            try:
                await self.adapter.session_adapter(session).create_program("p", "question -> answer")
            except ProgramExistsError:
                return
            except DspexPoolError:
                await trio.sleep(GRID)
            else:
                return

    async def _borrow(self, call: Call, outcome: Outcome) -> None:
        outcome.is_coarse = True
        session, command = (
            ("anonymous", "work") if not call.session else (f"s-{call.session}", "execute_program")
        )
        for ask in range(call.more + 1):
            args = {
                "program_id": "p",
                "inputs": {},
                "call": call.number,
                "ask": ask,
                "work": call.work * GRID,
            }
            reply = await self.adapter.call(session, command, args, timeout=call.limit)
            if reply.result != {"call": call.number, "ask": ask}:
                raise BrokenPromiseError(f"call {call.number} got the answer {reply.result}")

    def _check_holder(self, worker: int, number: int) -> None:
        """Take down who has the worker; whose lease it is nobody here knows, but the pool lends and takes back."""
        self.recorder.entries.append((trio.current_time(), LENT, 0, number, worker))

    def _note_event(self, event: tuple[str, ...], measurements: Any, metadata: Any) -> None:
        super()._note_event(event, measurements, metadata)
        name, worker = event[-1], metadata.get("incarnation")
        if name == "checkout":
            if worker in self._lent:
                self._accuse(BrokenPromiseError(f"worker {worker} is lent to two callers"))
            self._lent.add(worker)
        elif name in ("checkin", "worker_retiring"):
            self._lent.discard(worker)
