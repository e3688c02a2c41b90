"""Sessions while workers are killed and callers leave: what is acknowledged stays, and what is gone is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from dspex_pool.config import PoolConfig
from dspex_pool.errors import ProgramNotFoundError, WorkerDiedError
from dspex_testkit.children.pool_host import MOCK_WORKER
from tests.bounded_waits import until
from tests.chaos.fire import Killer, watched_pool

if TYPE_CHECKING:
    import random

    from dspex_pool.adapters.python_pool import PythonPool

pytestmark = pytest.mark.chaos

TENANTS, STEPS = 4, 60
PROGRAMS = ("p", "q", "r")
#: What a program may answer with; each version of it names another.
FIELDS = ("red", "blue", "green", "white")


class Tenant:
    """One session, used at random, and what it must hold."""

    def __init__(self, pool: PythonPool, number: int, random: random.Random) -> None:
        #: The output field of each program.
        self.programs: dict[str, str] = {}
        #: Commands that ended with a worker, and commands that this tenant left.
        self.hit, self.left = 0, 0
        self._adapter = pool.session_adapter(f"tenant-{number}")
        self._random = random

    async def run(self) -> None:
        """Use the session: make, replace, delete and run programs, and leave some commands unanswered."""
        acts = [self._make, self._make, self._delete, self._execute, self._execute, self._execute]
        for _ in range(STEPS):
            act, program_id = self._random.choice(acts), self._random.choice(PROGRAMS)
            patience = self._random.choice([20.0, 20.0, 20.0, self._random.uniform(0, 0.03)])
            try:
                with trio.move_on_after(patience) as scope:
                    await act(program_id)
                if scope.cancelled_caught:
                    assert patience < 20.0, "nobody answered"
                    self.left += 1
                    await self._learn()
                    # The worker that was left may be the one that is asked: it must know which version holds.
                    await self._execute(program_id)
            except WorkerDiedError:
                self.hit += 1

    async def check(self) -> None:
        """See that the session holds what it must, and that each program is the latest."""
        listed = await self._adapter.list_programs()
        assert {program["id"] for program in listed["programs"]} == self.programs.keys()
        for program_id in PROGRAMS:
            await self._execute(program_id)

    async def _make(self, program_id: str) -> None:
        field = self._random.choice(FIELDS)
        if program_id in self.programs:
            await self._adapter.load_program(program_id, {"signature": f"question -> {field}"})
        else:
            await self._adapter.create_program(program_id, f"question -> {field}")
        self.programs[program_id] = field

    async def _delete(self, program_id: str) -> None:
        if program_id in self.programs:
            await self._adapter.delete_program(program_id)
            del self.programs[program_id]

    async def _execute(self, program_id: str) -> None:
        if program_id not in self.programs:
            with pytest.raises(ProgramNotFoundError):
                await self._adapter.execute_program(program_id, {"question": "?"})
        else:
            reply = await self._adapter.execute_program(program_id, {"question": "?"})
            assert list(reply["outputs"]) == [self.programs[program_id]]

    async def _learn(self) -> None:
        """Ask what became of a command that was left: it was kept, or it was not."""
        listed = await self._adapter.list_programs()
        there = {program["id"] for program in listed["programs"]}
        self.programs = {
            program_id: (await self._adapter.get_program_info(program_id))["signature"].rpartition(" ")[2]
            for program_id in sorted(there)
        }


@pytest.mark.trio
async def test_sessions_keep_what_was_acknowledged(dspex_random: random.Random) -> None:
    """Four tenants, three workers, kills and callers that leave: no session differs from what it was told."""
    command = (*MOCK_WORKER, "--delay", "*=0.01")
    config = PoolConfig(pool_size=3, command=command, backoff_min=0.05, backoff_max=0.2, cancel_grace=1.0)
    async with watched_pool(config) as (pool, ledger):
        killer = Killer(pool, dspex_random)
        tenants = [Tenant(pool, number, dspex_random) for number in range(TENANTS)]
        async with trio.open_nursery() as rage:
            rage.start_soon(lambda: killer.rage(pause=(0.1, 0.2), spare=1))
            async with trio.open_nursery() as nursery:
                for tenant in tenants:
                    nursery.start_soon(tenant.run)
            rage.cancel_scope.cancel()
        await killer.wait_reaped()
        for tenant in tenants:
            await tenant.check()
        await until(lambda: pool.statistics().idle == 3, "the pool is whole")
    killer.check_proof()
    assert sum(tenant.hit for tenant in tenants) + ledger.events["call_retry"], "no command was hit"
    assert sum(tenant.left for tenant in tenants), "no command was left"
    assert any(tenant.programs for tenant in tenants)
