"""What is counted: the pure core, each layer of a call over a scripted worker, and the worker's own side."""

from __future__ import annotations

import contextlib
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import trio
from trio.testing import MockClock

from benchmarks.books import lend_once, ready_core, serving_line
from benchmarks.guard.instructions import Count, InstructionCounter
from benchmarks.tasks import Tasks
from dspex_pool import PoolConfig, PythonPool, WorkerPool
from dspex_pool.bridge.core_commands import CoreCommands
from dspex_pool.bridge.handler import HandlerContext, commands_of
from dspex_pool.bridge.interrupts import Interrupts
from dspex_pool.bridge.logs import RequestLog, RequestScope
from dspex_pool.bridge.loop import Loop
from dspex_pool.bridge.outlet import Outlet
from dspex_pool.bridge.process import Process
from dspex_pool.protocol import ClientConversation, conversation
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES
from dspex_pool.session_pool import SessionPool
from dspex_testkit.mock_port import MockPort, MockPortFactory
from dspex_testkit.trio_seam import order_of_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dspex_pool.bridge.reader import Reader

__all__ = ["SUBJECTS", "count_all", "count_parts"]

#: Repetitions before anything is counted, and those that are counted.
WARM_UP, TIMES = 5, 10
_ARGUMENTS = {"value": "x" * 200}


def _count(action: Callable[[], object]) -> Count:
    counter = InstructionCounter()
    with counter.counting():
        for _ in range(WARM_UP):
            action()
        before = counter.count
        for _ in range(TIMES):
            action()
        return counter.count.since(before, times=TIMES)


async def _count_calls(call: Callable[[], Awaitable[object]]) -> Count:
    counter = InstructionCounter()
    with counter.counting():
        for _ in range(WARM_UP):
            await call()
        before = counter.count
        for _ in range(TIMES):
            await call()
        return counter.count.since(before, times=TIMES)


def _core_lends(session: str | None) -> Count:
    state = ready_core(4)
    return _count(lambda: lend_once(state, session))


def _conversation() -> Count:
    conversation = ClientConversation(peer="a worker")

    def exchange() -> None:
        number, _ = conversation.request("echo", _ARGUMENTS)
        answer = b'{"id":%d,"success":true,"result":"%s","timestamp":1.5}' % (number, b"x" * 200)
        conversation.receive(answer)

    return _count(exchange)


def _echo(port: MockPort) -> None:
    port.answer("echo", lambda args: args["value"])


def _in_virtual_time(measure: Callable[[], Awaitable[Count]]) -> Count:
    # The clock stands still, so that nothing that the pool does now and then falls into what is counted; and tasks
    # that are ready together run in one order, which trio leaves to chance. Only a pool whose call has failed does
    # nothing for so long; without time it would never be closed.
    with order_of_tasks(0):
        return trio.run(measure, clock=MockClock(autojump_threshold=0.2))


async def _worker_pool() -> Count:
    async with WorkerPool(MockPortFactory(_echo), pool_size=1) as pool:
        await pool.wait_ready()

        async def call() -> None:
            async with pool.checkout() as lease:
                await lease.request("echo", _ARGUMENTS)

        return await _count_calls(call)


async def _session_pool() -> Count:
    async with SessionPool(MockPortFactory(_echo), PoolConfig(pool_size=1)) as pool:
        await pool.workers.wait_ready()
        return await _count_calls(lambda: pool.execute_in_session("s", "echo", _ARGUMENTS))


async def _python_pool() -> Count:
    async with _one_python_pool() as call:
        return await _count_calls(call)


@contextlib.asynccontextmanager
async def _one_python_pool() -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with PythonPool.open(PoolConfig(pool_size=1), ports=MockPortFactory(_echo)) as pool:
        await pool.wait_ready()
        yield lambda: pool.call("s", "echo", _ARGUMENTS, timeout=10.0)


