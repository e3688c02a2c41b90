"""The pool for programs without an event loop: every method blocks, from any thread."""

from __future__ import annotations

import concurrent.futures
import functools
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from dspex_pool.adapters import ANONYMOUS, PythonPool
from dspex_pool.errors import DspexPoolError, PoolClosedError
from dspex_pool.facades import pool_calls
from dspex_pool.facades.host import PoolHost
from dspex_pool.session_table import check_session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from types import TracebackType

    from dspex_pool.config import PoolConfig
    from dspex_pool.facades.pool_run import PoolCall
    from dspex_pool.session_call import Reply
    from dspex_pool.session_store import SessionStore
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory

__all__ = ["SyncAdapter", "SyncPool"]

AnswerT = TypeVar("AnswerT")
ParametersP = ParamSpec("ParametersP")


def _blocking(
    method: Callable[Concatenate[PythonPool, ParametersP], Coroutine[Any, Any, AnswerT]],
) -> Callable[Concatenate[SyncAdapter, ParametersP], AnswerT]:
    """Make a blocking method of a coroutine method: same arguments, same result, same errors."""

    @functools.wraps(method)
    def wait(self: SyncAdapter, /, *args: ParametersP.args, **kwargs: ParametersP.kwargs) -> AnswerT:
        return self.run(method, *args, **kwargs)

    return wait


