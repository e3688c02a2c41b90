"""The worker's reader and its watcher, where they meet."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from dspex_pool.bridge.process import Process, Wires
from dspex_pool.bridge.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fast


@pytest.fixture
def idle_reader() -> Iterator[Reader]:
    """A reader whose client has sent nothing."""
    stdin, requests = os.pipe()
    answers, stdout = os.pipe()
    before = signal.set_wakeup_fd(-1)
    reader = Reader(Process(), Wires(stdin, stdout), max_frame_bytes=1000)
    yield reader
    signal.set_wakeup_fd(before)
    for number in (stdin, requests, answers, stdout, reader._wakeup, reader._wakeup_write):
        os.close(number)


@pytest.mark.hangs_after(1)
def test_watcher_does_not_wait_for_what_the_main_thread_has_read(idle_reader: Reader) -> None:
    """Told of bytes that the main thread then took, the watcher waited for more, deaf to SIGTERM meanwhile."""
    idle_reader._read_ahead()
    assert not idle_reader._turn.locked()
