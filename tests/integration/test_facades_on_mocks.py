"""The facades on mock workers: same methods, own errors, leaving early, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import itertools
import signal
import sys
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trio

import dspex_pool
from dspex_pool.adapters import Adapter, PythonPool
from dspex_pool.errors import (
    InvalidConfigError,
    PoolClosedError,
    PoolFailedError,
    ProgramError,
    ProgramNotFoundError,
    SessionStoreError,
    WorkerDiedError,
)
from dspex_pool.facades import AsyncioAdapter, AsyncioPool, SyncAdapter, SyncPool
from dspex_pool.session_store import MemorySessionStore
from dspex_pool.telemetry import PREFIX
from dspex_testkit.plan import CommandFailedError, Plan
from tests.mock_facades import SIGNATURE, Stuck, asyncio_pool, mock_ports, sync_pool

if TYPE_CHECKING:
    from collections.abc import Iterator


COROUTINES = sorted(name for name, value in vars(Adapter).items() if inspect.iscoroutinefunction(value))


class FailingStore(MemorySessionStore):
    """A store whose disk is full, or that fails in another way."""

    def __init__(self, *methods: str, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error if error is not None else SessionStoreError("no space left on device")
        self.fail(*methods)

    def fail(self, *methods: str) -> None:
        """Fail in these methods from now on."""
        for name in methods:
            setattr(self, name, self._fail)

    async def _fail(self, *args: object) -> Any:
        raise self._error


# --- the blocking facade ---------------------------------------------------------------------------------


def test_sync_adapter_has_every_method_of_the_adapter_with_its_parameters() -> None:
    """Whoever knows the adapter knows the facade: same names, same parameters, no coroutine among them."""
    for name in COROUTINES:
        blocking, original = getattr(SyncAdapter, name), getattr(PythonPool, name)
        assert not inspect.iscoroutinefunction(blocking), name
        assert list(inspect.signature(blocking).parameters) == list(inspect.signature(original).parameters)
        assert blocking.__doc__ == original.__doc__


def test_sync_pool_answers_like_the_pool() -> None:
    """Programs are created, run and described by plain calls, in the session that the adapter speaks for."""
    with sync_pool() as pool:
        pool.wait_ready(2)
        tenant = pool.session_adapter("tenant")
        assert (tenant.session_id, pool.session_id) == ("tenant", "anonymous")
        tenant.create_program("p", SIGNATURE)
        assert tenant.execute_program("p", {"question": "who?"})["outputs"] == {"answer": "who?"}
        assert pool.list_programs()["total_count"] == 0
        assert pool.health_check() is True
        assert pool.call("tenant", "list_programs").result["total_count"] == 1
        assert pool.execute_anonymous("get_stats").worker_id is not None
        assert (pool.statistics().ready, pool.snapshot().healthy_workers) == (2, 2)
        assert pool.config.pool_size == 2


def test_sync_pool_runs_any_coroutine_of_the_pool() -> None:
    """What has no blocking method is run in the pool's thread, for the adapter's own session."""

    async def who(pool: PythonPool, *, mark: str) -> tuple[str, str, str]:
        return pool.session_id, mark, threading.current_thread().name

    with sync_pool() as pool:
        assert pool.session_adapter("s").run(who, mark="!") == ("s", "!", "dspex_pool")


def test_errors_come_through_as_they_are() -> None:
    """A failure has its own class and its facts, as under trio."""
    with sync_pool() as pool, pytest.raises(ProgramNotFoundError, match="ghost") as info:
        pool.session_adapter("s").execute_program("ghost", {})
    assert info.value.blame == "caller"


def test_wrong_setting_is_refused_before_anything_starts() -> None:
    """The constructor checks, so no thread is there to be closed."""
    for make in (SyncPool, AsyncioPool):
        with pytest.raises(InvalidConfigError, match="pool_size"):
            make(pool_size=0)
        with pytest.raises(InvalidConfigError, match="pol_size"):
            make(pol_size=1)


def test_threads_share_a_sync_pool() -> None:
    """Every thread gets its own answer."""
    with sync_pool() as pool, ThreadPoolExecutor(8) as threads:
        pool.create_program("p", SIGNATURE)
        questions = [f"q{number}" for number in range(32)]
        answers = threads.map(lambda text: pool.execute_program("p", {"question": text}), questions)
        assert [answer["outputs"]["answer"] for answer in answers] == questions


def test_sync_pool_is_used_inside_its_block_only() -> None:
    """Before, after and twice are one clear error each; closing twice is none."""
    pool = sync_pool()
    with pytest.raises(PoolClosedError, match="not open"):
        pool.ping()
    with pool:
        pool.ping()
        with pytest.raises(PoolClosedError, match="twice"):
            pool.open()
    pool.close()
    with pytest.raises(PoolClosedError, match="closed"):
        pool.ping()
    with pytest.raises(PoolClosedError, match="twice"):
        pool.open()
    never_open = sync_pool()
    never_open.close()
    with pytest.raises(PoolClosedError):
        never_open.open()


def test_second_opening_is_refused_and_harms_nothing() -> None:
    """Opening an open pool again ended it under everybody who used it, as if the first opening had failed."""
    with sync_pool() as pool:
        with pytest.raises(PoolClosedError, match="twice"):
            pool.open()
        assert pool.ping()["status"] == "ok"

    async def main() -> None:
        async with asyncio_pool() as pool:
            with pytest.raises(PoolClosedError, match="twice"):
                await pool.open()
            assert (await pool.ping())["status"] == "ok"

    asyncio.run(main())


def test_pool_without_a_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gave no thread, ``open`` waited for ever for the end of a run that had never begun."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, other = sync_pool(), asyncio_pool()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            pool.open()
        with pytest.raises(RuntimeError, match="new thread"):
            asyncio.run(other.open())
    pool.close()
    asyncio.run(other.aclose())


@pytest.mark.parametrize("is_begun", [False, True])
def test_interrupt_while_the_thread_starts_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, *, is_begun: bool
) -> None:
    """Ctrl-C that struck before the pool's thread ran made ``open`` wait for ever for the end of what never began."""
    start = threading.Thread.start

    def interrupt(thread: threading.Thread) -> None:
        if is_begun:
            start(thread)
        raise KeyboardInterrupt

    pool, other = sync_pool(), asyncio_pool()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.open()
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(other.open())
    pool.close()
    asyncio.run(other.aclose())
    with pytest.raises(PoolClosedError):
        pool.ping()


