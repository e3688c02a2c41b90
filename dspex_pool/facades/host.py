"""The caller's side of a facade: the thread in which a pool runs, and the way there and back."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_pool.adapters import PythonPool
from dspex_pool.config import PoolConfig
from dspex_pool.errors import PoolClosedError
from dspex_pool.facades.pool_run import PoolRun
from dspex_pool.telemetry import Telemetry

if TYPE_CHECKING:
    from dspex_pool.facades.pool_run import PoolCall
    from dspex_pool.session_store import SessionStore
    from dspex_pool.transport.port import PortFactory

__all__ = ["PoolHost"]

AnswerT = TypeVar("AnswerT")


class PoolHost:
    """Owns one pool and the thread in which it runs. Every method may be called from any thread.

    The thread is a daemon: a program that ends without closing its pool is not kept alive by it, and the workers
    leave by themselves when the program is gone.

    Args:
        config: The settings; by default those of the environment and ``pyproject.toml``.
        ports: Starts worker processes; by default as the settings say.
        telemetry: Where events go.
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
        checked = config.replace(**settings) if config is not None else PoolConfig.load(**settings)
        heard = telemetry if telemetry is not None else Telemetry()
        self.config = checked
        self.telemetry = heard
        # The run must not know its host: it would keep a pool alive that everybody has forgotten.
        self._run = PoolRun(lambda: PythonPool.open(checked, ports=ports, telemetry=heard, store=store))
        self._thread = threading.Thread(target=self._run.run, name="dspex_pool", daemon=True)
        self._process = os.getpid()
        # Reentrant, because a signal's handler may close the pool while this very thread closes it.
        self._lock = threading.RLock()
        self._is_claimed = self._is_started = self._is_closed = self._is_finished = False

    @property
    def width(self) -> int:
        """How many calls workers can serve at the same time."""
        return self.config.pool_size + self.config.max_overflow

    def claim(self) -> None:
        """Take the one opening that the pool has; ``start`` is due next. Whoever is refused has nothing to undo.

        Raises:
            PoolClosedError: It was opened or closed before, or this is not its process.
        """
        self._require_own_process()
        with self._lock:
            if self._is_claimed or self._is_closed:
                raise PoolClosedError("a pool cannot be opened twice. Make a new one.")
            self._is_claimed = True

    def start(self) -> Future[None]:
        """Start to open the pool, once ``claim`` has returned; the future is done when it is open.

        Raises:
            PoolClosedError: It was closed meanwhile.
            RuntimeError: The system gives no thread.
        """
        with self._lock:
            if self._is_closed:
                raise PoolClosedError("the pool was closed before it was open.")
            try:
                # Before: Ctrl-C may strike in the start, while the thread runs already.
                self._is_started = True
                self._thread.start()
            except BaseException:
                # Or while it does not run yet, and never will.
                self._run.give_up()
                raise
        return self._run.opened

    def begin(self, call: PoolCall[AnswerT], future: Future[AnswerT]) -> None:
        """Have the pool do ``call``, and settle ``future`` with what comes of it; cancelling it cancels the call.

        Raises:
            PoolClosedError: The pool is not open, or not in this process.
        """
        self._require_own_process()
        if not self._run.opened.done():
            raise PoolClosedError("the pool is not open. Use it inside its 'with' block.")
        self._run.begin(call, future)

    def wait(self, call: PoolCall[AnswerT]) -> AnswerT:
        """Have the pool do ``call`` and block until it is done; leaving by an exception cancels the call.

        Raises:
            PoolClosedError: The pool is not open, or not in this process.
            RuntimeError: This is the pool's own thread, which would wait for itself.
        """
        self.require_other_thread()
        future: Future[AnswerT] = Future()
        try:
            self.begin(call, future)
            return future.result()
        except BaseException:
            future.cancel()
            raise
        finally:
            # An error has this frame in its traceback: with the future, which has the error, it would be a cycle.
            del future

    def close(self, *, at_once: bool = False) -> Future[None]:
        """Begin to close; the future is done when nothing of the pool is left. Then ``finish``.

        Args:
            at_once: Whether workers in use are ended without waiting for them to come back.

        Raises:
            RuntimeError: This is the pool's own thread, which would wait for itself.
        """
        self.require_other_thread()
        with self._lock:
            self._is_closed = True
            if self._is_started and os.getpid() == self._process:
                self._run.close(at_once=at_once)
                return self._run.ended
        nothing_left: Future[None] = Future()
        nothing_left.set_result(None)
        return nothing_left

    def finish(self) -> None:
        """See the thread off, after the future of ``close`` is done.

        Raises:
            Exception: What ended the pool before it was closed, such as ``PoolFailedError``. It is raised once.
        """
        with self._lock:
            if not self._is_started or os.getpid() != self._process:
                return
            if self._thread.is_alive():
                self._thread.join()
            failure = None if self._is_finished else self._run.failure
            self._is_finished = True
        if failure is not None:
            raise failure

    def require_other_thread(self) -> None:
        """Refuse to block the pool's own thread.

        Raises:
            RuntimeError: It is this one.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a blocking call in the pool's own thread would wait for itself. Handlers of telemetry and "
                "events run there: hand the work to another thread."
            )

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise PoolClosedError(
                f"the pool belongs to process {self._process}; a fork has neither its thread nor its workers. "
                "Open a pool of its own there."
            )

    def __del__(self) -> None:
        # A constructor that raised has left some of it unset.
        if getattr(self, "_is_started", False) and not self._is_closed and os.getpid() == self._process:
            self._run.close(at_once=True)
            text = f"a pool was not closed: {self.config!r}"
            # Last: where warnings are errors it raises.
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
