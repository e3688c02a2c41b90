"""Which failures are tried again, and when."""

from __future__ import annotations

import pytest

from dspex_pool.call_policy import FREE_RETRIES, LONGEST_RETRY_DELAY, RETRY_DELAY, delay_before_retry
from dspex_pool.errors import (
    CallTimeoutError,
    CheckoutTimeoutError,
    DspexPoolError,
    InvalidArgumentError,
    ProgramError,
    RemoteProtocolError,
    SessionLostError,
    WorkerDiedError,
)

#: Facts of a worker's death from which it follows that the command cannot have begun.
HARMLESS = (
    (WorkerDiedError(request_sent=False), True),
    (WorkerDiedError(request_sent=True, request_read=False), True),
    (WorkerDiedError(request_sent=True), False),
)


def delay(
    error: DspexPoolError, attempt: int, *, retries: int = 0, idempotent: bool = False, begun: bool = True
) -> float | None:
    return delay_before_retry(error, attempt=attempt, retries=retries, idempotent=idempotent, begun=begun)


@pytest.mark.parametrize("idempotent", [False, True])
def test_command_that_no_worker_had_moves_for_free(idempotent: bool) -> None:
    """Two moves cost nothing, more need leave; then the caller hears of it. [property 56]"""
    for error, begun in HARMLESS:
        tries = [delay(error, attempt, begun=begun, idempotent=idempotent) for attempt in (1, 2, 3)]
        assert tries == [0.0] * FREE_RETRIES + [None]
        assert delay(error, 5, retries=5, begun=begun) == 0.0
        assert delay(error, 6, retries=5, begun=begun, idempotent=idempotent) is None


def test_command_that_may_have_begun_moves_only_with_leave() -> None:
    """A death, or garbage, over a command is tried again if that does no harm, as often as is allowed."""
    for error in (WorkerDiedError(request_sent=True), RemoteProtocolError()):
        assert delay(error, 1) is None
        assert delay(error, 1, retries=9) is None
        assert delay(error, 1, idempotent=True) is None
        assert delay(error, 2, retries=2, idempotent=True) == 0.0
        assert delay(error, 3, retries=2, idempotent=True) is None
    assert delay(RemoteProtocolError(), 1, retries=1, begun=False) == 0.0
    assert delay(RemoteProtocolError(), 1, begun=False) is None


def test_failures_that_the_worker_calls_retryable_wait_as_long_as_it_says() -> None:
    """Half a second unless told otherwise, never a negative time, and nobody is kept waiting for an hour."""

    def after(seconds: float | None) -> float | None:
        return delay(ProgramError(retryable=True, retry_after=seconds), 1, retries=1, idempotent=True)

    assert [after(None), after(7.5), after(0.0), after(-3.0)] == [RETRY_DELAY, 7.5, 0.0, 0.0]
    assert [after(LONGEST_RETRY_DELAY), after(3600.0), after(float("inf"))] == [
        LONGEST_RETRY_DELAY,
        None,
        None,
    ]
    assert delay(ProgramError(retryable=True), 1, retries=1) is None
    assert delay(ProgramError(retryable=False), 1, retries=1, idempotent=True) is None
    assert delay(ProgramError(), 1, retries=1, idempotent=True) is None


@pytest.mark.parametrize(
    "error",
    [CallTimeoutError(), CheckoutTimeoutError(), InvalidArgumentError(), SessionLostError()],
    ids=repr,
)
def test_other_failures_are_final(error: DspexPoolError) -> None:
    """What would fail again, or has had its time, is not repeated by the pool."""
    assert delay(error, 1, retries=9, idempotent=True) is None
