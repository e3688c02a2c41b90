"""The scenario of a program that is killed with its pool: no worker outlives it, and its sessions are found again."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from dspex_testkit.chaos.system import no_processes_of
from dspex_testkit.ports.waiting import until
from dspex_testkit.scenarios.scenario import Scenario
from dspex_testkit.seeds import random_of

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Mapping

    from dspex_testkit.ports.handle import PoolHandle
    from dspex_testkit.scenarios.performance import Performance

__all__ = ["ParentKilled"]

#: Seconds after the death of a parent in which its workers must be gone.
_ORPHANS_LEAVE_WITHIN = 5.0
#: Seconds that the host has to acknowledge what it is killed after, on a slow machine.
_ACKNOWLEDGES_WITHIN = 20.0


@dataclass(frozen=True, kw_only=True)
class ParentKilled(Scenario):
    """Kills a program of its own that has a pool with sessions in a file, and opens a pool on the same file."""

    async def play(self, performance: Performance) -> None:
        """Kill the program while it makes programs in sessions; then see what is left of them.

        Raises:
            AssertionError: A worker outlives it, or a program that it had acknowledged is gone.

        Cancellation: The program is killed.
        """
        numbers = random_of(performance.plan.seed, f"{self.name} moment")
        with tempfile.TemporaryDirectory(prefix="dspex-parent-") as folder:
            store = Path(folder) / "sessions.db"
            acknowledged = await self._kill_a_host(performance, store, numbers)
            async with performance.pool(session_store=f"sqlite:{store}") as pool:
                for session, made in acknowledged.items():
                    await self._look_for(performance, pool, session, made)
                await performance.heal(pool, since=trio.current_time())

    async def _kill_a_host(
        self, performance: Performance, store: Path, numbers: random.Random
    ) -> dict[str, list[str]]:
        """Return the programs by session that a host acknowledged before it was killed."""
        acknowledged = defaultdict[str, list[str]](list)
        async with _host(store) as process:
            lines = _lines(process)
            with trio.fail_after(_ACKNOWLEDGES_WITHIN):
                for _ in range(numbers.randint(5, 40)):
                    self._note(performance, await anext(lines), acknowledged)
            process.kill()
            # What it said before it died counts too.
            async for line in lines:
                self._note(performance, line, acknowledged)
            assert await process.wait() == -signal.SIGKILL, f"it ended by itself: {process.returncode}"
            performance.proofs.append("the parent ended by SIGKILL")
        what = "the workers of a dead parent are gone"
        await until(lambda: no_processes_of(f"{process.pid}-"), what, within=_ORPHANS_LEAVE_WITHIN)
        return acknowledged

    @staticmethod
    async def _look_for(performance: Performance, pool: PoolHandle, session: str, made: list[str]) -> None:
        """See that a session has its programs, and that the last of them runs."""

        async def call(command: str, args: Mapping[str, Any]) -> Any:
            return (
                await performance.history.call(pool, session, command, args, client=f"{session} later")
            ).value

        found = {program["id"] for program in (await call("list_programs", {}))["programs"]}
        assert set(made) <= found, f"of {session} are lost: {sorted(set(made) - found)}"
        # One may have been committed and not acknowledged.
        assert len(found) <= len(made) + 1, f"{session} has what it never made: {sorted(found)}"
        await call("execute_program", {"program_id": made[-1], "inputs": {"question": "still there?"}})

    @staticmethod
    def _note(performance: Performance, line: str, acknowledged: dict[str, list[str]]) -> None:
        session, program = line.split()
        acknowledged[session].append(program)
        args = {"id": program, "signature": "question -> answer"}
        operation = performance.history.begin(f"{session} before", session, "create_program", args)
        performance.history.ok(operation)


@contextlib.asynccontextmanager
async def _host(store: Path) -> AsyncIterator[trio.Process]:
    """Run a program that has a pool; kill it in the end."""
    command = [sys.executable, "-m", "dspex_testkit.children.pool_host", "sessions", str(store)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def _lines(process: trio.Process) -> AsyncIterator[str]:
    """Give what a program prints, line by line; a line that it did not finish is left out."""
    assert process.stdout is not None, "its stdout is a pipe"
    rest = b""
    async for data in process.stdout:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode()