class SyncAdapter:
    """The programs of one session, with the methods of ``Adapter`` as blocking ones.

    Arguments, results and errors are those of the coroutine of the same name. Threads may share it; a call holds up
    its own thread alone. An exception that interrupts the wait, as Ctrl-C does in the main thread, cancels the call
    as a cancellation would under trio: the caller leaves at once, the worker is stopped or replaced, and the pool
    serves on.
    """

    def __init__(self, host: PoolHost, session_id: str = ANONYMOUS) -> None:
        self._host = host
        self._session_id = check_session_id(session_id)

    @property
    def session_id(self) -> str:
        """The session that this adapter speaks for."""
        return self._session_id

    def session_adapter(self, session_id: str) -> SyncAdapter:
        """Return an adapter for another session on the same pool."""
        return SyncAdapter(self._host, session_id)

    def run(
        self,
        function: Callable[Concatenate[PythonPool, ParametersP], Coroutine[Any, Any, AnswerT]],
        *args: ParametersP.args,
        **kwargs: ParametersP.kwargs,
    ) -> AnswerT:
        """Run a coroutine function in the pool's thread and wait: for whatever has no blocking method here.

        Args:
            function: Called with the trio pool, speaking for this session, and the other arguments.
            args: Further positional arguments.
            kwargs: Further keyword arguments.

        Raises:
            PoolClosedError: The pool is not open, or not in this process.
            RuntimeError: This is the pool's own thread, where handlers of telemetry and events run.
        """
        session_id = self._session_id
        return self._host.wait(lambda pool: function(pool.session_adapter(session_id), *args, **kwargs))

    ping = _blocking(PythonPool.ping)
    # A setting or an option could be called "self", says the checker; no worker knows such a one.
    configure_lm = _blocking(PythonPool.configure_lm)  # type: ignore[arg-type] # as above
    create_program = _blocking(PythonPool.create_program)  # type: ignore[arg-type] # as above
    execute_program = _blocking(PythonPool.execute_program)
    list_programs = _blocking(PythonPool.list_programs)
    get_program_info = _blocking(PythonPool.get_program_info)
    delete_program = _blocking(PythonPool.delete_program)
    dump_program = _blocking(PythonPool.dump_program)
    load_program = _blocking(PythonPool.load_program)
    cleanup_session = _blocking(PythonPool.cleanup_session)
    get_stats = _blocking(PythonPool.get_stats)
    health_check = _blocking(PythonPool.health_check)

    def map(
        self,
        program_id: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        retries: int | None = None,
        idempotent: bool = False,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """Run a program on every row, on all workers at once, and give the answers in the order of the rows.

        Args:
            program_id: The program.
            rows: Its inputs, one mapping a row. A row is read when a worker is free for it. The mapping itself may
                be changed for the next row, what is in it may not.
            timeout: Seconds that a row has, once a worker has it.
            retries: Further tries of a row on another worker after a worker was lost.
            idempotent: Whether running a row twice does no harm.
            return_exceptions: Whether a row that fails gives its ``DspexPoolError`` in place of an answer.

        Yields:
            ``{program_id, outputs, execution_time, …}`` for each row.

        Raises:
            DspexPoolError: A row failed, without ``return_exceptions``. Rows under way are cancelled, as they are
                when the iterator is closed early.
            RuntimeError: This is the pool's own thread.
        """
        self._host.require_other_thread()
        limits: dict[str, Any] = {"timeout": timeout, "retries": retries, "idempotent": idempotent}
        order: deque[Future[Reply]] = deque()
        running: set[Future[Reply]] = set()
        try:
            for inputs in rows:
                order.append(Future())
                running.add(order[-1])
                if not self._begin(self._execution(program_id, inputs, limits), order[-1]):
                    # The pool has closed. What is there is given before a further row is read.
                    concurrent.futures.wait(running)
                if len(running) >= self._host.width:
                    running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED").not_done
                while order and order[0].done():
                    yield _answer(order.popleft(), return_exceptions=return_exceptions)
            while order:
                yield _answer(order.popleft(), return_exceptions=return_exceptions)
        finally:
            while running:
                running.pop().cancel()
            # An error has this frame in its traceback: with its future it would be a cycle.
            order.clear()

    def _begin(self, call: PoolCall[Reply], future: Future[Reply]) -> bool:
        """Begin a call; a pool that takes none any more is the call's own error, behind the answers before it."""
        try:
            self._host.begin(call, future)
        except PoolClosedError as error:
            future.set_exception(error)
            return False
        return True

    def _execution(
        self, program_id: str, inputs: Mapping[str, Any], limits: Mapping[str, Any]
    ) -> PoolCall[Reply]:
        # A copy: it is sent by another thread, when the next row may have taken its place.
        own = dict(inputs) if isinstance(inputs, dict) else inputs
        session_id, args = self._session_id, {"program_id": program_id, "inputs": own}
        return lambda pool: pool.call(session_id, "execute_program", args, **limits)


def _answer(future: Future[Reply], *, return_exceptions: bool) -> Any:
    try:
        return future.result().result
    except DspexPoolError as error:
        if not return_exceptions:
            raise
        return error
    finally:
        # An error has this frame in its traceback: with its future it would be a cycle.
        del future


class SyncPool(SyncAdapter):
    """A pool for programs without an event loop: ``with SyncPool(pool_size=2) as pool``.

    The pool itself speaks for the session ``anonymous``. It runs under trio in a thread of its own. Threads may
    share it. It does not survive ``os.fork``: in the child every call raises ``PoolClosedError``.

    Args:
        config: The settings; by default those of the environment and ``pyproject.toml``.
        ports: Starts worker processes; by default as the settings say.
        telemetry: Where events go. Handlers run in the pool's thread, so they return soon and do not call the pool.
        store: Where sessions are kept; by default as the settings say.
        settings: Single settings, over ``config``.

    Raises:
        InvalidConfigError: A setting is unknown or out of range.
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

    wait_ready = _blocking(PythonPool.wait_ready)
    call = _blocking(PythonPool.call)
    execute_anonymous = _blocking(pool_calls.execute_anonymous)
    statistics = _blocking(pool_calls.statistics)
    snapshot = _blocking(pool_calls.snapshot)

    def open(self) -> Self:
        """Open the pool, as entering its ``with`` block does; then ``close`` is due.

        Raises:
            PoolClosedError: It was opened before.
            SessionStoreError: The sessions could not be read.
        """
        self._host.claim()
        try:
            self._host.start().result()
        except BaseException:
            self._host.close(at_once=True).result()
            self._host.finish()
            raise
        return self

    def close(self) -> None:
        """Close the pool: no process and no thread of it is left. Closing twice does nothing more.

        Calls that wait for a worker end with ``PoolClosedError``. Those under way have ``terminate_grace`` to end;
        then their workers are killed. Ctrl-C kills them at once.

        Raises:
            PoolFailedError: A service of the pool had failed again and again.
            RuntimeError: This is the pool's own thread.
        """
        try:
            self._host.close().result()
        except BaseException:
            self._host.close(at_once=True).result()
            raise
        self._host.finish()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
