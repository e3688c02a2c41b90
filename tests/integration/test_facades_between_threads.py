"""A call on its way between a caller's thread and the pool's: what goes along, and what is let go."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.adapters import PythonPool
from dspex_pool.errors import InvalidArgumentError, PoolClosedError, ProgramNotFoundError
from dspex_pool.telemetry import PREFIX
from dspex_testkit.plan import Plan
from tests.mock_facades import SIGNATURE, Stuck, asyncio_pool, mock_ports, sync_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.facades import AsyncioPool, SyncPool


class Row(dict[str, Any]):
    """Inputs of a call that a weak reference can watch."""


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Collect no garbage, so that what is kept by a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_error_that_was_dropped_keeps_no_argument() -> None:
    """Each failed call kept its inputs, however large, in a cycle of its error, until garbage was collected."""

    def by_a_call(pool: SyncPool, inputs: Row) -> None:
        pool.execute_program("ghost", inputs)

    def by_map(pool: SyncPool, inputs: Row) -> None:
        assert isinstance(next(pool.map("ghost", [inputs], return_exceptions=True)), ProgramNotFoundError)
        next(pool.map("ghost", [inputs]))

    with sync_pool() as pool:
        for way in (by_a_call, by_map):
            inputs = Row(question="who?")
            kept = weakref.ref(inputs)
            with contextlib.suppress(ProgramNotFoundError):
                way(pool, inputs)
            del inputs
            # The pool's thread may have been about to leave the call.
            pool.run(PythonPool.wait_ready)
            assert kept() is None, way

    async def main() -> None:
        async with asyncio_pool() as pool:
            inputs = Row(question="who?")
            kept = weakref.ref(inputs)
            with contextlib.suppress(ProgramNotFoundError):
                await pool.execute_program("ghost", inputs)
            del inputs
            await pool.wait_ready()
            assert kept() is None

    asyncio.run(main())


def test_call_with_tasks_of_its_own_hears_that_the_pool_closes() -> None:
    """A coroutine with a nursery told its caller of trio's own cancellation, in a group that no ``except`` meets."""
    began = threading.Event()

    async def wait_in_a_nursery(pool: PythonPool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            began.set()
            await trio.sleep_forever()

    with ThreadPoolExecutor(1) as threads:
        with sync_pool() as pool:
            call = threads.submit(pool.run, wait_in_a_nursery)
            assert began.wait(5)
        assert isinstance(call.exception(5), PoolClosedError)


def test_call_is_not_begun_when_its_caller_left_before() -> None:
    """A caller left while the pool's thread was busy; the call was sent all the same, and stopped then."""
    stuck, is_busy, goes_on = Stuck(), threading.Event(), threading.Event()
    ports = mock_ports(stuck=stuck)

    async def keep_busy(pool: PythonPool) -> None:
        is_busy.set()
        goes_on.wait(5)

    async def main(pool: AsyncioPool) -> None:
        call = asyncio.create_task(pool.execute_anonymous("stuck"))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    with ThreadPoolExecutor(1) as threads, contextlib.ExitStack() as stack:
        pool = asyncio_pool(ports, pool_size=1)
        asyncio.run(pool.open())
        stack.callback(lambda: asyncio.run(pool.aclose()))
        asyncio.run(pool.wait_ready())
        busy = threads.submit(lambda: asyncio.run(pool.run(keep_busy)))
        stack.callback(goes_on.set)
        assert is_busy.wait(5)
        asyncio.run(main(pool))
        goes_on.set()
        busy.result(5)
        assert asyncio.run(pool.ping())["status"] == "ok"
        assert stuck.arrivals == 0


WHOSE = contextvars.ContextVar("WHOSE", default="nobody's")


def test_call_is_done_in_the_context_of_its_caller() -> None:
    """What a caller set for its task, such as a trace, was unknown to coroutines and handlers of the pool."""
    seen: list[tuple[str, str]] = []

    async def look(pool: PythonPool) -> str:
        return WHOSE.get()

    def note(event: tuple[str, ...], measurements: object, metadata: object) -> None:
        seen.append((event[-1], WHOSE.get()))

    async def serve(pool: AsyncioPool, name: str) -> None:
        WHOSE.set(name)
        assert await pool.run(look) == name
        told: list[str] = []
        await pool.call("s", "tell", on_event=lambda _: told.append(WHOSE.get()))
        assert told == [name]

    async def main() -> None:
        ports = mock_ports(tell=lambda args: Plan().event("progress").reply({}))
        async with asyncio_pool(ports) as pool, asyncio.TaskGroup() as tasks:
            for name in ("one's", "another's"):
                tasks.create_task(serve(pool, name))

    asyncio.run(main())
    with sync_pool() as pool:
        pool.telemetry.attach((*PREFIX, "call_start"), note)
        pool.ping()
        context = contextvars.copy_context()
        context.run(WHOSE.set, "a thread's")
        context.run(pool.ping)
    assert seen == [("call_start", "nobody's"), ("call_start", "a thread's")]


def test_coroutine_that_runs_in_the_pools_own_thread_is_refused() -> None:
    """A handler that ran an event loop for a call of the pool stood in that call's way, and the pool stood still."""

    async def call_from_within(pool: PythonPool) -> None:
        asyncio.run(asyncio.wait_for(facade.ping(), 0.5))

    async def main() -> None:
        async with facade:
            with pytest.raises(RuntimeError, match="own thread"):
                await facade.run(call_from_within)
            assert (await facade.ping())["status"] == "ok"

    facade = asyncio_pool()
    asyncio.run(main())


def test_map_sends_each_row_as_it_was_read() -> None:
    """A generator that fills one dictionary again and again had its rows answered for the row after them."""

    def rows() -> Iterator[dict[str, str]]:
        row = {"question": ""}
        for number in range(8):
            row["question"] = f"q{number}"
            yield row

    with sync_pool() as pool:
        pool.create_program("p", SIGNATURE)
        answers = [answer["outputs"]["answer"] for answer in pool.map("p", rows())]
    assert answers == [f"q{number}" for number in range(8)]


def test_coroutine_function_is_refused_as_on_event() -> None:
    """Each event made a coroutine that the loop did not await, so that the caller heard of nothing."""

    async def hear(event: object) -> None: ...

    async def main() -> None:
        told: Any = hear
        async with asyncio_pool() as pool:
            for call in (
                pool.call("s", "ping", on_event=told),
                pool.execute_anonymous("ping", on_event=told),
            ):
                with pytest.raises(InvalidArgumentError, match="plain function"):
                    await call

    asyncio.run(main())
