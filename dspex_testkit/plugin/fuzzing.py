"""A process that plays for the fuzzer, loaded by ``-p`` there alone: it keeps explored tests, and has them hunted."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from dspex_testkit.plugin.stash import HUNTER

if TYPE_CHECKING:
    from collections.abc import Generator

__all__: list[str] = []

#: Seconds that a process plays at the least, when it has at last started.
LEAST = 2.0


def pytest_configure(config: pytest.Config) -> None:
    """Read the order and plant the canary.

    Raises:
        pytest.UsageError: The canary cannot be planted.
    """
    import msgspec

    from dspex_testkit.fuzz.canary import canary_of
    from dspex_testkit.fuzz.hunter import Hunter
    from dspex_testkit.fuzz.messages import ORDER_VARIABLE, Order
    from dspex_testkit.planting import Planting

    order = msgspec.json.decode(os.environ[ORDER_VARIABLE], type=Order)
    planting = None
    if order.canary:
        planting = Planting()
        config.add_cleanup(planting.undo)
        try:
            canary_of(order.canary)(planting)
        except Exception as error:
            text = f"the canary {order.canary} cannot be planted: {type(error).__name__}: {error}"
            raise pytest.UsageError(text) from error
    config.stash[HUNTER] = Hunter(order, planting)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is no explored test, and let no limit of a test end the hunt."""
    explored = [item for item in items if "dspex_replay" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in explored])
    items[:] = explored
    for item in items:
        item.add_marker(pytest.mark.hangs_after(0), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give the test its share of the time that is left."""
    hunter = item.config.stash[HUNTER]
    items = item.session.items
    now, left = time.time(), len(items) - items.index(item)
    if item is items[0]:
        hunter.end = max(hunter.order.until, now + LEAST)
    hunter.until = now + max(0.0, hunter.end - now) / left
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """End the process after a case that never ended."""
    from dspex_testkit.fuzz.hunter import StuckError
    from dspex_testkit.fuzz.messages import STUCK

    try:
        return (yield)
    except StuckError as error:
        pytest.exit(str(error), returncode=STUCK)
