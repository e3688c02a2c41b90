"""The front door, on every kind of port: it keeps its services running, and closes in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.errors import PoolClosedError, PoolFailedError, SessionStoreError
from dspex_pool.telemetry import Telemetry
from tests.bounded_waits import until
from tests.front_door import TalkativeStore, supervise
from tests.pool.sessions import Workers
from tests.session_workers import CREATE, EventLog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dspex_pool.supervisor import PoolSupervisor
    from dspex_testkit.ports.run import MakePool

pytestmark = pytest.mark.ports("all")


async def test_services_that_fail_are_started_again(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool serves on while its monitor and its housekeeping fail now and then, and says so."""
    workers, log = Workers(make_pool), EventLog()
    async with supervise(workers.ports, telemetry=log.telemetry, monitor_interval=0.05) as supervisor:
        pool = supervisor.pool
        await pool.execute_in_session("s", *CREATE)
        left = [RuntimeError("first"), RuntimeError("second")] * 2

        def fail(*_: object) -> None:
            if left:
                raise left.pop(0)

        setattr(pool, "_expire", fail)  # noqa: B010 - mypy takes no assignment to a method
        setattr(pool.workers, "measure_memory", fail)  # noqa: B010 - the same
        await until(lambda: left == [], "both have failed as often as they were to")
        assert (await pool.execute_in_session("t", *CREATE)).attempts == 1
    restarted = [log.of("monitor_restarted"), log.of("service_restarted")]
    assert sum(len(events) for events in restarted) == 4
    assert {event["reason"] for events in restarted for event in events} == {
        "RuntimeError: first",
        "RuntimeError: second",
    }
    assert {event["service"] for event in log.of("service_restarted")} == {"housekeeping"}
    assert log.problems == []
    assert caplog.text.count("Traceback") == 4


async def test_service_that_fails_again_and_again_closes_the_pool(make_pool: MakePool) -> None:
    """Beyond the limit all who wait are told, the block is cancelled, and the error names service and cause."""
    workers, log, outcomes = Workers(make_pool), EventLog(), []
    store = TalkativeStore(workers)

    async def wait_for_a_worker(supervisor: PoolSupervisor) -> None:
        try:
            await supervisor.pool.execute_anonymous("ping")
        except PoolClosedError as error:
            outcomes.append(error)

    async def serve(nursery: trio.Nursery) -> None:
        settings: dict[str, Any] = {"pool_size": 1, "store": store, "monitor_interval": 0.05}
        async with supervise(workers.ports, telemetry=log.telemetry, **settings) as supervisor:
            await supervisor.pool.execute_in_session("s", *CREATE)
            async with supervisor.pool.workers.checkout():
                nursery.start_soon(wait_for_a_worker, supervisor)
                store.failure = RuntimeError("out of its mind")
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with pytest.raises(PoolFailedError, match=r"more than 3 times within 60 s.*out of its mind") as info:
            await serve(nursery)
    assert (info.value.service, type(info.value.__cause__)) == ("housekeeping", RuntimeError)
    assert len(outcomes) == 1
    assert len(log.of("service_restarted")) == 3, "it is not said to be started again when it is not"
    assert (workers.live, store.closings) == ([], [0])


async def test_closing_ends_services_then_workers_then_the_store(make_pool: MakePool) -> None:
    """The store is closed last and once; an error of the block leaves as it is, whatever the store says."""
    telemetry = Telemetry()

    async def serve(error: Exception | None, failure: Exception | None) -> None:
        workers = Workers(make_pool)
        store = TalkativeStore(workers)
        try:
            async with supervise(workers.ports, store=store, telemetry=telemetry) as supervisor:
                await supervisor.pool.execute_in_session("s", *CREATE)
                assert telemetry.observed
                store.failure = failure
                if error is not None:
                    raise error
        finally:
            assert (workers.live, store.closings, telemetry.observed) == ([], [0], False)

    for failure in (None, SessionStoreError("the disk is full")):
        await serve(None, failure)
        with pytest.raises(KeyError, match="mine"):
            await serve(KeyError("mine"), failure)


async def test_second_opening_is_refused_and_harms_nothing(make_pool: MakePool) -> None:
    """Entered again, a session pool closed the store under itself, and a supervisor lost the pool that it had."""
    workers = Workers(make_pool)
    store = TalkativeStore(workers)
    async with supervise(workers.ports, store=store) as supervisor:
        pool = supervisor.pool
        for opened in (supervisor, pool):
            with pytest.raises(PoolClosedError, match="twice"):
                await opened.__aenter__()
        assert supervisor.pool is pool
        assert (await pool.execute_in_session("s", *CREATE)).attempts == 1
        assert store.closings == []
    for opened in (supervisor, pool):
        with pytest.raises(PoolClosedError, match="twice"):
            await opened.__aenter__()
    assert (workers.live, store.closings) == ([], [0])


class HangingStore(TalkativeStore):
    """Never gets done with saving uses."""

    async def touch(self, uses: Iterable[tuple[str, float]]) -> None:
        """Hang."""
        await trio.sleep_forever()


async def test_store_that_hangs_does_not_keep_the_pool_from_closing(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """The last saving had no bound and heard of no cancellation: the pool never closed."""
    workers = Workers(make_pool)
    store, bounds = HangingStore(workers), {"terminate_grace": 0.5, "close_timeout": 1.0}
    with trio.fail_after(30):
        async with supervise(workers.ports, store=store, **bounds) as supervisor:
            await supervisor.pool.execute_in_session("s", *CREATE)
            begun = trio.current_time()
    assert 1.0 <= trio.current_time() - begun < 5.0
    assert (workers.live, store.closings) == ([], [0])
    assert "the last uses of sessions are not in the store: it took longer than 1 s" in caplog.text
