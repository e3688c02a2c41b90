"""The pool for asyncio: the same coroutines, to be awaited under asyncio's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from dspex_pool.adapters import ANONYMOUS, PythonPool
from dspex_pool.adapters.commands import CommandAdapter
from dspex_pool.facades import pool_calls
from dspex_pool.facades.host import PoolHost
from dspex_pool.session_call import check_on_event

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType

    from dspex_pool.config import PoolConfig
    from dspex_pool.core.records import PoolStatistics
    from dspex_pool.monitor import MonitorSnapshot
    from dspex_pool.protocol import Event
    from dspex_pool.session_call import Reply
    from dspex_pool.session_store import SessionStore
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory

__all__ = ["AsyncioAdapter", "AsyncioPool"]

AnswerT = TypeVar("AnswerT")
ParametersP = ParamSpec("ParametersP")


class AsyncioAdapter(CommandAdapter):
    """The programs of one session, for coroutines under asyncio.

    Arguments, results and errors are those of ``Adapter``. It belongs to no event loop: any number of them, in any
    threads, may use one pool, one after the other or at the same time.

    Cancellation: Cancelling the asyncio task, also by ``asyncio.timeout``, cancels the call as a cancellation would
        under trio: the caller leaves at once, the worker is stopped or replaced, and the pool serves on.
    """

    def __init__(self, host: PoolHost, session_id: str = ANONYMOUS) -> None:
        super().__init__(session_id)
        self._host = host

    def session_adapter(self, session_id: str) -> AsyncioAdapter:
        """Return an adapter for another session on the same pool."""
        return AsyncioAdapter(self._host, session_id)

    async def run(
        self,
        function: Callable[Concatenate[PythonPool, ParametersP], Coroutine[Any, Any, AnswerT]],
        *args: ParametersP.args,
        **kwargs: ParametersP.kwargs,
    ) -> AnswerT:
        """Run a trio coroutine function in the pool's thread: for whatever has no method here.

        Args:
            function: Called with the trio pool, speaking for this session, and the other arguments.
            args: Further positional arguments.
            kwargs: Further keyword arguments.

        Raises:
            PoolClosedError: The pool is not open, or not in this process.
            RuntimeError: This is the pool's own thread, where handlers of telemetry run.
        """
        self._host.require_other_thread()
        session_id = self.session_id
        future: Future[AnswerT] = Future()
        self._host.begin(lambda pool: function(pool.session_adapter(session_id), *args, **kwargs), future)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # An error has this frame in its traceback: with the future, which has the error, it would be a cycle.
            del future

    async def _run(self, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        return await self.run(PythonPool._run, command, args, timeout)


class AsyncioPool(AsyncioAdapter):
    """A pool for asyncio: ``async with AsyncioPool(pool_size=2) as pool``.

    The pool itself speaks for the session ``anonymous``. It runs under trio in a thread of its own, which no event
    loop waits for by polling. It does not survive ``os.fork``: in the child every call raises ``PoolClosedError``.

    Args:
        config: The settings; by default those of the environment and ``pyproject.toml``.
        ports: Starts worker processes; by default as the settings say.
        telemetry: Where events go. Handlers run in the pool's thread, so they return soon and touch no event loop
            but by ``call_soon_threadsafe``.
        store: Where sessions are kept; by default as the settings say.
        settings: Single settings, over ``config``.

    Raises:
        InvalidConfigError: A setting is unknown or out of range.

    Cancellation: As for ``AsyncioAdapter``.
    """

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        ports: PortFactory | None = None,
        telemetry: Telemetry | None = None,
        store: SessionStore | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(PoolHost(config, ports=ports, telemetry=telemetry, store=store, **settings))

    @property
    def config(self) -> PoolConfig:
        """The settings."""
        return self._host.config

    @property
    def telemetry(self) -> Telemetry:
        """Where events come from: ``telemetry.attach(prefix, handler)``."""
        return self._host.telemetry

    async def wait_ready(self, count: int = 1, *, fail_fast: bool = False) -> None:
        """Wait until ``count`` workers are in service; see ``WorkerPool.wait_ready``.

        Raises:
            PoolClosedError: The pool is closed.
            WorkerStartError: A start has failed; only with ``fail_fast``.
        """
        await self.run(PythonPool.wait_ready, count, fail_fast=fail_fast)

    async def call(
        self,
        session_id: str,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Reply:
        """Run any command in a session and say how its answer came about.

        Args:
            session_id: Whose command it is.
            command: Name of the command.
            args: Its arguments, a JSON object.
            on_event: Called in this event loop with each ``chunk`` and ``progress`` event, before the call returns.
            options: Further options of ``PythonPool.call``: ``timeout``, ``retries``, ``idempotent``, ``affinity``.
        """
        heard = _in_this_loop(on_event)
        return await self.run(PythonPool.call, session_id, command, args, on_event=heard, **options)

    async def execute_anonymous(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> Reply:
        """Run a command on any worker, for nobody in particular.

        Args:
            command: Name of the command.
            args: Its arguments, a JSON object.
            on_event: Called in this event loop with each ``chunk`` and ``progress`` event, before the call returns.
            options: Further options of ``SessionPool.execute_anonymous``: ``timeout``, ``retries``, ``idempotent``.
        """
        heard = _in_this_loop(on_event)
        return await self.run(pool_calls.execute_anonymous, command, args, on_event=heard, **options)

    async def statistics(self) -> PoolStatistics:
        """Return gauges and counters of the workers and the line."""
        return await self.run(pool_calls.statistics)

    async def snapshot(self) -> MonitorSnapshot:
        """Return how the pool is doing: workers, waits, calls, restarts, memory."""
        return await self.run(pool_calls.snapshot)

    async def open(self) -> Self:
        """Open the pool, as entering its ``async with`` block does; then ``aclose`` is due.

        Raises:
            PoolClosedError: It was opened before.
            SessionStoreError: The sessions could not be read.

        Cancellation: Nothing is left of the pool before the cancellation leaves.
        """
        self._host.claim()
        try:
            await asyncio.wrap_future(self._host.start())
        except BaseException:
            await self._end_at_once()
            self._host.finish()
            raise
        return self

    async def aclose(self) -> None:
        """Close the pool: no process and no thread of it is left. Closing twice does nothing more.

        Calls that wait for a worker end with ``PoolClosedError``. Those under way have ``terminate_grace`` to end;
        then their workers are killed.

        Raises:
            PoolFailedError: A service of the pool had failed again and again.

        Cancellation: Every process is killed and reaped before the cancellation leaves.
        """
        try:
            await asyncio.wrap_future(self._host.close())
        except BaseException:
            await self._end_at_once()
            raise
        self._host.finish()

    async def _end_at_once(self) -> None:
        # Another cancellation does not shorten it: killing takes no time worth speaking of.
        ended = asyncio.wrap_future(self._host.close(at_once=True))
        while not ended.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([ended])

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _in_this_loop(on_event: Callable[[Event], None] | None) -> Callable[[Event], None] | None:
    """Have the running event loop call ``on_event``, and not the pool's thread."""
    if on_event is None:
        return None
    told, loop = check_on_event(on_event), asyncio.get_running_loop()

    def tell(event: Event) -> None:
        loop.call_soon_threadsafe(told, event)

    return tell
