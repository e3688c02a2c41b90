"""The worker's reader and its watcher, where they meet."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NoReturn

import pytest

from dspex_pool.bridge.process import EXIT_NOT_A_FRAME, Process, Wires
from dspex_pool.bridge.reader import Reader
from dspex_pool.protocol.framing import encode_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.fast


class EndedError(Exception):
    """The process has ended."""


class FakeProcess(Process):
    """Ends nothing, and says with which status it would have."""

    def end(self, code: int, last_words: str = "") -> NoReturn:
        """Raise instead."""
        raise EndedError(code, last_words)


@pytest.fixture
def client() -> Iterator[tuple[Reader, int]]:
    """A reader whose client has sent nothing, and where the client writes."""
    stdin, requests = os.pipe()
    answers, stdout = os.pipe()
    before = signal.set_wakeup_fd(-1)
    reader = Reader(FakeProcess(), Wires(stdin, stdout), max_frame_bytes=1000)
    yield reader, requests
    signal.set_wakeup_fd(before)
    for number in (stdin, requests, answers, stdout, reader._wakeup, reader._wakeup_write):
        os.close(number)


@pytest.mark.hangs_after(1)
def test_watcher_does_not_wait_for_what_the_main_thread_has_read(client: tuple[Reader, int]) -> None:
    """Told of bytes that the main thread then took, the watcher waited for more, deaf to SIGTERM meanwhile."""
    reader, _ = client
    reader._read_ahead()
    assert not reader._turn.locked()


@pytest.mark.hangs_after(1)
def test_watcher_finds_what_came_with_a_request_that_takes_long(client: tuple[Reader, int]) -> None:
    """Garbage that one read brought along with a request lay unseen for as long as the command took."""
    reader, requests = client
    os.write(requests, encode_frame(b"{}") + b"Traceback (most recent call last):")
    assert reader.next_payload() == b"{}"
    with pytest.raises(EndedError, match=str(EXIT_NOT_A_FRAME)):
        reader._step()


@pytest.mark.hangs_after(1)
def test_requests_that_the_watcher_found_keep_their_order(client: tuple[Reader, int]) -> None:
    """What came behind a request is answered in the order in which it came, whoever took it from its bytes."""
    reader, requests = client
    os.write(requests, b"".join(map(encode_frame, (b"1", b"2", b"3"))))
    assert reader.next_payload() == b"1"
    reader._step()
    os.write(requests, encode_frame(b"4"))
    assert [reader.next_payload() for _ in range(3)] == [b"2", b"3", b"4"]
