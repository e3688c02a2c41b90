"""Crowds: ten thousand sessions, a thousand callers before the first worker is there, callers who give up."""

from __future__ import annotations

import gc
import statistics
from typing import TYPE_CHECKING, Final

import psutil
import pytest
import trio

from dspex_pool import PythonPool
from dspex_pool.errors import SessionLimitError
from dspex_testkit.ports.names import DEFAULT_HANDLER
from tests.bounded_waits import until
from tests.stress.loads import ECHO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

pytestmark = pytest.mark.stress

SESSIONS: Final = 10_000
WAITERS: Final = 1_000
#: Batches of so many waiters that give up.
BATCHES: Final = 100


async def in_turns(
    items: Iterable[int], work: Callable[[int], Awaitable[object]], *, callers: int = 16
) -> None:
    """Do some work for each item, by so many callers at a time."""
    left = iter(items)

    async def caller() -> None:
        for item in left:
            await work(item)

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)


@pytest.mark.trio
async def test_ten_thousand_sessions_keep_their_programs_apart() -> None:
    """As many sessions as may live, each with its own program; one more is refused until others end."""
    async with PythonPool.open(handler=DEFAULT_HANDLER, pool_size=4) as pool:

        async def begin(number: int) -> None:
            adapter = pool.session_adapter(f"s{number}")
            await adapter.create_program(f"p{number}", "question -> answer")

        async def use(number: int) -> None:
            adapter = pool.session_adapter(f"s{number}")
            listed = await adapter.list_programs()
            assert [program["id"] for program in listed["programs"]] == [f"p{number}"]
            await adapter.execute_program(f"p{number}", {"question": "?"})

        await in_turns(range(SESSIONS), begin)
        assert len(pool.sessions.session_ids()) == SESSIONS
        with pytest.raises(SessionLimitError):
            await begin(SESSIONS)
        await in_turns(reversed(range(SESSIONS)), use)
        for number in range(0, SESSIONS, 10):
            await pool.sessions.end_session(f"s{number}")
        await in_turns(range(SESSIONS, SESSIONS + SESSIONS // 10), begin)
        assert len(pool.sessions.session_ids()) == SESSIONS


@pytest.mark.trio
async def test_thousand_callers_before_the_first_worker_are_all_served() -> None:
    """Who comes while the pool starts waits for a worker, and no more workers are started than there may be."""
    answered: list[int] = []
    async with PythonPool.open(handler=ECHO, pool_size=4) as pool:
        assert pool.statistics().ready == 0

        async def caller(number: int) -> None:
            reply = await pool.call(f"s{number}", "echo", {"number": number})
            answered.append(reply.result["number"])

        async with trio.open_nursery() as nursery:
            for number in range(WAITERS):
                nursery.start_soon(caller, number)
        counters = pool.statistics().counters
    assert sorted(answered) == list(range(WAITERS))
    assert (counters.starts, counters.granted) == (4, WAITERS)


@pytest.mark.trio
async def test_hundred_thousand_waiters_that_give_up_leave_nothing() -> None:
    """Waiters that are cancelled in line are forgotten: memory is flat, and the line is empty."""
    parent, seen = psutil.Process(), []
    async with PythonPool.open(handler=ECHO, pool_size=1) as pool:
        async with pool.sessions.workers.checkout():
            for _ in range(BATCHES):
                await give_up(pool)
                gc.collect()
                seen.append(parent.memory_info().rss)
        assert pool.statistics().counters.cancelled == BATCHES * WAITERS
        assert (await pool.call("s", "echo", {"still": "well"})).result["still"] == "well"
    before, after = statistics.median(seen[10:20]), statistics.median(seen[-10:])
    print(f"\n{before / 1e6:.2f} MB after 15 000 waiters, {after / 1e6:.2f} MB after 95 000")
    assert after < 1.01 * before


async def give_up(pool: PythonPool) -> None:
    """Have a thousand callers stand in line, and cancel them."""
    async with trio.open_nursery() as nursery:
        for number in range(WAITERS):
            nursery.start_soon(pool.call, f"s{number}", "echo")
        await until(lambda: pool.statistics().waiting == WAITERS, "all stand in line")
        nursery.cancel_scope.cancel()
    assert pool.statistics().waiting == 0
