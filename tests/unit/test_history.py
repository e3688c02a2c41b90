"""The record of operations: each is called once and ends once, in one order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import trio

from dspex_pool.errors import (
    CallTimeoutError,
    CheckoutTimeoutError,
    DspexPoolError,
    ProgramError,
    RemoteProtocolError,
    WorkerDiedError,
)
from dspex_pool.session_call import Reply
from dspex_testkit.history.record import CANCELLED, History, Outcome


class CannedPool:
    """Stands for a pool: answers with a reply, raises an error, or waits for ever.

    Args:
        ending: The reply or the error; ``None`` to wait.
    """

    def __init__(self, ending: Reply | DspexPoolError | None) -> None:
        self.sessions: Any = self
        self.calls: list[tuple[object, ...]] = []
        self._ending = ending

    async def execute_in_session(self, *call: object, **_options: object) -> Reply:
        """Do as told, for a session."""
        self.calls.append(call)
        if self._ending is None:
            await trio.sleep_forever()
        if isinstance(self._ending, DspexPoolError):
            raise self._ending
        assert self._ending is not None
        return self._ending

    async def execute_anonymous(self, *call: object, **options: object) -> Reply:
        """Do as told, for nobody."""
        return await self.execute_in_session(None, *call, **options)


def ticking() -> History:
    """Return a history whose clock goes on by a second with each look."""
    return History(itertools.count(1.0).__next__)


def test_operation_is_recorded_from_call_to_answer() -> None:
    """Who called what for whom and when, and what was answered when and by whom, is there afterwards."""
    history = ticking()
    operation = history.begin("c-1", "s-1", "echo", {"n": 1})
    assert operation.ended == math.inf
    history.ok(operation, {"n": 1}, "w-2", attempts=2)
    assert history.operations == [operation]
    assert (operation.client, operation.session, operation.command) == ("c-1", "s-1", "echo")
    assert (operation.called, operation.ended, operation.since, operation.until) == (1.0, 2.0, 0, 1)
    assert (operation.outcome, operation.value, operation.worker_id) == (Outcome.OK, {"n": 1}, "w-2")
    assert (operation.attempts, operation.ends) == (2, 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CheckoutTimeoutError("late"), Outcome.FAILED),
        (ProgramError("raised"), Outcome.FAILED),
        (RemoteProtocolError("garbage"), Outcome.UNKNOWN),
        (CallTimeoutError("late"), Outcome.UNKNOWN),
        (WorkerDiedError("died", request_sent=True), Outcome.UNKNOWN),
        (WorkerDiedError("died", request_sent=False), Outcome.FAILED),
        (WorkerDiedError("died", request_sent=True, request_read=False), Outcome.FAILED),
        (OSError("not the pool's"), Outcome.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_error_tells_whether_the_operation_may_have_been_done(error: Exception, outcome: Outcome) -> None:
    """Only what surely did not take effect, or ended in the program's own error, counts as failed."""
    history = ticking()
    operation = history.begin("c-1", "s-1", "echo")
    history.erred(operation, error)
    assert operation.outcome is outcome
    assert operation.error == type(error).__name__
    assert history.count(outcome) == history.count(outcome, "echo") == 1


def test_second_end_is_counted_and_changes_nothing() -> None:
    """The first outcome stays; that there was a second can be seen."""
    history = ticking()
    operation = history.begin("c-1", None, "echo")
    history.ok(operation, 1)
    history.failed(operation, CheckoutTimeoutError("late"))
    assert (operation.outcome, operation.value, operation.error, operation.ends) == (Outcome.OK, 1, "", 2)


@pytest.mark.trio
async def test_call_records_answers_and_errors_and_raises_neither() -> None:
    """The pool is asked once, for the session or for nobody; an error of the pool is data."""
    history = History()
    pool, broken = CannedPool(Reply("yes", "w-1", 3)), CannedPool(WorkerDiedError("died", worker_id="w-1"))
    answered = await history.call(pool, None, "echo", {"n": 1}, client="c-1")
    died = await history.call(broken, "s-1", "echo", client="c-1")
    assert pool.calls == [(None, "echo", {"n": 1})]
    assert broken.calls == [("s-1", "echo", None)]
    assert (answered.value, answered.worker_id, answered.attempts) == ("yes", "w-1", 3)
    assert (died.outcome, died.error, died.worker_id) == (Outcome.UNKNOWN, "WorkerDiedError", "w-1")
    assert history.operations == [answered, died]


@pytest.mark.trio
async def test_cancelled_call_is_unknown_and_goes_on_being_cancelled(autojump_clock: object) -> None:
    """Nobody knows what became of a call that nobody waited for."""
    history = History()
    with trio.move_on_after(1) as scope:
        await history.call(CannedPool(None), "s-1", "echo", client="c-1")
    assert scope.cancelled_caught
    (operation,) = history.operations
    assert (operation.outcome, operation.error) == (Outcome.UNKNOWN, CANCELLED)
    assert operation.ended - operation.called == pytest.approx(1)


def test_leases_have_a_begin_and_an_end_in_the_same_order() -> None:
    """Leases and operations stand in one order, so that it can be said which came first."""
    history = ticking()
    lease = history.acquired(7, 3, "w-1")
    operation = history.begin("c-1", None, "echo")
    history.released(lease)
    history.released(lease)
    assert (lease.worker, lease.token, lease.told_by) == (7, 3, "caller")
    assert lease.since < operation.since < lease.until == 2
