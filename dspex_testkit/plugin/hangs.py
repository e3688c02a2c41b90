"""A test that hangs fails with a picture of what it waits for, and the run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dspex_testkit.layers import LAYERS
from dspex_testkit.plugin.stash import LAYER
from dspex_testkit.settings import number_of, seconds_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from dspex_testkit.hangs.alarm import Alarm

__all__: list[str] = []

#: Set on tests whose limit by pytest-timeout is kept here.
_TAKEN_OVER = pytest.StashKey[bool]()
#: Seconds after which a test of a layer counts as hung; zero for never.
_TIMEOUTS = {"fast": 20.0, "protocol": 30.0, "integration": 60.0, "chaos": 300.0, "stress": 0.0}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings."""
    for name in LAYERS:
        text = (
            f"Seconds after which a {name} test counts as hung and fails with a picture of what it waits for "
            f"(default: {_TIMEOUTS[name]:g}; 0 for never)."
        )
        parser.addini(f"dspex_timeout_{name}", text, "float", _TIMEOUTS[name])


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    text = "hangs_after(seconds): when this test counts as hung, instead of its layer's dspex_timeout; 0 for never."
    config.addinivalue_line("markers", text)
    try:
        for name in LAYERS:
            number_of(config, f"dspex_timeout_{name}")
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def _seconds(item: pytest.Item) -> float:
    if (own := seconds_of(item, "hangs_after")) is not None:
        return own
    return _seconds_of_layer(item)


def _seconds_of_layer(item: pytest.Item) -> float:
    layer = item.stash.get(LAYER, None)
    return 0.0 if layer is None else float(item.config.getini(f"dspex_timeout_{layer.name}"))


def _can_stop(item: pytest.Item) -> bool:
    """Tell whether a test that hangs can be stopped here, and should be."""
    from dspex_testkit.hangs.alarm import Alarm

    return Alarm.is_possible() and not item.config.getoption("usepdb", False)


def _seconds_around(item: pytest.Item) -> float:
    """Return how long what comes before a test, or after it, may take: others than it may be made there, too."""
    own = _seconds(item)
    if not own or item.stash.get(LAYER, None) is None or item.stash.get(_TAKEN_OVER, False):
        return own
    of_layer = _seconds_of_layer(item)
    return max(own, of_layer) if of_layer else 0.0


def _failure(picture: str) -> BaseException:
    # Of the kind that pytest keeps for the next test with the same fixture, and goes on after with other fixtures.
    failure: BaseException = pytest.fail.Exception(picture, pytrace=False)
    return failure


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Have what alarms stop a test with heeded around all of it.

    So a handler that a fixture sets stays until the fixture takes it back.
    """
    if not _seconds_around(item) or not _can_stop(item):
        return (yield)
    from dspex_testkit.hangs.alarm import heeding_interrupts

    with heeding_interrupts():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch what comes before the test."""
    return (yield from _watched_around(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch what comes after the test."""
    return (yield from _watched_around(item))


def _watched_around(item: pytest.Item) -> Generator[None, Any, Any]:
    seconds = _seconds_around(item)
    if not seconds or not _can_stop(item):
        return (yield)
    from dspex_testkit.hangs.alarm import Alarm

    # Other fixtures have a turn after the one that hung.
    return (yield from _watched(Alarm(seconds, again=seconds, error=_failure)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch the test."""
    seconds = _seconds(item)
    if not seconds or not _can_stop(item):
        return (yield)
    from dspex_testkit.hangs.alarm import Alarm

    return (yield from _watched(Alarm(seconds)))


def _watched(alarm: Alarm) -> Generator[None, Any, Any]:
    result = None
    try:
        with alarm:
            result = yield
    except BaseException:
        if alarm.picture is None:
            raise
    if alarm.picture is not None:
        pytest.fail(alarm.picture, pytrace=False)
    return result


# pytest-timeout, where it is installed, would end the whole run or the loop of trio: its limits are kept by us.


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Take over pytest-timeout's limit of a test that has a layer."""
    # A limit of the function only is set inside our own watch, too late to be taken over.
    if item.stash.get(LAYER, None) is None or settings.func_only or not _can_stop(item):
        return None
    item.stash[_TAKEN_OVER] = True
    if item.get_closest_marker("hangs_after") is None:
        item.add_marker(pytest.mark.hangs_after(settings.timeout))
    return True


@pytest.hookimpl(optionalhook=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool | None:
    """Tell pytest-timeout that there is nothing of its own to cancel."""
    # Whatever it did set it must cancel, or it ends a later test, or the run.
    return item.stash.get(_TAKEN_OVER, None)