class _Requests:
    """A reader of requests that are there already; it marks where counting begins and ends."""

    def __init__(self, counter: InstructionCounter) -> None:
        self.marks: list[Count] = []
        self._counter = counter
        self._client = ClientConversation(peer="a worker")

    def next_payload(self) -> bytes:
        self.marks.append(self._counter.count)
        command = "echo" if len(self.marks) <= WARM_UP + TIMES else "shutdown"
        number, payload = self._client.request(command, _ARGUMENTS)
        self._client.retract(number)
        return payload


def _bridge() -> Count:
    """Count what a worker does for one request, from its bytes to the bytes of its answer."""
    counter = InstructionCounter()
    requests, process, interrupts, scope = _Requests(counter), Process(), Interrupts(), RequestScope()
    with contextlib.ExitStack() as closing:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        closing.callback(os.close, nowhere)
        outlet = Outlet(nowhere, process, interrupts, max_frame_bytes=DEFAULT_MAX_FRAME_BYTES)
        context = HandlerContext(mode="pool-worker", worker_id="w-1")
        core = CoreCommands(context)
        handler = Tasks(context)
        core.serve(handler)
        log = RequestLog(outlet.event, scope, context.secrets, "w-1")
        loop = Loop(process, outlet, interrupts, log, scope)
        with counter.counting():
            loop.serve(cast("Reader", requests), commands_of(handler, core.commands), context, None)
    return requests.marks[WARM_UP + TIMES].since(requests.marks[WARM_UP], times=TIMES)


#: What is counted, by name.
SUBJECTS: dict[str, Callable[[], Count]] = {
    "core: checkout and check-in": lambda: _core_lends(None),
    "core: checkout and check-in of a session": lambda: _core_lends("s"),
    "core: check-in that serves a line of 64": lambda: _count(serving_line(64)),
    "protocol: request and answer": _conversation,
    "WorkerPool: one call": lambda: _in_virtual_time(_worker_pool),
    "SessionPool: one call": lambda: _in_virtual_time(_session_pool),
    "PythonPool: one call": lambda: _in_virtual_time(_python_pool),
    "bridge: one request": _bridge,
}


def count_all() -> dict[str, Count]:
    """Count everything once."""
    with _one_moment():
        return {name: count() for name, count in SUBJECTS.items()}


@contextlib.contextmanager
def _one_moment() -> Iterator[None]:
    """Have all requests stamped with one moment: when a second begins, the time takes longer to write."""
    stamps: Any = conversation
    clock = stamps.time
    stamps.time = SimpleNamespace(time_ns=lambda: 10**18)
    try:
        yield
    finally:
        stamps.time = clock


#: The parts of a call's way, and the modules that belong to each by the beginning of their path.
_PARTS = {
    "the public API": ("adapters/", "supervisor.py"),
    "the session: whose it is, what the worker lacks, figures": (
        "session_", "worker_memory.py", "call_policy.py", "monitor.py",
    ),
    "lending: the lease, its proof, carrying out": (
        "worker_pool.py", "checkout.py", "lease.py", "decision_runner.py", "background.py",
    ),
    "the pure core": ("pool_state.py", "core/", "lifecycle.py"),
    "telemetry: asking whether anybody listens": ("telemetry/",),
    "request and answer": ("worker.py",),
    "messages and frames, those of the scripted worker included": ("protocol/",),
}  # fmt: skip


def count_parts() -> dict[str, int]:
    """Count one call of ``PythonPool`` by the parts of its way."""

    async def measure() -> Count:
        async with _one_python_pool() as call:
            for _ in range(WARM_UP):
                await call()
            with counter.counting():
                for _ in range(TIMES):
                    await call()
        return counter.count

    counter = InstructionCounter()
    with _one_moment():
        everything = _in_virtual_time(measure)
    parts = {
        part: round(sum(n for path, n in counter.by_module.items() if path.startswith(begins)) / TIMES)
        for part, begins in _PARTS.items()
    }
    known = tuple(begin for begins in _PARTS.values() for begin in begins)
    other = sum(n for path, n in counter.by_module.items() if not path.startswith(known))
    parts["anything else of ours"] = round(other / TIMES)
    parts["libraries: trio's scheduling, clock (that of tests here)"] = round(everything.libraries / TIMES)
    return parts