def test_pool_whose_run_could_not_begin_says_that_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trio itself could not begin, each later call was handed to a run that would never take it up."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    pool = sync_pool()
    with monkeypatch.context() as patch:
        patch.setattr(trio, "run", refuse)
        with pytest.raises(OSError, match="Too many"):
            pool.open()
    with pytest.raises(PoolClosedError, match="closed"):
        pool.ping()


def test_waiting_caller_hears_that_the_pool_closes() -> None:
    """A thread in line for a worker is refused at once; one with a worker loses it after the grace."""
    stuck = Stuck()
    with ThreadPoolExecutor(2) as threads:
        with sync_pool(mock_ports(stuck=stuck), pool_size=1, terminate_grace=0.01) as pool:
            served = threads.submit(pool.execute_anonymous, "stuck")
            assert stuck.arrived.wait(5)
            in_line = threads.submit(pool.ping)
            while not pool.statistics().waiting:
                assert not in_line.done()
        assert isinstance(in_line.exception(5), PoolClosedError)
        assert served.exception(5) is not None


def interrupt_main_thread() -> None:
    """Send Ctrl-C to the thread that runs the tests."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_interrupted_caller_leaves_and_the_pool_serves_on() -> None:
    """Ctrl-C ends the waiting call as a cancellation does: the same worker is stopped and serves the next."""
    stuck = Stuck()
    stuck.on_arrival = interrupt_main_thread
    ports = mock_ports(stuck=stuck)
    with sync_pool(ports, pool_size=1) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.execute_anonymous("stuck")
        assert pool.ping()["status"] == "ok"
    assert ports.started == 1
    assert ports.ports[0].signals[0] == "interrupt"


def test_signal_handler_may_close_what_its_thread_is_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of SIGTERM that closes the pool came in the last moment of its closing, and waited for itself."""
    is_alive = threading.Thread.is_alive

    def look_and_be_interrupted(thread: threading.Thread) -> bool:
        if thread.name == "dspex_pool" and not handled:
            handled.append(thread)
            signal.raise_signal(signal.SIGTERM)
        return is_alive(thread)

    handled: list[threading.Thread] = []
    before = signal.signal(signal.SIGTERM, lambda *_: pool.close())
    try:
        with sync_pool() as pool, monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "is_alive", look_and_be_interrupted)
            pool.close()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(handled) == 1


