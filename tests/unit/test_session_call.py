"""What a call takes of its caller's arguments, and shows of them."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest

from dspex_pool.errors import InvalidArgumentError
from dspex_pool.session_call import Call, check_on_event, check_retries, check_timeout
from dspex_pool.worker_memory import DefaultModel, Step

if TYPE_CHECKING:
    from dspex_pool.protocol import Event


@pytest.mark.parametrize(
    ("given", "taken"),
    [(0.0, 0.0), (-0.0, 0.0), (2, 2), (2.5, 2.5), (1e300, 1e300), (None, None), (math.inf, None)],
)
def test_timeout_is_seconds_and_none_for_no_bound(given: float | None, taken: float | None) -> None:
    """However it is said that there is no bound, it is told to nobody as a number."""
    assert check_timeout(given) == taken


@pytest.mark.parametrize("given", [-1, -0.001, -math.inf, math.nan, True, "1", b"1", [1.0]])
def test_timeout_that_is_no_time_is_refused(given: Any) -> None:
    """The error names what was given."""
    with pytest.raises(InvalidArgumentError, match="at least 0; got") as caught:
        check_timeout(given)
    assert caught.value.argument == "timeout"


@pytest.mark.parametrize("given", [-1, 1.5, math.inf, True, "2"])
def test_retries_that_are_no_number_of_tries_are_refused(given: Any) -> None:
    """A text for a number was found out when a worker died, by a ``TypeError`` in place of the pool's own error."""
    with pytest.raises(InvalidArgumentError, match="at least 0; got") as caught:
        check_retries(given)
    assert caught.value.argument == "retries"


async def told_later(event: Event) -> None: ...


@pytest.mark.parametrize("given", [told_later, functools.partial(told_later), 5, [print]])
def test_on_event_that_nobody_can_call_is_refused(given: Any) -> None:
    """A coroutine function was called and never awaited: no event was told, and the call went well."""
    with pytest.raises(InvalidArgumentError, match="plain function") as caught:
        check_on_event(given)
    assert caught.value.argument == "on_event"


@pytest.mark.parametrize(
    "holder",
    [
        Call("s", None, "configure_lm", {"api_key": "sk-1"}),
        Step("configure_lm", {"api_key": "sk-1"}, 3),
        DefaultModel(2, {"api_key": "sk-1"}),
    ],
)
def test_keys_are_not_among_what_a_failure_shows_of_a_call(holder: object) -> None:
    """Reports of failures with variables, as those of hung tests, showed a model's key to whoever read the log."""
    assert "sk-1" not in repr(holder)
    assert type(holder).__name__ in repr(holder)
