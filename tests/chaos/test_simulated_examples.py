"""Async tests with Hypothesis: each example has its own time and its own order of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import find, given, settings
from hypothesis import strategies as st

from dspex_testkit.simulation.examples import schedules, simulated
from dspex_testkit.simulation.schedulers import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.chaos

BEGINS: list[float] = []
ORDERS: set[tuple[int, ...]] = set()


@simulated
@settings(max_examples=60, database=None)
@given(pause=st.integers(1, 3600))
async def test_each_example_begins_at_zero(pause: int) -> None:
    """No time of one example is left for the next, however long it slept."""
    BEGINS.append(trio.current_time())
    await trio.sleep(pause)
    assert set(BEGINS) == {0.0}


@simulated
@settings(max_examples=60, database=None)
@given(count=st.just(4))
async def explore_orders(count: int) -> None:
    """Note in which order tasks run that are ready together."""
    order: list[int] = []

    async def note(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(note, number)
    ORDERS.add(tuple(order))


def test_examples_are_tried_in_many_orders() -> None:
    """Hypothesis draws the schedule with the example, where trio alone would show one order in all of them."""
    ORDERS.clear()
    explore_orders()
    assert len(ORDERS) > 8


@pytest.fixture(scope="module")
def orders_with_pool() -> Iterator[set[tuple[str, ...]]]:
    """Collect the orders in which callers of a pool come to their turn; there must be several."""
    orders: set[tuple[str, ...]] = set()
    yield orders
    assert len(orders) > 2


@pytest.mark.ports("sim")
@settings(max_examples=25, database=None, deadline=None)
@given(callers=st.just("abc"))
async def test_bodies_with_a_pool_are_tried_in_many_orders(
    pool: Any, orders_with_pool: set[tuple[str, ...]], callers: str
) -> None:
    """The fixtures of the simulated port get a schedule with each example too."""
    order: list[str] = []

    async def ask(name: str) -> None:
        async with pool.workers.checkout():
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name in callers:
            nursery.start_soon(ask, name)
    orders_with_pool.add(tuple(order))


def test_race_is_found_and_told_with_its_schedule() -> None:
    """A race fails, shrunk to the calls and the schedule that it takes."""

    @simulated
    @settings(max_examples=300, database=None, derandomize=True)
    @given(callers=st.integers(1, 5))
    async def race(callers: int) -> None:
        taken: list[int] = []

        async def take(number: int) -> None:
            if not taken:
                await trio.lowlevel.checkpoint()
                taken.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, 0)
            await trio.lowlevel.checkpoint()
            for number in range(1, callers):
                nursery.start_soon(take, number)
        assert taken[0] == 0

    with pytest.raises(AssertionError) as caught:
        race()
    told = "\n".join(caught.value.__notes__)
    assert "callers=2" in told
    assert "schedule: turns [Turn(" in told


def test_simplest_schedule_is_the_plain_order() -> None:
    """What needs no schedule is told without one."""
    assert find(schedules(), lambda _: True, settings=settings(database=None)) == Schedule()


@pytest.mark.parametrize("test", [lambda: None, given(st.just(1))(lambda one: None)])
def test_other_tests_are_refused(test: Any) -> None:
    """A test that is not async, or has no examples, is not run in silence as something else."""
    with pytest.raises(TypeError, match="goes above @given"):
        simulated(test)
