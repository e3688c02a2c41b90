"""Mock workers that answer as the DSPy bridge does, a pool over them, and what its tests do with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from dspex_pool.config import PoolConfig
from dspex_pool.session_pool import SessionPool
from dspex_pool.telemetry import Telemetry, problem_with
from dspex_testkit.canned_bridge import CannedBridge
from dspex_testkit.mock_port import MockPortFactory
from dspex_testkit.plan import Pause, Plan
from tests.bounded_waits import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from dspex_pool.checkout import Checkout
    from dspex_pool.protocol.messages import Request
    from dspex_pool.session_store import SessionStore
    from dspex_testkit.mock_port import MockPort

__all__ = [
    "CALM",
    "CREATE",
    "CannedWorkers",
    "EventLog",
    "Intercept",
    "all_idle",
    "execute",
    "expect_error",
    "hold",
    "instead_of",
    "only",
    "open_sessions",
    "run_on",
    "slow",
]

#: The command that makes program ``p``.
CREATE: tuple[str, dict[str, Any]] = ("create_program", {"id": "p", "signature": "a -> b"})

#: Given the worker and what it was asked: a pause before its answer, another plan instead, or ``None``.
Intercept: TypeAlias = "Callable[[MockPort, Request], Plan | None]"

#: Settings under which nothing happens by itself.
CALM: dict[str, Any] = {"health_check_interval": None, "session_ttl": None, "backoff_min": 0.001}


class CannedWorkers(MockPortFactory):
    """Opens mock workers with programs, and remembers what each of them holds.

    Args:
        commands: Further commands, as for ``CannedBridge``.
    """

    def __init__(self, commands: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None) -> None:
        super().__init__(self._prepare)
        #: Asked before each request is answered, the handshake excepted.
        self.intercept: Intercept = lambda port, request: None
        #: Requests in the order in which they came, with the worker's name: ``"w-1 create_program"``.
        self.heard: list[str] = []
        #: What each worker holds, by incarnation.
        self.bridges: dict[int, CannedBridge] = {}
        self._commands = commands

    def _prepare(self, port: MockPort) -> None:
        bridge = CannedBridge(worker_id=port.worker_id, clock=trio.current_time, commands=self._commands)
        self.bridges[port.incarnation] = bridge

        def answer(request: Request) -> Plan:
            self.heard.append(f"{port.worker_id} {request.command}")
            plan = self.intercept(port, request)
            if plan is None or all(isinstance(step, Pause) for step in plan.steps):
                return Plan(*(plan.steps if plan is not None else ()), *bridge.plan(request).steps)
            return plan

        port.answer_rest(answer)

    def bridge(self, worker_id: str) -> CannedBridge:
        """Return what the newest worker of a name holds."""
        return self.bridges[self.port(worker_id).incarnation]

    def holding(self, session_id: str) -> list[str]:
        """Return the names of the live workers that hold something of a session."""
        return [port.worker_id for port in self.live if session_id in self.bridges[port.incarnation].sessions]

    def kill_all(self) -> None:
        """Kill every worker that lives."""
        for port in self.live:
            port.die(signal=9)


class EventLog:
    """Every event of a pool, each checked against the catalogue."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.telemetry.attach((), self._note)
        #: Name, measurements and metadata of each event.
        self.events: list[tuple[str, Mapping[str, float], Mapping[str, Any]]] = []
        #: What is wrong with events according to the catalogue.
        self.problems: list[str] = []

    def _note(
        self, event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]
    ) -> None:
        problem = problem_with(event, measurements, metadata)
        if problem is not None:
            self.problems.append(problem)
        self.events.append((event[-1], measurements, metadata))

    @property
    def names(self) -> list[str]:
        """The last parts of the events' names."""
        return [name for name, _, _ in self.events]

    def of(self, name: str) -> list[Mapping[str, Any]]:
        """Return the metadata of all events of a name."""
        return [metadata for event, _, metadata in self.events if event == name]


@contextlib.asynccontextmanager
async def open_sessions(
    workers: CannedWorkers,
    *,
    telemetry: Telemetry | None = None,
    store: SessionStore | None = None,
    **settings: Any,
) -> AsyncIterator[SessionPool]:
    """Open a session pool on mock workers, in simulated time; all workers are ready."""
    config = PoolConfig(**(CALM | {"pool_size": 2} | settings))
    pool = SessionPool(workers, config, telemetry=telemetry, store=store, wall_clock=trio.current_time)
    async with pool:
        if not config.lazy:
            await pool.workers.wait_ready(config.pool_size)
        yield pool


def slow(command: str, seconds: float = 1.0) -> Intercept:
    """Have workers take their time over one command."""
    return lambda port, request: Plan().after(seconds) if request.command == command else None


def instead_of(command: str, plan: Plan) -> Intercept:
    """Have workers do something else than answer one command."""
    return lambda port, request: plan if request.command == command else None


async def execute(pool: SessionPool, session_id: str, **options: Any) -> set[str]:
    """Run the session's program ``p`` and return the names of its outputs."""
    args = {"program_id": "p", "inputs": {"a": "x"}}
    reply = await pool.execute_in_session(session_id, "execute_program", args, **options)
    return set(reply.result["outputs"])


async def expect_error(kind: type[Exception], call: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Call, in a task of its own, what must raise."""
    with pytest.raises(kind):
        await call(*args)


async def claimed(pool: SessionPool, worker_id: str) -> Checkout:
    """Take the worker of a name out of service, as soon as housekeeping lets go of it, or it is replaced."""
    found: list[Checkout] = []

    def is_free() -> bool:
        named = [worker for worker in pool.workers.workers() if worker.worker_id == worker_id]
        found.extend(filter(None, map(pool.workers.claim, named)))
        return bool(found)

    await until(is_free, f"{worker_id} is idle")
    return found[0]


@contextlib.asynccontextmanager
async def hold(pool: SessionPool, *worker_ids: str) -> AsyncIterator[None]:
    """Have these workers busy."""
    async with contextlib.AsyncExitStack() as stack:
        # By name, and once: a worker that is being ended has its successor beside it.
        for worker_id in dict.fromkeys(worker_ids):
            await stack.enter_async_context(await claimed(pool, worker_id))
        yield


def only(pool: SessionPool, worker_id: str) -> contextlib.AbstractAsyncContextManager[None]:
    """Have all workers busy but one, so that it serves whatever is asked."""
    others = (worker.worker_id for worker in pool.workers.workers() if worker.worker_id != worker_id)
    return hold(pool, *others)


async def all_idle(pool: SessionPool, count: int) -> None:
    """Wait until ``count`` workers are idle, and no others are there."""
    with trio.fail_after(60):
        while (numbers := pool.workers.statistics()).idle < count or numbers.processes > count:
            await trio.sleep(0.1)


async def run_on(pool: SessionPool, worker_id: str) -> set[str]:
    """Run program ``p`` of session ``s`` on a certain worker."""
    async with only(pool, worker_id):
        return await execute(pool, "s")
