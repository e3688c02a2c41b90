"""What a test asks of the outcomes of a simulated run."""

from __future__ import annotations

import pytest

from dspex_pool.errors import WorkerDiedError
from dspex_testkit.simulation.outcomes import Outcome, Outcomes
from dspex_testkit.simulation.workload import Call

DIED = Outcomes([Outcome(Call(1), 0.0, ended=1.0, kind="WorkerDiedError")])


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("WorkerDiedError", 1),
        (WorkerDiedError, 1),
        ("answer", 0),
        ("cancelled", 0),
        ("own error", 0),
        ("WouldBlock", 0),
        ("PoolClosedError", 0),
    ],
)
def test_calls_are_counted_by_how_they_ended(kind: str | type[BaseException], number: int) -> None:
    """By a kind of outcome, or by an error, as its class or its name."""
    assert DIED.count(kind) == number


@pytest.mark.parametrize("kind", ["WorkerDiedErorr", "answered", ""])
def test_end_that_no_call_can_have_is_refused(kind: str) -> None:
    """``count("WorkerDiedErorr") == 0`` passed in a storm of deaths."""
    with pytest.raises(
        ValueError, match=f"no call ends with {kind!r}; there are answer, cancelled, own error"
    ):
        DIED.count(kind)