def test_interrupted_closing_ends_the_workers_at_once() -> None:
    """Ctrl-C while the pool waits for a worker to come back cuts it short; a call that comes then is refused."""
    stuck, late = Stuck(), Future[Any]()
    ports = mock_ports(stuck=stuck)
    pool = sync_pool(ports, pool_size=1).open()

    def come_late(*event: object) -> None:
        nonlocal late
        late = threads.submit(pool.ping)
        late.add_done_callback(lambda _: interrupt_main_thread())

    with ThreadPoolExecutor(2) as threads:
        served = threads.submit(pool.execute_anonymous, "stuck")
        assert stuck.arrived.wait(5)
        pool.telemetry.attach((*PREFIX, "closing"), come_late)
        with pytest.raises(KeyboardInterrupt):
            pool.close()
        assert isinstance(late.exception(5), PoolClosedError)
        assert isinstance(served.exception(5), PoolClosedError)
    pool.close()
    assert ports.live == []


def test_call_in_the_pools_own_thread_is_refused() -> None:
    """A telemetry handler that calls the pool would wait for itself; it is told so. ``map`` just waited."""
    errors: list[BaseException] = []

    def call_back(*event: object) -> None:
        for blocking in (pool.ping, pool.close, lambda: next(pool.map("p", [{}, {}, {}]))):
            try:
                blocking()
            except RuntimeError as error:
                errors.append(error)

    with sync_pool() as pool:
        with pool.telemetry.attach((*PREFIX, "checkout"), call_back):
            pool.ping()
        assert ["own thread" in str(error) for error in errors] == [True, True, True]


def test_failed_opening_raises_and_leaves_nothing() -> None:
    """The error of the opening is raised where the pool was to be opened."""
    broken = FailingStore("load_all")
    with pytest.raises(SessionStoreError, match="no space"):
        SyncPool(ports=mock_ports(), store=broken).open()

    async def main() -> None:
        with pytest.raises(SessionStoreError, match="no space"):
            await AsyncioPool(ports=mock_ports(), store=broken).open()

    asyncio.run(main())


@contextlib.contextmanager
def frail_pool(store: FailingStore, **answers: Any) -> Iterator[SyncPool]:
    """Open a pool of one worker, with a program, whose housekeeping fails for good when its store does."""
    pool = SyncPool(
        ports=mock_ports(**answers),
        store=store,
        pool_size=1,
        monitor_interval=0.005,
        max_restarts=0,
        terminate_grace=0.01,
    ).open()
    try:
        pool.create_program("p", SIGNATURE)
        yield pool
    finally:
        with contextlib.suppress(PoolFailedError):
            pool.close()


def fail(pool: SyncPool, store: FailingStore) -> None:
    """Have the housekeeping fail: a session is used that cannot be saved."""
    store.fail("touch", "count_executions")
    with contextlib.suppress(PoolClosedError):
        pool.list_programs()


def test_pool_that_fails_says_why_to_callers_and_once_at_its_end() -> None:
    """A pool whose housekeeping failed for good refuses calls with that reason, and its block ends with it."""
    store = FailingStore(error=RuntimeError("no space left for thought"))
    with frail_pool(store) as pool:
        pool.execute_program("p", {"question": "?"})
        fail(pool, store)
        pool._host._thread.join(5)
        with pytest.raises(PoolClosedError, match="no space left") as info:
            pool.ping()
        assert isinstance(info.value.__cause__, PoolFailedError)
        with pytest.raises(PoolFailedError, match="housekeeping"):
            pool.close()
        pool.close()


def test_caller_that_waits_while_the_pool_fails_hears_why() -> None:
    """Bug: a call under way, or one that came while the pool was ending, was told only that the pool is closed."""
    store, stuck = FailingStore(error=RuntimeError("no space left for thought")), Stuck()
    # The pool is left first: a thread that waits for a stuck worker would not end before.
    with ThreadPoolExecutor(2) as threads, frail_pool(store, execute_program=stuck) as pool:
        served = threads.submit(pool.execute_program, "p", {"question": "?"})
        assert stuck.arrived.wait(5)
        in_line = threads.submit(pool.ping)
        while not pool.statistics().waiting:
            assert not in_line.done()
        fail(pool, store)
        error = in_line.exception(5)
        assert isinstance(error, PoolClosedError)
        assert "no space left for thought" in str(error)
        assert isinstance(error.__cause__, PoolFailedError)
        assert isinstance(served.exception(5), WorkerDiedError)
        with pytest.raises(PoolFailedError, match="housekeeping"):
            pool.close()


