"""What a call takes of its caller's arguments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dspex_pool.errors import InvalidArgumentError
from dspex_pool.session_call import check_timeout


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
