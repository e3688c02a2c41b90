"""The scenario of a program that is killed with its pool: no worker outlives it, and its sessions are found again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from dspex_testkit.children.pool_host import TENANTS
from dspex_testkit.scenarios.lives import Lives
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.scenarios.performance import Performance

__all__ = ["ParentKilled"]


@dataclass(frozen=True, kw_only=True)
class ParentKilled(Scenario):
    """Kills a program of its own that has a pool with sessions in a file, and opens a pool on the same file."""

    async def play(self, performance: Performance) -> None:
        """Kill the program while it works on programs in sessions; then see that all are there, and run.

        Raises:
            AssertionError: A worker outlives it.

        Cancellation: The program is killed, and the pool is closed.
        """
        numbers = random_of(performance.plan.seed, f"{self.name} lives")
        with tempfile.TemporaryDirectory(prefix="dspex-parent-") as folder:
            store = Path(folder) / "sessions.db"
            lives = Lives(store, numbers, performance.history)
            while not lives.had_told:
                await lives.live()
                performance.proofs.append("the parent ended by SIGKILL")
            async with performance.pool(session_store=f"sqlite:{store}") as pool:
                await self._run_what_is_left(performance, pool)
                await performance.heal(pool, since=trio.current_time())

    @staticmethod
    async def _run_what_is_left(performance: Performance, pool: PoolHandle) -> None:
        call = performance.history.call
        for session in (f"tenant-{number}" for number in range(TENANTS)):
            listed = await call(pool, session, "list_programs", client="heir")
            for program in listed.value["programs"]:
                args = {"program_id": program["id"], "inputs": {"question": "still there?"}}
                await call(pool, session, "execute_program", args, client="heir")