def test_forgotten_pool_is_reported_and_ended() -> None:
    """A pool that nobody holds any more is a resource that was not closed."""
    ports = mock_ports()
    held = [sync_pool(ports).open()]
    held[0].wait_ready(2)
    thread = held[0]._host._thread
    with pytest.warns(ResourceWarning, match="not closed"):
        held.clear()
    thread.join(5)
    assert not thread.is_alive()
    assert ports.live == []


def test_forgotten_pool_is_ended_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the warning is raised, and came before the end of the pool, which lived on."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    ports = mock_ports()
    held = [sync_pool(ports).open()]
    thread = held[0]._host._thread
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held.clear()
    assert [type(each.exc_value) for each in told] == [ResourceWarning]
    told.clear()
    thread.join(5)
    assert not thread.is_alive()
    assert ports.live == []


# --- map ---------------------------------------------------------------------------------------------------


def refuse_odd(args: dict[str, Any]) -> dict[str, Any]:
    """Answer a question with itself; fail if it is an odd number."""
    number = args["inputs"]["question"]
    if number % 2:
        raise CommandFailedError(f"{number} is odd", type="ValueError")
    return {"program_id": "p", "outputs": {"answer": number}}


def test_map_gives_the_answers_in_the_order_of_the_rows() -> None:
    """All rows, one answer each, in order, however many workers there are."""
    with sync_pool() as pool:
        pool.create_program("p", SIGNATURE)
        rows = ({"question": f"q{number}"} for number in range(20))
        answers = [answer["outputs"]["answer"] for answer in pool.map("p", rows)]
    assert answers == [f"q{number}" for number in range(20)]


def test_map_raises_the_error_of_the_first_row_that_failed() -> None:
    """What came before is given, then the error is raised and no further row is run."""
    with sync_pool(mock_ports(execute_program=refuse_odd)) as pool:
        pool.create_program("p", SIGNATURE)
        answers = pool.map("p", ({"question": number} for number in itertools.count()))
        assert next(answers)["outputs"] == {"answer": 0}
        with pytest.raises(ProgramError, match="1 is odd"):
            next(answers)
        assert pool.ping()["status"] == "ok"


@pytest.mark.parametrize("return_exceptions", [True, False])
def test_map_gives_the_answers_that_came_before_the_pool_closed(*, return_exceptions: bool) -> None:
    """The row that was refused raised at once, and answers that were not given yet were lost."""
    with sync_pool() as pool:
        pool.create_program("p", SIGNATURE)

        def rows() -> Iterator[dict[str, Any]]:
            yield {"question": "early"}
            pool.close()  # waits for the call under way
            yield {"question": "late"}

        answers = pool.map("p", rows(), return_exceptions=return_exceptions)
        assert next(answers)["outputs"] == {"answer": "early"}
        if return_exceptions:
            assert [type(answer) for answer in answers] == [PoolClosedError]
        else:
            with pytest.raises(PoolClosedError):
                next(answers)


def test_map_gives_errors_in_place_of_answers_when_asked() -> None:
    """With ``return_exceptions`` a row that fails does not end the loop."""
    with sync_pool(mock_ports(execute_program=refuse_odd)) as pool:
        pool.create_program("p", SIGNATURE)
        answers = list(pool.map("p", [{"question": n} for n in range(4)], return_exceptions=True))
    assert [isinstance(answer, ProgramError) for answer in answers] == [False, True, False, True]


def test_map_reads_no_more_rows_than_workers_can_take() -> None:
    """Rows may come from an endless source; what is under way is cancelled when the caller is interrupted."""
    stuck, read = Stuck(), []

    def rows() -> Iterator[dict[str, Any]]:
        for number in itertools.count():
            read.append(number)
            yield {"question": number}

    stuck.on_arrival = lambda: interrupt_main_thread() if stuck.arrivals == 2 else None
    with sync_pool(mock_ports(execute_program=stuck)) as pool:
        pool.create_program("p", SIGNATURE)
        with pytest.raises(KeyboardInterrupt):
            next(pool.map("p", rows()))
        assert pool.ping()["status"] == "ok"
    assert read == [0, 1]


