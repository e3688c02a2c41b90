"""When a worker may be started: back-off and breaker, without a pool."""

from __future__ import annotations

import random
from typing import Any

import pytest

from dspex_pool.core.start_policy import StartPolicy


def policy(seed: int = 0, **changes: Any) -> StartPolicy:
    """Return a policy with round numbers."""
    settings: dict[str, Any] = {
        "max_starting": 2,
        "backoff_min": 1.0,
        "backoff_max": 30.0,
        "breaker_after": 60.0,
        "spawn_timeout": 60.0,
    }
    return StartPolicy(**settings | changes, random=random.Random(seed))


def failing(count: int, every: float, starts: StartPolicy | None = None) -> StartPolicy:
    """Return a policy that has seen ``count`` failures, ``every`` seconds apart, the first at 0."""
    starts = starts or policy()
    for number in range(count):
        starts.failed(number * every, OSError(f"failure {number}"))
    return starts


def test_starts_are_bounded_by_max_starting_while_all_is_well() -> None:
    """Without failures only the number in flight counts."""
    assert [policy().allowance(0.0, starting) for starting in (0, 1, 2)] == [2, 1, 0]


def test_delays_stay_within_their_bounds() -> None:
    """However many failures, a delay is at least ``backoff_min`` and at most ``backoff_max``. [property 46]"""
    starts = policy()
    delays = [starts.failed(0.0, None) for _ in range(2_000)]
    assert 1.0 <= min(delays) < max(delays) <= 30.0


def test_delays_grow_until_their_bound() -> None:
    """The upper end doubles with each failure, so the first delays are short. [property 46]"""
    first = [policy(seed).failed(0.0, None) for seed in range(50)]
    assert max(first) <= 2.0
    assert max(failing(5, 0.0, policy(seed)).retry_at for seed in range(50)) > 10.0


def test_delays_differ_between_pools_of_the_same_history() -> None:
    """Workers that failed together do not try again together. [property 46]"""
    delays = {round(policy(seed).failed(0.0, None), 6) for seed in range(20)}
    assert len(delays) == 20


def test_success_resets_the_delay() -> None:
    """After a success the next failure is the first again, and starts are free. [property 46]"""
    starts = failing(8, 0.0)
    assert not starts.succeeded()
    assert starts.allowance(0.0, 0) == 2
    assert (starts.failures, starts.last_error) == (0, None)
    assert starts.failed(0.0, None) <= 2.0


def test_one_start_is_tried_at_a_time_while_starts_fail() -> None:
    """After a failure one designated start is tried, not before its time, and not beside another."""
    starts = failing(1, 0.0)
    assert starts.allowance(starts.retry_at - 0.01, 0) == 0
    assert starts.allowance(starts.retry_at, 0) == 1
    assert starts.allowance(starts.retry_at, 1) == 0


def test_last_error_is_kept_when_a_later_failure_names_none() -> None:
    """A failure without an error of its own does not hide the one that explains it."""
    starts = policy()
    error = OSError("no such file")
    starts.failed(0.0, error)
    starts.failed(1.0, None)
    assert starts.last_error is error


@pytest.mark.parametrize(
    ("count", "ready", "opens"), [(7, 0, True), (6, 0, False), (7, 1, False), (0, 0, False)]
)
def test_breaker_needs_long_failure_and_no_worker(count: int, ready: int, opens: bool) -> None:
    """It opens when starts have failed for ``breaker_after`` and none is in service, and only once."""
    starts = failing(count, 10.0)
    assert starts.trip(10.0 * max(count - 1, 0), ready) is opens
    assert starts.is_open is opens
    assert starts.trip(100.0, ready) is False
    assert starts.succeeded() is opens
    assert not starts.is_open


def test_breaker_does_not_open_for_an_old_failure() -> None:
    """One failure long ago, with nothing tried since, is no failing for ``breaker_after``.

    The last worker of a lazy pool left minutes after a single failed start, and checkouts were refused.
    """
    starts = failing(1, 0.0)
    assert not starts.trip(61.0, 0)
    assert not starts.trip(1_000.0, 0)


def test_breaker_does_not_open_when_long_failing_has_long_passed() -> None:
    """Starts that failed for long while another worker served count no more when that worker leaves hours later."""
    starts = failing(10, 10.0)
    assert not starts.trip(10_000.0, 0)
    assert starts.trip(120.0, 0), "but they do count soon after"


def test_failure_long_after_the_last_begins_a_new_story() -> None:
    """Between two failures far apart nothing was tried, so nothing failed: delays and the breaker begin anew."""
    starts = failing(5, 1.0)
    starts.failed(1_000.0, None)
    assert starts.failures == 1
    assert starts.retry_at - 1_000.0 <= 2.0
    assert not starts.trip(1_000.0, 0)
