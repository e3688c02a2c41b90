"""Programs that have a pool over one store, one after the other, each killed; and the history of what they told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspex_pool import errors
from dspex_pool.session_store import SqliteSessionStore
from dspex_testkit.chaos.system import no_processes_of
from dspex_testkit.children.pool_host import TENANTS
from dspex_testkit.history.record import History

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

    from dspex_testkit.history.record import Operation

__all__ = ["ORPHAN_BOUND", "HostKilledError", "Lives", "host", "wait_without_orphans"]

#: Seconds after the death of a host in which no process of it may be left.
ORPHAN_BOUND = 2.0

#: Lines after which a host is killed at the latest, and seconds that it is then left, or left to start.
_MOST_LINES, _MOST_SECONDS = 150, 0.02
_MOST_STARTING = 1.0


class HostKilledError(Exception):
    """A host was killed before it had told the end of an operation."""


@contextmanager
def host(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program that has a pool, and kill it in the end."""
    command = [sys.executable, "-m", "dspex_testkit.children.pool_host", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_without_orphans(pid: int) -> float:
    """Wait until no process of a dead host is left; return the seconds that it took.

    Raises:
        AssertionError: One is left after ``ORPHAN_BOUND``.
    """
    began = time.monotonic()
    while not no_processes_of(f"{pid}-"):
        assert time.monotonic() - began < ORPHAN_BOUND, f"workers outlive their host by {ORPHAN_BOUND} s"
        time.sleep(0.02)
    return time.monotonic() - began


class Lives:
    """The lives of the hosts of one store.

    Args:
        store: The store's file.
        random: Draws what hosts do, and when they die.
        history: Takes what they tell; by default a new one.
    """

    def __init__(self, store: Path, random: random.Random, history: History | None = None) -> None:
        #: What hosts told, and what was found in the store between their lives.
        self.history = History(time.monotonic) if history is None else history
        #: Hosts that died of SIGKILL, and of those the ones that had told something.
        self.killed = self.had_told = 0
        #: Longest time in seconds from a host's death until no process of it was left.
        self.slowest = 0.0
        self._store = store
        self._random = random
        self._open: dict[int, Operation] = {}

    async def live(self) -> None:
        """Let one host live and die, and look at what it has left: no process, and a store that can be read.

        Cancellation: The host is killed. Nothing else runs while it lives.
        """
        with host("sessions", str(self._store), str(self._random.random())) as process:
            self._listen(process)
            process.kill()
            began = time.monotonic()
            assert process.wait() == -signal.SIGKILL
            wait_without_orphans(process.pid)
            self.slowest = max(self.slowest, time.monotonic() - began)
            # What it said before it died counts too.
            assert process.stdout is not None
            for line in process.stdout:
                self._hear(line)
        self.killed += 1
        for operation in self._open.values():
            self.history.unknown(operation, HostKilledError(), is_over=True)
        self._open.clear()
        await self.read_store()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Hear what a host tells, until the moment of its death."""
        assert process.stdout is not None
        lines = self._random.choice([0, self._random.randint(1, 40), self._random.randint(1, _MOST_LINES)])
        for _ in range(lines):
            line = process.stdout.readline()
            assert line, f"the host died by itself: {process.wait()}"
            self._hear(line)
        self.had_told += lines > 0
        time.sleep(self._random.uniform(0, _MOST_SECONDS if lines else _MOST_STARTING))

    def _hear(self, line: str) -> None:
        told: dict[str, Any] = json.loads(line)
        if "call" in told:
            operation = self.history.begin(told["session"], told["session"], told["command"], told["args"])
            self._open[told["call"]] = operation
            return
        operation = self._open.pop(told["answer"])
        if "error" in told:
            self.history.erred(operation, getattr(errors, told["error"])())
        else:
            self.history.ok(operation, told["value"])

    async def read_store(self) -> None:
        """Read the whole store, and enter it into the history as what a client was told.

        Cancellation: The store is closed.
        """
        if not self._store.exists():
            assert not self.history.operations
            return
        store = await SqliteSessionStore.open(self._store)
        try:
            programs = {session.id: session.programs for session in await store.load_all()}
        finally:
            await store.aclose()
        for number in range(TENANTS):
            session = f"tenant-{number}"
            found = programs.pop(session, {})
            listing = self.history.begin("reader", session, "list_programs")
            self.history.ok(listing, {"programs": [{"id": program_id} for program_id in found]})
            for program_id, program in found.items():
                asked = self.history.begin("reader", session, "get_program_info", {"program_id": program_id})
                told = {"program_id": program_id, "signature": program.definition["signature"]}
                self.history.ok(asked, told)
        assert not programs, f"sessions that nobody began: {sorted(programs)}"