# --- asyncio -----------------------------------------------------------------------------------------------


def test_asyncio_pool_answers_like_the_pool() -> None:
    """The same coroutines, under asyncio's loop, in the session that the adapter speaks for."""

    async def main() -> None:
        async with asyncio_pool() as pool:
            await pool.wait_ready(2)
            tenant = pool.session_adapter("tenant")
            assert isinstance(tenant, AsyncioAdapter)
            await tenant.create_program("p", SIGNATURE)
            asked = [tenant.execute_program("p", {"question": f"q{number}"}) for number in range(8)]
            answers = await asyncio.gather(*asked)
            assert [answer["outputs"]["answer"] for answer in answers] == [f"q{n}" for n in range(8)]
            assert (await pool.call("tenant", "list_programs")).result["total_count"] == 1
            assert (await pool.execute_anonymous("get_stats")).attempts == 1
            assert (await pool.statistics()).ready == (await pool.snapshot()).healthy_workers == 2
            assert (pool.config.pool_size, pool.telemetry.observed) == (2, True)
            with pytest.raises(ProgramNotFoundError, match="ghost"):
                await tenant.execute_program("ghost", {})
        with pytest.raises(PoolClosedError):
            await pool.ping()

    asyncio.run(main())


def test_cancelled_asyncio_task_cancels_its_call() -> None:
    """The task leaves at once; its worker is asked to stop, and serves the next."""
    stuck = Stuck()
    ports = mock_ports(stuck=stuck)

    async def main() -> None:
        async with asyncio_pool(ports, pool_size=1) as pool:
            task = asyncio.create_task(pool.execute_anonymous("stuck"))
            stuck.on_arrival = lambda: loop.call_soon_threadsafe(task.cancel)
            loop = asyncio.get_running_loop()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await pool.ping())["status"] == "ok"

    asyncio.run(main())
    assert ports.started == 1
    assert ports.ports[0].signals[0] == "interrupt"


def test_several_event_loops_share_an_asyncio_pool() -> None:
    """A pool opened in one loop serves another, one after the other and at the same time."""
    pool = asyncio_pool()
    asyncio.run(pool.open())
    asyncio.run(pool.create_program("p", SIGNATURE))

    async def ask(number: int) -> Any:
        return (await pool.execute_program("p", {"question": number}))["outputs"]["answer"]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda number: asyncio.run(ask(number)), range(8))) == list(range(8))
    asyncio.run(pool.aclose())
    asyncio.run(pool.aclose())


def test_events_are_told_in_the_callers_loop() -> None:
    """Whoever listens to a call's events does so in its own thread, before the call returns."""
    plan = Plan().event("progress", {"done": 0.5}).reply({"ok": True})

    async def main() -> None:
        heard: list[tuple[Any, int]] = []
        async with asyncio_pool(mock_ports(work=lambda args: plan)) as pool:
            reply = await pool.execute_anonymous(
                "work", on_event=lambda event: heard.append((event.data, threading.get_ident()))
            )
            assert reply.result == {"ok": True}
            assert heard == [({"done": 0.5}, threading.get_ident())]

    asyncio.run(main())


def test_cancelled_opening_and_closing_leave_nothing() -> None:
    """A task that is cancelled while it opens or closes a pool ends it first."""
    stuck = Stuck()

    async def main() -> None:
        opening = asyncio.create_task(asyncio_pool().open())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        pool = await asyncio_pool(mock_ports(stuck=stuck), pool_size=1).open()
        served = asyncio.create_task(pool.execute_anonymous("stuck"))
        stuck.on_arrival = lambda: loop.call_soon_threadsafe(closing.cancel)
        loop = asyncio.get_running_loop()
        closing = asyncio.create_task(close_when_told(pool))
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(PoolClosedError):
            await served
        await pool.aclose()

    async def close_when_told(pool: AsyncioPool) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asyncio.current_task().cancel()  # type: ignore[union-attr] # there is one
            await pool.aclose()

    asyncio.run(main())


def test_facades_are_found_at_the_front_door() -> None:
    """``from dspex_pool import SyncPool, AsyncioPool`` is all that it takes."""
    assert (dspex_pool.SyncPool, dspex_pool.AsyncioPool) == (SyncPool, AsyncioPool)
