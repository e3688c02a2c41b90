"""The lifeline of a worker: the system ends it with its pool, whatever it is busy with."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from dspex_pool.protocol.environment import LIFELINE_VARIABLE
from tests.bounded_waits import wait_until
from tests.bridge_process import is_gone, running_bridge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.protocol,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux sends a signal when a pipe ends"),
]


@contextlib.contextmanager
def lifeline() -> Iterator[tuple[int, int]]:
    """Give the worker's end of a lifeline and the pool's; the latter may be closed before."""
    far, near = os.pipe()
    try:
        yield far, near
    finally:
        os.close(far)
        with contextlib.suppress(OSError):
            os.close(near)


def test_frozen_worker_ends_with_its_pool_and_so_does_what_it_started() -> None:
    """C code holds the interpreter's lock, so no thread of the worker sees any end; the system acts."""
    with (
        lifeline() as (far, near),
        running_bridge(env={LIFELINE_VARIABLE: str(far)}, passed=(far,), is_measured=False) as bridge,
    ):
        grandchild = bridge.ask("spawn_grandchild", stubborn=True)["pid"]
        assert bridge.ask("environment", name=LIFELINE_VARIABLE) is None, "it is nobody else's"
        bridge.send("hold_gil", {"seconds": 600})
        wait_until(lambda: "holding" in bridge.stderr(), "the lock's being held")
        assert bridge.process.poll() is None
        os.close(near)
        assert bridge.wait() == -signal.SIGKILL
        wait_until(lambda: is_gone(grandchild), "its process is gone")


def test_worker_whose_pool_is_gone_before_it_hangs_on_ends_at_once() -> None:
    """Of an end that was closed before, the system tells nobody: a worker that froze in its imports stayed."""
    with lifeline() as (far, near):
        os.close(near)
        variables = {LIFELINE_VARIABLE: str(far)}
        with running_bridge(handshake=False, env=variables, passed=(far,), is_measured=False) as bridge:
            assert bridge.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", ["", "none", "-1", "1000000", "9" * 5000, "a file"])
def test_lifeline_that_is_none_is_done_without(number: str, tmp_path: Path) -> None:
    """A worker serves without one; the end of its stdin ends it all the same."""
    with (tmp_path / "file").open("w") as file:
        passed = (file.fileno(),) if number == "a file" else ()
        variables = {LIFELINE_VARIABLE: str(*passed) if passed else number}
        with running_bridge(env=variables, passed=passed) as bridge:
            assert bridge.ask("echo", value=1) == {"value": 1}
            bridge.close_stdin()
            assert bridge.wait() == 0
            assert bridge.stderr() == ""
