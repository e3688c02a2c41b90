"""Shedding by the time spent in line, without a pool."""

from __future__ import annotations

import pytest

from dspex_pool.core.shedding import ControlledDelay


def shed(waits: list[tuple[float, float]]) -> list[bool]:
    """Return who is turned away of those whose turns come at ``(time, waited)``; target 1 s, interval 5 s."""
    delay = ControlledDelay(target=1.0, interval=5.0)
    return [delay.sheds(waited, at) for at, waited in waits]


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        pytest.param([(0.0, 9.0), (1.0, 9.0), (4.9, 9.0)], [False] * 3, id="a burst within one interval"),
        pytest.param([(0.0, 9.0), (5.0, 9.0), (6.0, 9.0)], [False, True, True], id="a slow interval"),
        pytest.param(
            [(0.0, 1.0), (5.0, 9.0)], [False, False], id="an interval with a wait as long as the target"
        ),
        pytest.param([(0.0, 9.0), (5.0, 2.0)], [False, False], id="no more than twice the target"),
        pytest.param(
            [(0.0, 9.0), (1.0, 0.5), (5.0, 9.0)], [False] * 3, id="one short wait clears the interval"
        ),
        pytest.param(
            [(0.0, 9.0), (5.0, 9.0), (6.0, 0.1), (10.0, 9.0)],
            [False, True, False, False],
            id="a short wait ends the overload with its interval",
        ),
    ],
)
def test_shedding_needs_a_whole_slow_interval(waits: list[tuple[float, float]], expected: list[bool]) -> None:
    """A burst passes; a standing queue is shed from its slow end until an interval sees a short wait."""
    assert shed(waits) == expected
