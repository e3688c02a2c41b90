"""Commands of sessions whose callers leave, at every step."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool.session_store import MemorySessionStore
from tests.cancel_at_step import CancelAtStep
from tests.session_workers import (
    CREATE,
    CannedWorkers,
    all_idle,
    execute,
    open_sessions,
    run_on,
    slow,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from dspex_pool.session_pool import SessionPool

pytestmark = pytest.mark.chaos

#: Commands that change a session, or tell a worker of it.
CHANGES: dict[str, dict[str, Any]] = {
    "load_program": {"program_id": "p", "definition": {"signature": "a -> c"}},
    "configure_lm": {"model": "m/2"},
    "execute_program": {"program_id": "p", "inputs": {"a": "x"}},
    "delete_program": {"program_id": "p"},
    "cleanup_session": {},
}


@pytest.mark.trio
async def test_create_cancelled_at_any_step_is_whole_or_not_at_all(autojump_clock: MockClock) -> None:
    """Wherever its caller was cancelled, a program is in the store or nowhere, and the id serves the next one."""
    workers, store = CannedWorkers(), MemorySessionStore()
    workers.intercept = slow("create_program")
    async with open_sessions(workers, store=store, pool_size=1) as pool:
        made = 0
        for step in itertools.count(1):
            session_id = f"s{step}"
            if step % 2:
                workers.kill_all()
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await pool.execute_in_session(
                        session_id, "create_program", {"id": "p", "signature": "a -> b"}
                    )
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            kept = {record.id: list(record.programs) for record in await store.load_all()}.get(session_id, [])
            listed = (await pool.execute_in_session(session_id, "list_programs")).result["programs"]
            assert [each["id"] for each in listed] == kept
            assert (session_id in pool.session_ids()) == bool(kept)
            if kept:
                made += 1
                await pool.execute_in_session(session_id, "delete_program", {"program_id": "p"})
            await pool.execute_in_session(session_id, "create_program", {"id": "p", "signature": "a -> c"})
            assert await execute(pool, session_id) == {"c"}
            if not scope.cancel_called:
                break
        assert 0 < made < step
    workers.assert_drained()


async def check_agreement(pool: SessionPool, workers: CannedWorkers, store: MemorySessionStore) -> None:
    """Check that whatever the store has of session ``s`` is what the pool tells and what every worker runs."""
    await all_idle(pool, 2)
    kept = {record.id: record for record in await store.load_all()}.get("s")
    programs = kept.programs if kept is not None else {}
    listed = (await pool.execute_in_session("s", "list_programs")).result["programs"]
    assert [each["id"] for each in listed] == list(programs)
    assert ("s" in pool.session_ids()) == (kept is not None)
    if kept is not None and "p" in programs:
        for worker_id in ("w-1", "w-2"):
            assert await run_on(pool, worker_id) == {programs["p"].definition["signature"][-1]}
            assert workers.bridge(worker_id).model_of("s") == (kept.lm or {})["model"]


@pytest.mark.trio
@pytest.mark.parametrize("command", CHANGES)
async def test_command_cancelled_at_any_step_leaves_store_and_workers_agreed(
    autojump_clock: MockClock, command: str
) -> None:
    """On a worker that knows the session or a new one: what was committed holds everywhere, and nothing else."""
    workers, store = CannedWorkers(), MemorySessionStore()
    workers.intercept = slow(command)
    async with open_sessions(workers, store=store) as pool:
        for step in itertools.count(1):
            await pool.execute_in_session("s", "configure_lm", {"model": "m/1"})
            await pool.execute_in_session("s", *CREATE)
            if step % 2:
                workers.kill_all()
            with trio.CancelScope() as scope:
                instrument = CancelAtStep(step, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await pool.execute_in_session("s", command, CHANGES[command])
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            await check_agreement(pool, workers, store)
            await pool.end_session("s")
            if not scope.cancel_called:
                break
        assert step > 1
