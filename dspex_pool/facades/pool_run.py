"""The trio side of a facade: one run, in it one pool, and the calls that other threads have handed in."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import outcome
import trio

from dspex_pool.adapters import PythonPool
from dspex_pool.background import Background
from dspex_pool.errors import PoolClosedError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

__all__ = ["PoolCall", "PoolRun"]

AnswerT = TypeVar("AnswerT")

#: What a facade has the pool do: a coroutine function that is given the pool.
PoolCall: TypeAlias = Callable[[PythonPool], Coroutine[Any, Any, AnswerT]]


def _lasting() -> Future[Any]:
    """Return a future that nobody who waits for it can cancel."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


class PoolRun:
    """Opens a pool in a trio run of its own, carries calls out in it, and closes it.

    ``run`` is a thread's target. Everything else may be called from any thread.

    Args:
        open_pool: Makes the context manager that opens the pool.
    """

    def __init__(self, open_pool: Callable[[], AbstractAsyncContextManager[PythonPool]]) -> None:
        #: Done when the pool is open; carries the error if it could not be opened.
        self.opened: Future[None] = _lasting()
        #: Done when nothing of the pool is left.
        self.ended: Future[None] = _lasting()
        #: The error that ended the pool after it was open.
        self.failure: BaseException | None = None
        self._open_pool = open_pool
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._tasks: trio.Nursery | None = None
        self._pool: PythonPool | None = None
        # Reentrant, because a signal's handler may use the pool while this very thread does.
        self._lock = threading.RLock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_begun = self._is_over = False
        # What was handed in before the run had begun.
        self._early: list[Callable[[], object]] = []

    # --- from any thread --------------------------------------------------------------------------------

    def begin(self, call: PoolCall[AnswerT], future: Future[AnswerT]) -> None:
        """Have the pool do ``call`` and settle ``future`` with its answer or its error.

        It runs in a copy of the caller's context variables, as a task would. Cancelling the future cancels the call.

        Raises:
            PoolClosedError: The run is over.
        """
        try:
            self._post(functools.partial(self._start_task, contextvars.copy_context(), call, future))
        except trio.RunFinishedError:
            raise self._closed_error() from self.failure

    def close(self, *, at_once: bool = False) -> None:
        """Begin to close the pool: as ``PythonPool`` closes, or, ``at_once``, as it does when it is cancelled."""
        with contextlib.suppress(trio.RunFinishedError):
            self._post(self._scope.cancel if at_once else self._stop.set)

    def give_up(self) -> None:
        """Let the run be over if it has not begun; a thread that comes to ``run`` later leaves at once."""
        with self._lock:
            if self._is_begun:
                return
            self._is_begun = self._is_over = True
        self.opened.set_exception(PoolClosedError("the pool was closed before it was open."))
        self.ended.set_result(None)

    def _post(self, act: Callable[[], object]) -> None:
        with self._lock:
            if self._token is None:
                if self._is_over:
                    # Trio could not even begin, so that it has no token to refuse by.
                    raise trio.RunFinishedError
                self._early.append(act)
                return
        self._token.run_sync_soon(act)

    def _closed_error(self) -> PoolClosedError:
        # The pool knows why it closes by itself before its run is over.
        failure = self.failure or (self._pool.failure if self._pool is not None else None)
        if failure is None:
            return PoolClosedError("the pool is closed. Open a new one.")
        error = PoolClosedError(f"the pool was closed because it failed: {failure}")
        error.__cause__ = failure
        return error

    # --- in the pool's thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run the pool from its opening to its end. Raises nothing: errors are told by ``opened`` and ``failure``."""
        with self._lock:
            if self._is_begun:
                return
            self._is_begun = True
        result = outcome.capture(trio.run, self._main)
        error = result.error if isinstance(result, outcome.Error) else None
        if self.opened.done():
            self.failure = error
        else:
            self.opened.set_exception(error or PoolClosedError("the pool was closed before it was open."))
        with self._lock:
            self._is_over = True
        self.ended.set_result(None)

    async def _main(self) -> None:
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
        for act in self._early:
            act()
        # Calls end by what becomes of their worker, so their nursery is left after the pool is closed.
        with self._scope:
            async with Background() as tasks, self._open_pool() as self._pool:
                self._tasks = tasks
                self.opened.set_result(None)
                try:
                    await self._stop.wait()
                finally:
                    self._tasks = None

    def _start_task(
        self, context: contextvars.Context, call: PoolCall[AnswerT], future: Future[AnswerT]
    ) -> None:
        if future.cancelled():
            # Its caller has left while the pool was busy. Once begun it would reach a worker before it is cancelled.
            return
        if self._tasks is not None:
            context.run(self._tasks.start_soon, self._carry_out, call, future)
        elif future.set_running_or_notify_cancel():
            future.set_exception(self._closed_error())

    async def _carry_out(self, call: PoolCall[AnswerT], future: Future[AnswerT]) -> None:
        assert self._pool is not None
        scope = trio.CancelScope()
        future.add_done_callback(functools.partial(self._leave, scope))
        try:
            with scope:
                answer = await call(self._pool)
        except BaseException as error:
            is_refused = isinstance(error, PoolClosedError) and self._pool.failure is not None
            if future.set_running_or_notify_cancel():
                future.set_exception(self._closed_error() if is_refused or _is_cancelled(error) else error)
            if not isinstance(error, Exception):
                raise
        else:
            if not scope.cancelled_caught and future.set_running_or_notify_cancel():
                future.set_result(answer)
        finally:
            # An error has this frame in its traceback: with the future, which has the error, it would be a cycle.
            del future

    def _leave(self, scope: trio.CancelScope, future: Future[Any]) -> None:
        """Cancel a call whose caller has left; called in the caller's thread."""
        if future.cancelled():
            with contextlib.suppress(trio.RunFinishedError):
                self._post(scope.cancel)


def _is_cancelled(error: BaseException) -> bool:
    """Tell whether a call was cancelled, and nothing else; a nursery of its own tells that as a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancelled, error.exceptions))
    return isinstance(error, trio.Cancelled)
