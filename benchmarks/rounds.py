"""Rounds over all subjects in turn, each subject in a process of its own.

Every round visits the subjects in another order, so that a disturbance of the machine hits all alike and a ratio
within one round means something.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.figures import CaseResult
from dspex_testkit.descendants import (
    TEST_RUN_VARIABLE,
    descendants,
    end_processes,
    kernel_time,
    own_tag,
    tagged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.workloads import Workload

__all__ = ["SubjectFailedError", "nothing_left", "run_case"]

ROOT = Path(__file__).resolve().parents[1]
#: Seconds that a subject has to open, and to close.
OPENING, CLOSING = 60.0, 10.0


class SubjectFailedError(Exception):
    """A subject has no figures; the text says why."""


class _Host:
    """The process of one subject."""

    def __init__(self, letter: str, subject: str, settings: dict[str, Any]) -> None:
        self.subject = subject
        self._command = [sys.executable, "-m", "benchmarks.host", letter, subject, json.dumps(settings)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._process: trio.Process | None = None
        self._unread = b""

    async def open(self) -> None:
        """Start the process and wait until its subject is open."""
        environment = {**os.environ, TEST_RUN_VARIABLE: tagged(os.environ, own_tag())}
        self._process = await trio.lowlevel.open_process(
            self._command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        await self._answer(OPENING)

    async def measure(self, patience: float) -> dict[str, float]:
        """Have one round measured."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(b"go\n")
        except trio.BrokenResourceError:
            raise SubjectFailedError(self._last_words()) from None
        values: dict[str, float] = (await self._answer(patience))["values"]
        return values

    async def _answer(self, patience: float) -> dict[str, Any]:
        with trio.move_on_after(patience):
            answer: dict[str, Any] = json.loads(await self._line())
            if "missing" in answer:
                raise SubjectFailedError(f"missing: {answer['missing']}")
            if "failure" in answer:
                raise SubjectFailedError(answer["failure"])
            return answer
        raise SubjectFailedError(f"no answer within {patience:g} s")

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            data = await self._process.stdout.receive_some()
            if not data:
                raise SubjectFailedError(self._last_words())
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"it ended: {lines[-1] if lines else 'without a word'}"

    async def aclose(self) -> None:
        """Have the process leave, or end it with all that it started."""
        if self._process is None:
            return
        try:
            with trio.move_on_after(CLOSING):
                assert self._process.stdin is not None
                await self._process.stdin.aclose()
                await self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await self._process.wait()
                if self._process.stdout is not None:
                    await self._process.stdout.aclose()
            self._errors.close()


async def run_case(
    workload: Workload,
    case: str,
    subjects: list[str],
    *,
    rounds: int,
    quick: bool,
    seed: int,
    tell: Callable[[str], None],
) -> CaseResult:
    """Measure one case of a workload with all subjects, round by round.

    Cancellation: All processes are ended.
    """
    result = CaseResult(
        workload.letter, workload.title, case, workload.metrics, workload.reference, {s: [] for s in subjects}
    )
    settings, order = workload.settings(case, quick=quick), random.Random(seed)
    hosts = [_Host(workload.letter, subject, settings) for subject in subjects]
    try:
        await _open_all(hosts, result)
        for number in range(rounds):
            tell(f"{workload.letter} {case}: round {number + 1} of {rounds}")
            alive = [host for host in hosts if host.subject not in result.failures]
            for host in order.sample(alive, len(alive)):
                await _measure(host, workload.patience, result)
    finally:
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(host.aclose)
    return result


async def _open_all(hosts: list[_Host], result: CaseResult) -> None:
    limit = trio.CapacityLimiter(os.cpu_count() or 1)

    async def open_one(host: _Host) -> None:
        async with limit:
            try:
                await host.open()
            except SubjectFailedError as error:
                result.failures[host.subject] = str(error)

    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(open_one, host)


async def _measure(host: _Host, patience: float, result: CaseResult) -> None:
    try:
        result.samples[host.subject].append(await host.measure(patience))
    except SubjectFailedError as error:
        result.failures[host.subject] = str(error)
        await host.aclose()


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """End whatever was started within the block, however deep below, and however the block ends."""
    since = kernel_time()
    try:
        yield
    finally:
        end_processes(descendants(own_tag(), (), since=since))
