"""The front door: it opens whole or not at all, keeps its services running, and closes in order."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from dspex_pool import supervisor as supervisor_module
from dspex_pool.config import PoolConfig
from dspex_pool.errors import InvalidConfigError, SessionStoreError
from dspex_pool.supervisor import PoolSupervisor, ports_for
from dspex_pool.telemetry import Telemetry
from tests.cancel_at_step import CancelAtStep
from tests.front_door import TalkativeStore, supervise
from tests.session_workers import CannedWorkers

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from dspex_pool.transport.subprocess import SubprocessOptions


@pytest.mark.trio
async def test_failures_that_are_far_apart_are_forgiven(autojump_clock: MockClock) -> None:
    """More failures than the limit, but not within the window, do not close the pool."""
    workers = CannedWorkers()
    options = {"monitor_interval": 50.0, "max_restarts": 1, "restart_window": 60.0}
    async with supervise(workers, **options) as supervisor:
        failures = itertools.count()

        def fail(*_: object) -> None:
            if next(failures) % 2 == 0:
                raise RuntimeError("every other time")

        setattr(supervisor.pool, "_expire", fail)  # noqa: B010 - mypy takes no assignment to a method
        await trio.sleep(1000)
        assert next(failures) > 10


@pytest.mark.trio
async def test_pool_that_is_cancelled_at_any_step_leaves_nothing(autojump_clock: MockClock) -> None:
    """While it opens, serves or closes: no worker, open store or listener is left, nor by an opening that fails."""
    for step in itertools.count(1):
        workers, telemetry = CannedWorkers(), Telemetry()
        store = TalkativeStore(workers)
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(step, scope)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with supervise(workers, store=store, telemetry=telemetry, pool_size=1) as supervisor:
                    await supervisor.pool.workers.wait_ready()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert (workers.live, store.closings, telemetry.observed) == ([], [0], False)
        if not scope.cancel_called:
            break
    assert step > 10
    store = TalkativeStore(workers)
    store.failure = SessionStoreError("the disk is full")
    with pytest.raises(SessionStoreError, match="disk is full"):
        async with supervise(workers, store=store, telemetry=telemetry):
            raise AssertionError("opened")
    assert (store.closings, telemetry.observed) == ([0], False)


@pytest.mark.parametrize(
    ("method", "factory"), [("spawn", "SubprocessPortFactory"), ("template", "TemplatePortFactory")]
)
def test_settings_reach_the_workers(
    method: Any, factory: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the configuration says of workers is what they are started with; their stderr goes to the log."""
    made: list[tuple[SubprocessOptions, Callable[[str, str], None]]] = []

    def make(options: SubprocessOptions, *, on_stderr_line: Callable[[str, str], None], **_: float) -> None:
        made.append((options, on_stderr_line))

    monkeypatch.setattr(supervisor_module, factory, make)
    worker: dict[str, Any] = {
        "python": "/usr/bin/python3",
        "handler": "package.module:Handler",
        "allow": ("package",),
        "nice": 5,
        "limit_address_space": 2**30,
        "limit_cpu_seconds": 60,
        "limit_open_files": 64,
        "max_frame_bytes": 4096,
    }
    ports_for(PoolConfig(worker_env={"NAME": "value"}, worker_cwd="/", start_method=method, **worker))
    ((options, on_stderr_line),) = made
    assert {name: getattr(options, name) for name in worker} == worker
    assert (options.env, options.cwd) == ({"NAME": "value"}, "/")
    caplog.set_level(logging.INFO)
    on_stderr_line("w-3", "a word")
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("dspex_pool.worker.stderr", "w-3: a word")
    if method == "spawn":
        ports_for(PoolConfig(command=("worker", "{worker_id}")))
        assert made[1][0].command == ("worker", "{worker_id}")


def test_start_method_chooses_the_factory() -> None:
    """Forked workers are asked for by one setting, which does not go with a command of one's own."""
    assert type(ports_for(PoolConfig())).__name__ == "SubprocessPortFactory"
    assert type(ports_for(PoolConfig(start_method="template"))).__name__ == "TemplatePortFactory"
    with pytest.raises(
        InvalidConfigError, match="start_method must be spawn; a template forks the built-in"
    ) as caught:
        PoolConfig(start_method="template", command=("worker",))
    assert caught.value.key == "start_method"


def test_supervisor_takes_single_settings_over_a_configuration() -> None:
    """Keywords win over the configuration given with them, and are checked like it."""
    workers = CannedWorkers()
    config = PoolConfig(pool_size=3, retries=2)
    supervisor = PoolSupervisor(config, ports=workers, pool_size=1)
    assert (supervisor.config.pool_size, supervisor.config.retries) == (1, 2)
    with pytest.raises(InvalidConfigError, match="pool_sise"):
        PoolSupervisor(ports=workers, pool_sise=1)
    with pytest.raises(AssertionError, match="not open"):
        _ = supervisor.pool
