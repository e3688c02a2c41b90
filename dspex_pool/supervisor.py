"""The front door: one session pool and its services, opened, kept running and closed together."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Self

import trio

from dspex_pool.background import Background
from dspex_pool.config import PoolConfig
from dspex_pool.errors import PoolClosedError, PoolFailedError
from dspex_pool.logs import PoolLog
from dspex_pool.monitor import PoolMonitor
from dspex_pool.session_pool import SessionPool
from dspex_pool.session_store import open_session_store
from dspex_pool.transport.subprocess import SubprocessOptions, SubprocessPortFactory
from dspex_pool.transport.template import TemplatePortFactory

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from dspex_pool.session_store import SessionStore
    from dspex_pool.telemetry import Telemetry
    from dspex_pool.transport.port import PortFactory

__all__ = ["PoolSupervisor", "ports_for"]

#: How many starts of a worker, each of ``spawn_timeout``, a template has time for until it must be able to fork.
TEMPLATE_STARTS = 4

_log = PoolLog("dspex_pool")
_stderr_log = PoolLog("dspex_pool.worker.stderr")


def ports_for(config: PoolConfig) -> PortFactory:
    """Return what starts worker processes as ``config`` says. Their stderr goes to the log, line by line.

    Raises:
        InvalidConfigError: This system has no templates, and one is asked for.
    """
    options = SubprocessOptions(
        command=config.command,
        python=config.python,
        handler=config.handler,
        allow=config.allow,
        env=config.worker_env,
        cwd=config.worker_cwd,
        nice=config.nice,
        limit_address_space=config.limit_address_space,
        limit_cpu_seconds=config.limit_cpu_seconds,
        limit_open_files=config.limit_open_files,
        max_frame_bytes=config.max_frame_bytes,
    )
    if config.start_method == "spawn":
        return SubprocessPortFactory(options, on_stderr_line=_log_stderr)
    # Its imports go on while starts that wait for it fail. Slow ones are finished by then; others hang.
    patience = TEMPLATE_STARTS * config.spawn_timeout
    return TemplatePortFactory(options, on_stderr_line=_log_stderr, warm_up_timeout=patience)


def _log_stderr(worker_id: str, line: str) -> None:
    _stderr_log.info("%s: %s", worker_id, line, extra={"worker_id": worker_id})


class PoolSupervisor:
    """Runs a session pool, its housekeeping and its monitor: ``async with PoolSupervisor(config) as supervisor``.

    A service that fails is started again, up to ``max_restarts`` times within ``restart_window`` seconds. Beyond
    that the pool is closed, so that everybody who waits for it hears of it, and the block ends with
    ``PoolFailedError``.

    Args:
        config: The settings; or give them as keywords, see ``PoolConfig.load``.
        ports: Starts worker processes; by default as the settings say.
        telemetry: Where events go.
        store: Where sessions are kept; by default as the settings say.
        random: Source of the back-off's spread.
    """

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        ports: PortFactory | None = None,
        telemetry: Telemetry | None = None,
        store: SessionStore | None = None,
        random: random.Random | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            config = config.replace(**settings)
        self.config = config if config is not None else PoolConfig.load(**settings)
        self._ports = ports if ports is not None else ports_for(self.config)
        self._telemetry = telemetry
        self._store = store
        self._random = random
        self._pool: SessionPool | None = None
        self._monitor: PoolMonitor | None = None
        #: Why the pool closes by itself, once a service has failed for good; raised at the end of the block.
        self.failure: PoolFailedError | None = None
        self._services = Background()
        self._nursery: trio.Nursery | None = None
        self._is_entered = False

    @property
    def pool(self) -> SessionPool:
        """The session pool, from the moment that the block is entered."""
        assert self._pool is not None, "the supervisor is not open"
        return self._pool

    @property
    def monitor(self) -> PoolMonitor:
        """The monitor, from the moment that the block is entered."""
        assert self._monitor is not None, "the supervisor is not open"
        return self._monitor

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise PoolClosedError("a pool cannot be opened twice. Make a new one.")
        self._is_entered = True
        store = (
            self._store if self._store is not None else await open_session_store(self.config.session_store)
        )
        self._pool = SessionPool(
            self._ports, self.config, telemetry=self._telemetry, store=store, random=self._random
        )
        self._monitor = PoolMonitor(self._pool, interval=self.config.monitor_interval)
        self._listening = self._monitor.listen()
        try:
            await self._pool.__aenter__()
        except BaseException:
            self._listening.close()
            raise
        self._nursery = await self._services.__aenter__()
        self._nursery.start_soon(self._keep_running, "monitor", self._monitor.run)
        self._nursery.start_soon(self._keep_running, "housekeeping", self._pool.keep_house)
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._services.__aexit__(kind, error, traceback)
        finally:
            try:
                await self.pool.__aexit__(kind, error, traceback)
            finally:
                self._listening.close()
        if self.failure is not None:
            raise self.failure

    @trio.lowlevel.enable_ki_protection
    async def _keep_running(self, name: str, service: Callable[[], Awaitable[None]]) -> None:
        failures: deque[float] = deque(maxlen=self.config.max_restarts + 1)
        while True:
            try:
                await service()
            except Exception as error:
                _log.exception("the pool's %s failed", name)
                now = trio.current_time()
                failures.append(now)
                if (
                    len(failures) > self.config.max_restarts
                    and now - failures[0] <= self.config.restart_window
                ):
                    self._give_up(name, error)
                    return
                self._tell_restart(name, error)
                # What failed at once would fail at once again; other tasks get their turn first.
                await trio.sleep(min(1.0, self.config.monitor_interval))

    def _tell_restart(self, name: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if name == "monitor":
            self.pool.telemetry.emit("monitor_restarted", {"count": 1}, {"reason": reason})
        else:
            self.pool.telemetry.emit("service_restarted", {"count": 1}, {"service": name, "reason": reason})

    def _give_up(self, name: str, error: Exception) -> None:
        assert self._nursery is not None
        self.failure = PoolFailedError(
            f"the pool's {name} failed more than {self.config.max_restarts} times within "
            f"{self.config.restart_window:g} s; the last time: {type(error).__name__}: {error}. The pool was closed.",
            service=name,
        )
        self.failure.__cause__ = error
        self.pool.workers.refuse_all()
        self._nursery.cancel_scope.cancel()
