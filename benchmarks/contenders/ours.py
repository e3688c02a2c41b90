"""This project's own path, whole and layer by layer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.contenders.contender import TrioContender, WrongAnswerError
from benchmarks.tasks import HANDLER, WARM_HANDLER
from dspex_pool import PoolConfig, PythonPool, SubprocessOptions, SubprocessPortFactory, WorkerPool
from dspex_pool.protocol import ClientConversation
from dspex_pool.session_pool import SessionPool
from dspex_pool.worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dspex_pool.transport.port import Port

__all__ = [
    "open_idempotent",
    "open_port",
    "open_python_pool",
    "open_session_pool",
    "open_strict_template",
    "open_template",
    "open_watched_python_pool",
    "open_watched_session_pool",
    "open_worker",
    "open_worker_pool",
    "our_config",
    "our_ports",
]

ROOT = Path(__file__).resolve().parents[2]


class _OfPort(TrioContender):
    """Frames of one worker: a request encoded once, an answer that is not decoded."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._payloads: dict[str, bytes] = {}

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        payload = self._payloads.get(task)
        if payload is None:
            payload = self._payloads[task] = ClientConversation(peer="the worker").request(
                task, {"value": argument}
            )[1]
        await self._port.send(payload)
        if b'"success":true' not in await self._port.receive():
            raise WrongAnswerError(f"{task} failed")
        return argument


class _OfWorker(TrioContender):
    """Requests and answers of one worker."""

    def __init__(self, worker: PoolWorker) -> None:
        self._worker = worker

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        return await self._worker.request(task, {"value": argument}, timeout=timeout)


class _OfWorkerPool(TrioContender):
    """A worker lent for each call."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        async with self._pool.checkout() as lease:
            return await lease.request(task, {"value": argument}, timeout=timeout)


class _OfSessionPool(TrioContender):
    """A command in a session, which finds its worker."""

    def __init__(self, pool: SessionPool) -> None:
        self._pool = pool

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        reply = await self._pool.execute_in_session("bench", task, {"value": argument}, timeout=timeout)
        return reply.result


class _OfPythonPool(TrioContender):
    """What users call."""

    def __init__(self, pool: PythonPool, *, is_idempotent: bool = False) -> None:
        self._pool = pool
        self._is_idempotent = is_idempotent

    async def grow(self, workers: int) -> None:
        """Have the pool hold so many workers from now on, and each of them answer one caller, who keeps it."""
        pool, all_answered = self._pool.sessions.workers, trio.Event()
        answered: set[int] = set()

        async def caller() -> None:
            async with pool.checkout() as lease:
                answered.add(await lease.request("hold", {"value": 0}))
                if len(answered) == workers:
                    all_answered.set()
                await all_answered.wait()

        pool.resize(workers)
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(caller)

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        reply = await self._pool.call(
            "bench",
            task,
            {"value": argument},
            timeout=timeout,
            retries=int(self._is_idempotent),
            idempotent=self._is_idempotent,
        )
        return reply.result


def our_ports() -> SubprocessPortFactory:
    return SubprocessPortFactory(SubprocessOptions(handler=HANDLER, cwd=str(ROOT)))


def our_config(workers: int, **settings: Any) -> PoolConfig:
    usual: dict[str, Any] = {"max_starting": max(workers, 16), "handler": HANDLER, "worker_cwd": str(ROOT)}
    return PoolConfig.load(pool_size=workers, **(usual | settings))


def _listen(event: tuple[str, ...], measurements: Mapping[str, float], metadata: Mapping[str, Any]) -> None:
    """Do nothing with an event: what is measured is its way here."""


@contextlib.asynccontextmanager
async def _started_worker() -> AsyncIterator[PoolWorker]:
    port = await our_ports().open(worker_id="w-1", incarnation=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.attend)
        worker = PoolWorker(port, worker_id="w-1", incarnation=1)
        await worker.handshake()
        yield worker
        port.send_eof()


@contextlib.asynccontextmanager
async def open_port(workers: int) -> AsyncIterator[TrioContender]:
    """Open one port, whatever the number of workers."""
    async with _started_worker() as worker:
        yield _OfPort(worker.port)


@contextlib.asynccontextmanager
async def open_worker(workers: int) -> AsyncIterator[TrioContender]:
    """Open one worker, whatever the number asked for."""
    async with _started_worker() as worker:
        yield _OfWorker(worker)


@contextlib.asynccontextmanager
async def open_worker_pool(workers: int) -> AsyncIterator[TrioContender]:
    """Open a pool that lends workers."""
    async with WorkerPool(our_ports(), pool_size=workers, max_starting=workers) as pool:
        await pool.wait_ready(workers)
        yield _OfWorkerPool(pool)


@contextlib.asynccontextmanager
async def open_session_pool(workers: int) -> AsyncIterator[TrioContender]:
    """Open a pool of sessions to which nobody listens."""
    async with SessionPool(our_ports(), our_config(workers)) as pool:
        await pool.workers.wait_ready(workers)
        yield _OfSessionPool(pool)


@contextlib.asynccontextmanager
async def open_watched_session_pool(workers: int) -> AsyncIterator[TrioContender]:
    """Open a pool of sessions with a handler for all its events."""
    async with SessionPool(our_ports(), our_config(workers)) as pool:
        await pool.workers.wait_ready(workers)
        with pool.telemetry.attach((), _listen):
            yield _OfSessionPool(pool)


@contextlib.asynccontextmanager
async def open_python_pool(workers: int) -> AsyncIterator[TrioContender]:
    """Open what users open. Its own monitor listens to it."""
    async with PythonPool.open(our_config(workers)) as pool:
        await pool.wait_ready(workers)
        yield _OfPythonPool(pool)


@contextlib.asynccontextmanager
async def open_watched_python_pool(workers: int) -> AsyncIterator[TrioContender]:
    """Open what users open, with a handler for all its events beside the monitor."""
    async with PythonPool.open(our_config(workers)) as pool:
        await pool.wait_ready(workers)
        with pool.telemetry.attach((), _listen):
            yield _OfPythonPool(pool)


@contextlib.asynccontextmanager
async def open_idempotent(workers: int) -> AsyncIterator[TrioContender]:
    """Open what users open, for calls that may be tried once more on another worker."""
    async with PythonPool.open(our_config(workers)) as pool:
        await pool.wait_ready(workers)
        yield _OfPythonPool(pool, is_idempotent=True)


@contextlib.asynccontextmanager
async def open_template(workers: int) -> AsyncIterator[TrioContender]:
    """Open what users open, with workers that are forked from a process that has imported DSPy."""
    async with _open_template(workers) as contender:
        yield contender


@contextlib.asynccontextmanager
async def open_strict_template(workers: int) -> AsyncIterator[TrioContender]:
    """Open the same, with workers that are killed at once when a call is given up."""
    async with _open_template(workers, cancel_grace=0.001) as contender:
        yield contender


@contextlib.asynccontextmanager
async def _open_template(workers: int, **settings: Any) -> AsyncIterator[TrioContender]:
    config = our_config(workers, start_method="template", handler=WARM_HANDLER, **settings)
    async with PythonPool.open(config) as pool:
        await pool.wait_ready(workers)
        yield _OfPythonPool(pool)
