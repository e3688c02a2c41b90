"""The raw limit: what two processes and two pipes cost without any pool."""

from __future__ import annotations

import contextlib
import itertools
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.contenders.contender import Contender, check
from benchmarks.contenders.raw_worker import read_frame, write_frame
from dspex_pool.transport.pipes import grow_pipe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["RawLimit", "open_raw"]

_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
_WORKER = Path(__file__).with_name("raw_worker.py")


class _Pipes:
    """One worker process: a request is written, an answer is read, and both block."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(_WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        grow_pipe(self.stdin)
        grow_pipe(self.stdout)
        self._numbers = itertools.count(1)

    def send(self, task: str, argument: Any) -> None:
        request = {"id": next(self._numbers), "command": task, "args": {"value": argument}, "timestamp": ""}
        write_frame(self.stdin, _encode(request))

    def receive(self) -> Any:
        return _decode(read_frame(self.stdout))["result"]

    def close(self) -> None:
        self.process.communicate()


class RawLimit(Contender):
    """Some workers, spoken to one after the other, or all at once with epoll.

    Cancellation: As for ``Contender``.
    """

    def __init__(self, workers: list[_Pipes]) -> None:
        self._workers = workers

    async def one_by_one(self, task: str, argument: Any, count: int) -> list[float]:
        """Write, read, and so on, with one worker."""
        clock, taken, pipes = time.perf_counter, [], self._workers[0]
        for _ in range(count):
            began = clock()
            pipes.send(task, argument)
            answer = pipes.receive()
            taken.append(clock() - began)
            check(task, argument, answer)
        return taken

    async def together(self, task: str, argument: Any, *, count: int, callers: int) -> float:
        """Keep one request with each worker. There are no callers that could wait."""
        by_descriptor = {pipes.stdout: pipes for pipes in self._workers}
        began = time.perf_counter()
        with select.epoll() as poll:
            for pipes in self._workers:
                poll.register(pipes.stdout, select.EPOLLIN)
                pipes.send(task, argument)
            sent = done = len(self._workers)
            done = 0
            while done < count:
                for descriptor, _ in poll.poll():
                    pipes = by_descriptor[descriptor]
                    check(task, argument, pipes.receive())
                    done += 1
                    if sent < count:
                        pipes.send(task, argument)
                        sent += 1
        return time.perf_counter() - began

    async def call(self, task: str, argument: Any, *, timeout: float | None = None) -> Any:
        """Write and read."""
        self._workers[0].send(task, argument)
        return self._workers[0].receive()


@contextlib.asynccontextmanager
async def open_raw(workers: int) -> AsyncIterator[RawLimit]:
    """Start the workers, and have them end."""
    with contextlib.ExitStack() as closing:
        started = []
        for _ in range(workers):
            started.append(_Pipes())
            closing.callback(started[-1].close)
        yield RawLimit(started)
