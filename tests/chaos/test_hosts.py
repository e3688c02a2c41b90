"""``kill -9`` of the program that has the pool: its workers leave, and its sessions are found again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dspex_pool.config import PoolConfig
from tests.chaos.fire import no_processes_of, watched_pool
from tests.chaos.host import MOCK_WORKER, MOMENTS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).resolve().parents[2]

#: Seconds after the death of a host in which no process of it may be left.
ORPHAN_BOUND = 2.0


@contextmanager
def host(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program that has a pool, and kill it in the end."""
    command = [sys.executable, "-m", "tests.chaos.host", *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_without_orphans(pid: int) -> None:
    """Wait until no process of a dead host is left.

    Raises:
        AssertionError: One is left after ``ORPHAN_BOUND``.
    """
    deadline = time.monotonic() + ORPHAN_BOUND
    while not no_processes_of(f"{pid}-"):
        assert time.monotonic() < deadline, f"workers outlive their host by {ORPHAN_BOUND} s"
        time.sleep(0.02)


def kill_host(moment: str, delay: float) -> None:
    """Kill a host ``delay`` seconds after it reached a moment, and see its workers go."""
    with host(moment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        assert not no_processes_of(f"{process.pid}-"), "the host has no workers"
        process.kill()
        process.wait()
        wait_without_orphans(process.pid)


@pytest.mark.parametrize("moment", MOMENTS)
def test_no_worker_outlives_its_host(moment: str, dspex_random: random.Random) -> None:
    """Whatever workers are doing when their host is killed, they and their children are gone within two seconds."""
    kill_host(moment, dspex_random.uniform(0, 0.05))


def test_no_worker_outlives_its_host_in_a_soak(dspex_random: random.Random) -> None:
    """Twenty hosts, one after the other, killed at moments of chance."""
    for _ in range(20):
        kill_host(dspex_random.choice(list(MOMENTS)), dspex_random.uniform(0, 0.2))


@pytest.mark.trio
async def test_sessions_in_sqlite_outlive_the_kill_of_their_host(
    dspex_random: random.Random, tmp_path: Path
) -> None:
    """Three hosts are killed while they make programs: what was acknowledged is there, and runs, in the next pool."""
    store, acknowledged = tmp_path / "sessions.db", defaultdict[str, list[str]](list)
    for _ in range(3):
        with host("sessions", str(store)) as process:
            assert process.stdout is not None
            for _ in range(dspex_random.randint(5, 60)):
                session_id, program_id = process.stdout.readline().split()
                acknowledged[session_id].append(program_id)
            process.kill()
            # What it said before it died counts too.
            for line in process.stdout.read().splitlines():
                session_id, program_id = line.split()
                acknowledged[session_id].append(program_id)
            process.wait()
        wait_without_orphans(process.pid)
    config = PoolConfig(pool_size=2, command=MOCK_WORKER, session_store=f"sqlite:{store}")
    async with watched_pool(config) as (pool, _):
        for session_id, program_ids in acknowledged.items():
            adapter = pool.session_adapter(session_id)
            listed = {program["id"] for program in (await adapter.list_programs())["programs"]}
            assert listed >= set(program_ids)
            # One may have been committed and not acknowledged in each of the three lives.
            assert len(listed) <= len(program_ids) + 3
            reply = await adapter.execute_program(program_ids[-1], {"question": "still there?"})
            assert "answer" in reply["outputs"]
    assert len(acknowledged) == 5
