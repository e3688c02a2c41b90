"""Running the body of a test that asked for a pool: one trio run, in the time of its port, with what it asked for."""

from __future__ import annotations

import contextlib
import functools
import random
import signal as signals
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from dspex_pool.telemetry import Telemetry
from dspex_pool.worker_pool import WorkerPool
from dspex_testkit.adapters.bridge_mock import BridgeMock
from dspex_testkit.adapters.mock import Mock
from dspex_testkit.hangs.alarm import BodyHungError, draw
from dspex_testkit.ports.handle import CALM_WORKERS, PoolHandle, open_handle
from dspex_testkit.ports.kinds import KINDS
from dspex_testkit.ports.picture import timeline_of_body
from dspex_testkit.ports.pool_settings import check_further_settings
from dspex_testkit.ports.watched import WatchedPorts
from dspex_testkit.report.carried import carry
from dspex_testkit.report.recorder import Recorder, note_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from dspex_pool.adapters.base import Adapter
    from dspex_pool.transport.port import PortFactory
    from dspex_pool.worker import PoolWorker
    from dspex_testkit.ports.kinds import PortKind

__all__ = ["OF_KIND", "BodyRun", "Companion", "MakePool"]

#: Settings of a handle that are none of the pool's.
OF_KIND = ("handler", "commands")


