"""A trio run beside a synchronous program."""

from __future__ import annotations

import pytest
import trio

from dspex_testkit import guest_run
from dspex_testkit.guest_run import GuestRun

pytestmark = pytest.mark.fast


def test_background_tasks_live_on_and_time_stands_still_between_jobs() -> None:
    """A task goes from deadline to deadline when time is let go, at the exact moments, and not before."""
    woken: list[float] = []

    async def wake() -> None:
        for _ in range(3):
            await trio.sleep(1.0)
            woken.append(trio.current_time())

    async def start() -> None:
        host.nursery.start_soon(wake)

    with GuestRun() as host:
        host.run(start)
        host.settle()
        assert woken == []
        host.advance(1.5)
        assert woken == [1.0]
        host.advance(5.0)
        assert woken == [1.0, 2.0, 3.0]


def test_failure_of_a_background_task_fails_the_job_of_the_moment() -> None:
    """The error itself comes out, not a group of one."""

    async def fail() -> None:
        raise KeyError("background")

    async def start() -> None:
        host.nursery.start_soon(fail)

    host = GuestRun()
    host.run(start)
    with pytest.raises(KeyError, match="background"):
        host.settle()


def test_job_that_waits_for_nothing_is_named_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hung job raises, and the run can still be closed.

    The run's own beginning and end had no more patience than the job, and a busy machine took longer: then the run
    went on, and every later test of the process failed.
    """
    with GuestRun() as host:
        with monkeypatch.context() as patch:
            patch.setattr(guest_run, "PATIENCE", 0.001)
            with pytest.raises(AssertionError, match="nothing can happen any more"):
                host.run(trio.sleep_forever)
