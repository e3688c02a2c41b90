"""How sessions end: every worker forgets them, the store has what was committed, and nothing else is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.errors import (
    ProgramNotFoundError,
    SessionExpiredError,
    SessionLimitError,
)
from dspex_pool.session_store import MemorySessionStore
from tests.session_workers import (
    CREATE,
    CannedWorkers,
    EventLog,
    execute,
    open_sessions,
    slow,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.trio
async def test_session_expires_when_it_is_not_used(autojump_clock: MockClock) -> None:
    """Time runs from the end of the last use, however long that took; expiry is told to store and workers.

    [property 102]
    """
    workers, store, log = CannedWorkers(), MemorySessionStore(), EventLog()
    settings: dict[str, Any] = {"session_ttl": 10.0, "max_sessions": 2, "pool_size": 1}
    async with open_sessions(workers, store=store, telemetry=log.telemetry, **settings) as pool:
        for session_id in ("s", "busy"):
            await pool.execute_in_session(session_id, *CREATE)
        processes = [port.incarnation for port in workers.live]
        workers.intercept = slow("execute_program", 60.0)
        assert await execute(pool, "busy") == {"b"}
        workers.intercept = lambda port, request: None
        await trio.sleep(9)
        with pytest.raises(SessionExpiredError, match="after 69 s") as info:
            await execute(pool, "s")
        assert info.value.idle == pytest.approx(69)
        assert await execute(pool, "busy") == {"b"}
        with pytest.raises(SessionExpiredError):
            await pool.execute_in_session("s", "list_programs")
        assert workers.holding("s") == [], "it was cleaned before the next command"
        await pool.execute_in_session("s", "create_program", {"id": "p", "signature": "a -> c"})
        assert await execute(pool, "s") == {"c"}
        with pytest.raises(SessionLimitError, match="2 sessions live already"):
            await pool.execute_in_session("third", "configure_lm", {"model": "m/1"})
        assert [port.incarnation for port in workers.live] == processes
        assert len(log.of("session_expired")) == 1
        await trio.sleep(11)
        await pool.execute_in_session("third", "configure_lm", {"model": "m/1"})
        with trio.move_on_after(1.5 * pool.config.monitor_interval):
            await pool.keep_house()
        assert [record.id for record in await store.load_all()] == ["third"]
    assert log.problems == []


@pytest.mark.trio
async def test_session_expires_with_the_last_moment_of_its_time(autojump_clock: MockClock) -> None:
    """The time to live is over when it has passed, and not only after it; of whoever began later it is not."""
    workers = CannedWorkers()
    async with open_sessions(workers, session_ttl=16.0, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        used = trio.current_time()
        await trio.sleep_until(used + 0.25)
        await pool.execute_in_session("later", *CREATE)
        await trio.sleep_until(used + 16.0)
        with pytest.raises(SessionExpiredError, match="after 16 s"):
            await execute(pool, "s")
        assert await execute(pool, "later") == {"b"}
        await pool.end_session("s")
        with pytest.raises(ProgramNotFoundError):
            await execute(pool, "s")


class GatedStore(MemorySessionStore):
    """Makes changes one after the other, while the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = trio.Event()
        self.gate.set()
        self._turn = trio.StrictFIFOLock()

    async def _begin(self) -> None:
        async with self._turn:
            await self.gate.wait()
            await super()._begin()


@pytest.mark.trio
async def test_session_that_begins_anew_while_its_expired_one_is_ended_is_let_alone(
    autojump_clock: MockClock,
) -> None:
    """Its worker keeps what it has, and is told nothing: the end was another's."""
    workers, store = CannedWorkers(), GatedStore()
    async with open_sessions(workers, store=store, session_ttl=10.0, pool_size=1) as pool:
        await pool.execute_in_session("s", *CREATE)
        await trio.sleep(11.0)
        with pytest.raises(SessionExpiredError):
            await execute(pool, "s")
        store.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.end_session, "s")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(pool.execute_in_session, "s", "configure_lm", {"model": "m/1"})
            await trio.testing.wait_all_tasks_blocked()
            workers.heard.clear()
            store.gate.set()
        await pool.execute_in_session("s", "ping")
        assert workers.heard == ["w-1 ping"]
        assert [record.id for record in await store.load_all()] == ["s"]
