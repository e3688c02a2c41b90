"""The worker's loop, without a process."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

import pytest

from dspex_pool.bridge.handler import HandlerContext
from dspex_pool.bridge.interrupts import Interrupts
from dspex_pool.bridge.logs import MAX_RECORDS_PER_REQUEST, RequestLog, RequestScope
from dspex_pool.bridge.loop import Loop
from dspex_pool.bridge.outlet import Outlet
from dspex_pool.bridge.process import Process
from dspex_pool.bridge.secrets import Secrets
from dspex_pool.protocol import FrameDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.bridge.handler import Command
    from dspex_pool.bridge.reader import Reader


class Requests:
    """A reader of requests that are there already, the last of them ``shutdown``."""

    def __init__(self, *commands: str) -> None:
        self._requests = enumerate([*commands, "shutdown"])

    def next_payload(self) -> bytes:
        """Return the next request."""
        number, command = next(self._requests)
        return json.dumps({"id": number, "command": command, "args": {}, "timestamp": ""}).encode()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("fails", [False, True])
def test_dropped_records_are_told_of_before_the_answer(pipe: tuple[int, int], fails: bool) -> None:
    """Whether the command succeeds or not; behind its answer they would break the protocol."""
    told: list[str] = []
    scope, interrupts, process = RequestScope(), Interrupts(), Process()

    def chatter(_: dict[str, Any]) -> None:
        scope.record_count = MAX_RECORDS_PER_REQUEST + 50
        assert not fails

    def emit(kind: str, data: dict[str, Any]) -> bool:
        with pytest.raises(BlockingIOError):  # nothing was answered
            os.read(pipe[0], 1)
        told.append(data["message"])
        return True

    commands: dict[str, Command] = {"chatter": chatter, "shutdown": lambda _: {}}
    outlet = Outlet(pipe[1], process, interrupts, max_frame_bytes=100_000)
    log = RequestLog(emit, scope, Secrets(), "w-1")
    requests = cast("Reader", Requests("chatter"))
    Loop(process, outlet, interrupts, log, scope).serve(requests, commands, HandlerContext(), None)

    decoder = FrameDecoder()
    decoder.feed(os.read(pipe[0], 100_000))
    answers = map(json.loads, iter(decoder.next_frame, None))
    assert [text.split(" of this")[0] for text in told] == ["50 more log records"]
    assert [answer["success"] for answer in answers] == [not fails, True]
