"""Importing without the collector."""

from __future__ import annotations

import gc

import pytest

from dspex_pool.bridge.importing import importing


@pytest.fixture(autouse=True)
def _thawed() -> object:
    """Give back to the collector what a test froze."""
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_within_nor_looked_through_afterwards() -> None:
    """The collector is on again after it, and what was made meanwhile is out of its sight."""
    with importing():
        assert not gc.isenabled()
        module: list[object] = []
    assert gc.isenabled()
    assert gc.get_freeze_count()
    assert not any(one is module for one in gc.get_objects())


def test_failed_import_leaves_the_collector_on() -> None:
    """A worker goes on after it."""
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_collector_that_is_off_stays_off_and_nothing_is_frozen() -> None:
    """A template keeps the collector off, and freezes all that it has itself."""
    gc.disable()
    frozen = gc.get_freeze_count()
    with importing():
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == frozen
