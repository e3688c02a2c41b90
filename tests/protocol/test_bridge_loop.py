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


@pytest.mark.parametrize(("fails", "dropped"), [(False, 50), (True, 50), (False, 1), (False, 0)])
def test_dropped_records_are_told_of_before_the_answer(
    pipe: tuple[int, int], fails: bool, dropped: int
) -> None:
    """Whether the command succeeds or not; behind its answer they would break the protocol."""
    told: list[str] = []
    scope, interrupts, process = RequestScope(), Interrupts(), Process()

    def chatter(_: dict[str, Any]) -> None:
        scope.record_count = MAX_RECORDS_PER_REQUEST + dropped
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

    assert [text.split(" of this")[0] for text in told] == [f"{dropped} more log records"] * bool(dropped)
    assert successes(pipe[0]) == [not fails, True]
    assert scope.request_id is None, "what is logged from now on is no request's"


def successes(answers: int) -> list[bool]:
    """Read what was answered, and tell of each whether it is a success."""
    decoder = FrameDecoder()
    decoder.feed(os.read(answers, 100_000))
    return [json.loads(payload)["success"] for payload in iter(decoder.next_frame, None)]


def test_shutdown_that_fails_leaves_the_worker_to_serve(pipe: tuple[int, int]) -> None:
    """Whoever asked for it is told that nothing came of it, and asks again."""
    scope, interrupts, process = RequestScope(), Interrupts(), Process()
    outcomes = iter([float("nan"), {}])
    outlet = Outlet(pipe[1], process, interrupts, max_frame_bytes=100_000)
    log = RequestLog(outlet.event, scope, Secrets(), "w-1")
    requests = cast("Reader", Requests("shutdown"))
    commands: dict[str, Command] = {"shutdown": lambda _: next(outcomes)}
    Loop(process, outlet, interrupts, log, scope).serve(requests, commands, HandlerContext(), None)
    assert successes(pipe[0]) == [False, True]