@dataclass(slots=True)
class BodyRun:
    """One run of a body.

    Args:
        port: Name of the kind of port.
        settings: Settings of the fixture ``pool``.
        seed: Decides what its pools draw by chance; ``None`` for nothing.
    """

    port: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    #: What its pools draw from, anew for each run.
    numbers: random.Random | None = None
    #: Seconds after which the body counts as hung; ``None`` for as long as its kind of port gives it.
    hung_after: float | None = None
    #: What was seen when the body took too long.
    picture: str | None = None
    #: What happens in the run.
    recorder: Recorder = field(default_factory=Recorder)
    #: Pools that were opened in it.
    pools: int = 0
    #: Wraps what starts the workers of each pool, if anything does.
    wrap: Callable[[PortFactory], PortFactory] | None = None
    #: The pools that were opened, in order.
    handles: list[PoolHandle] = field(default_factory=list)

    def run(self, body: Callable[..., Awaitable[object]], arguments: Mapping[str, Any]) -> None:
        """Run ``body`` to its end, with what ``arguments`` ask for opened before and closed after it.

        Raises:
            BodyHungError: It did not end; the text is the picture of what it waits for.
            BaseException: What the body raises; if it was alone in the group that trio makes of it, by itself.
        """
        kind = self.kind({})
        self.recorder, self.pools, self.handles = Recorder(), 0, []
        self.numbers = None if self.seed is None else random.Random(self.seed)
        with self._told_of_hangs(), self._carried(), _alone():
            trio.run(self._main, body, dict(arguments), kind, clock=kind.clock)

    async def _main(
        self, body: Callable[..., Awaitable[object]], arguments: dict[str, Any], kind: PortKind
    ) -> None:
        for value in arguments.values():
            if isinstance(value, Companion):
                value.join(self)
        async with trio.open_nursery() as nursery:
            limit = kind.hung_after if self.hung_after is None else self.hung_after
            nursery.start_soon(self._watch, limit)
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(self.recorder)
                opened: dict[Wanted, Any] = {}
                for name, value in arguments.items():
                    if isinstance(value, Wanted):
                        if value not in opened:
                            opened[value] = await value.open(self, stack)
                        arguments[name] = opened[value]
                for value in arguments.values():
                    if isinstance(value, Companion):
                        stack.callback(value.leave)
                with self.recorder.noting_failure():
                    await body(**arguments)
            nursery.cancel_scope.cancel()

    async def _watch(self, seconds: float) -> None:
        """Stop a body that takes too long, in its own time, when all that it waits for can still be seen."""
        await trio.sleep(seconds)
        self.picture = draw(f"not done after {seconds:g} s", None)
        self.recorder.fail()
        raise trio.TooSlowError

    @contextlib.contextmanager
    def _carried(self) -> Iterator[None]:
        """Have an error take what was recorded with it."""
        try:
            yield
        except BaseException as error:
            carry(error, functools.partial(timeline_of_body, self.recorder, error, port=self.port))
            raise

    @contextlib.contextmanager
    def _told_of_hangs(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self.picture is None:
                raise
            hung = BodyHungError(self.picture)
            carry(hung, functools.partial(timeline_of_body, self.recorder, hung, port=self.port))
            raise hung from None
        if self.picture is not None:
            raise BodyHungError(self.picture) from None

    def kind(self, settings: dict[str, Any]) -> PortKind:
        """Return the kind of port, made of those of ``settings`` that are its own, which are taken out.

        Raises:
            ValueError: There is no such kind.
        """
        if self.port not in KINDS:
            raise ValueError(f"there is no kind of port {self.port!r}, only {', '.join(KINDS)}")
        own = {name: settings.pop(name) for name in OF_KIND if name in settings}
        return KINDS[self.port](**own)

    @contextlib.asynccontextmanager
    async def open_pool(self, settings: Mapping[str, Any]) -> AsyncIterator[PoolHandle]:
        """Open a pool of this run's kind; ``ports`` among the settings starts its workers.

        Raises:
            ValueError: The commands are no functions, or nothing can be started by the ports.
            WorkerStartError: The workers cannot start, though nothing orders that.

        Cancellation: The pool is closed.
        """
        check_further_settings(settings)
        rest = dict(settings)
        kind, ports = self.kind(rest), rest.pop("ports", None)
        # Where nobody could order that starts fail, a worker that cannot start never will.
        rest.setdefault("fail_fast", ports is None and self.wrap is None)
        if not isinstance(ports, WatchedPorts):
            ports = WatchedPorts(kind, factory=ports)
        with contextlib.closing(kind):
            async with self._recorded(ports, rest) as handle:
                yield handle

    @contextlib.asynccontextmanager
    async def _recorded(self, ports: WatchedPorts, settings: dict[str, Any]) -> AsyncIterator[PoolHandle]:
        workers: list[WorkerPool] = []
        self.record(settings.setdefault("telemetry", Telemetry()), workers, ports)
        started_by = None if self.wrap is None else self.wrap(ports)
        async with open_handle(ports, started_by=started_by, numbers=self.numbers, **settings) as handle:
            workers.append(handle.workers)
            self.handles.append(handle)
            yield handle

    def record(self, telemetry: Telemetry, workers: Sequence[WorkerPool], ports: object) -> None:
        """Record what a pool does.

        Args:
            telemetry: Where its events come from.
            workers: Holds the pool, as soon as there is one.
            ports: Starts its workers.
        """

        def holder_of(incarnation: int) -> object:
            record = workers[0]._state.workers.get(incarnation) if workers else None
            return record.holder if record is not None else None

        number, self.pools = self.pools, self.pools + 1
        if isinstance(ports, WatchedPorts):
            ports.pool_number = number
        self.recorder.attend(telemetry, holder_of, pool=number)


@contextlib.contextmanager
def _alone() -> Any:
    """Let an error that is alone in its groups out of them, so that pytest shows it, and knows a skip."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from None


class Companion:
    """What may stand in a test's arguments and takes part in its run."""

    def join(self, run: BodyRun) -> None:
        """Prepare the run, before anything is opened in it."""

    def leave(self) -> None:
        """Tidy up after the body, before anything is closed."""


class Wanted:
    """What stands in a test's arguments for something that is opened within its run.

    Args:
        open_: Opens it.
        name: Its fixture.
    """

    _name = "it"

    def __init__(
        self, open_: Callable[[BodyRun, contextlib.AsyncExitStack], Awaitable[Any]], name: str
    ) -> None:
        self.open = open_
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(f"{self._too_early()} (it was to give {attribute!r})")

    def __call__(self, *_: object, **options: object) -> NoReturn:
        """Say that it cannot be used yet."""
        raise TypeError(self._too_early())

    def _too_early(self) -> str:
        name = self._name
        return (
            f"{name} is opened when the body of a test begins, so a fixture cannot use it: "
            f"ask for {name} in the test itself, and make of it there what you need"
        )


class MakePool:
    """Makes further pools, each closed when the test ends, the last first: ``await make_pool(pool_size=4)``.

    Each lives in a task of its own, so one may be made within any scope or nursery of the test.

    Args:
        run: The run that they belong to.
        nursery: Where they live.
        stack: Closes what they need.
    """

    def __init__(self, run: BodyRun, nursery: trio.Nursery, stack: contextlib.AsyncExitStack) -> None:
        self._run = run
        self._nursery = nursery
        self._stack = stack
        # What ends each, and what says that it has ended.
        self._made: list[tuple[trio.Event, trio.Event]] = []

    async def __call__(self, **settings: Any) -> PoolHandle:
        """Open a pool with settings as for ``PoolConfig``, ``handler`` and ``commands``.

        Cancellation: The pool is closed.
        """
        handle: PoolHandle = await self._nursery.start(self._keep, settings)
        return handle

    async def _keep(self, settings: Mapping[str, Any], *, task_status: trio.TaskStatus[PoolHandle]) -> None:
        leave, left = trio.Event(), trio.Event()
        try:
            async with self._run.open_pool(settings) as handle:
                self._made.append((leave, left))
                task_status.started(handle)
                await leave.wait()
        finally:
            left.set()

    async def close(self) -> None:
        """Close all, the last first.

        Cancellation: The rest is closed by who ends the nursery.
        """
        for leave, left in reversed(self._made):
            leave.set()
            await left.wait()

    @property
    def port(self) -> str:
        """``sim``, ``server`` or ``process``."""
        return self._run.port

    @property
    def unit(self) -> float:
        """Seconds to multiply durations with: 1 in virtual time, a moment in real time."""
        return KINDS[self._run.port].unit

    def ports(
        self, *, start_delay: float = 0.0, fail_starts: int = 0, hang_starts: int = 0, **of_kind: Any
    ) -> WatchedPorts:
        """Return what starts workers of this kind, for a pool that the test opens itself.

        Args:
            start_delay: Seconds that a start takes in addition.
            fail_starts: How many of the next starts fail.
            hang_starts: How many of the next starts (after the failing ones) never end.
            of_kind: ``handler`` and ``commands``.
        """
        kind = self._run.kind(of_kind)
        self._stack.enter_context(contextlib.closing(kind))
        return WatchedPorts(kind, start_delay=start_delay, fail_starts=fail_starts, hang_starts=hang_starts)

    def worker_pool(self, *, ports: PortFactory | None = None, **settings: Any) -> WorkerPool:
        """Return a bare ``WorkerPool`` on this kind of port, not opened yet; settings as for ``WorkerPool``.

        By default it has one worker, and nothing happens by itself. ``ports`` starts its workers, if it is given.
        """
        of_kind = {name: settings.pop(name) for name in OF_KIND if name in settings}
        started_by = ports or self.ports(**of_kind)
        pools: list[WorkerPool] = []
        self._run.record(settings.setdefault("telemetry", Telemetry()), pools, started_by)
        pools.append(WorkerPool(started_by, **{"random": self._run.numbers, **CALM_WORKERS, **settings}))
        return pools[0]

    def end(self, worker: PoolWorker, signal: int = signals.SIGKILL) -> None:
        """End a worker as by a signal from outside."""
        note_fault(f"signal {signals.Signals(signal).name}", worker.incarnation)
        KINDS[self._run.port]().end(getattr(worker.port, "inner", worker.port), signal)

    def opened(self, **settings: Any) -> contextlib.AbstractAsyncContextManager[PoolHandle]:
        """Return the pool as a block, ``async with make_pool.opened() as pool``, to look at what is left of it."""
        return self._run.open_pool(settings)


async def _open_pool(run: BodyRun, stack: contextlib.AsyncExitStack) -> PoolHandle:
    return await stack.enter_async_context(run.open_pool(run.settings))


async def _open_factory(run: BodyRun, stack: contextlib.AsyncExitStack) -> MakePool:
    make_pool = MakePool(run, await stack.enter_async_context(trio.open_nursery()), stack)
    stack.push_async_callback(make_pool.close)
    return make_pool


async def _open_adapter(run: BodyRun, stack: contextlib.AsyncExitStack) -> Adapter:
    return await stack.enter_async_context(_adapter(run.port))


@contextlib.asynccontextmanager
async def _adapter(port: str) -> AsyncIterator[Adapter]:
    """Open the adapter of a kind of port: a mock, the mock over the wire, or a pool of real DSPy workers."""
    if port == "sim":
        yield Mock()
    elif port == "server":
        async with BridgeMock.open() as bridge_mock:
            yield bridge_mock
    else:
        from dspex_pool.adapters.python_pool import PythonPool

        async with PythonPool.open(pool_size=1) as pool:
            yield pool


#: What the fixtures hand out, by name.
WANTED = {
    name: Wanted(open_, name)
    for name, open_ in (
        ("pool", _open_pool),
        ("make_pool", _open_factory),
        ("adapter", _open_adapter),
    )
}
