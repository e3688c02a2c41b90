"""``kill -9`` of the program that has the pool: its workers leave, and its sessions are found again."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from dspex_pool.config import PoolConfig
from dspex_pool.session_store import SqliteSessionStore
from dspex_testkit.chaos.system import no_processes_of
from dspex_testkit.children.pool_host import MOCK_WORKER, MOMENTS, TENANTS, WARMING
from dspex_testkit.history.checkers import check_history
from dspex_testkit.history.consistency import consistent
from dspex_testkit.history.record import Outcome
from dspex_testkit.scenarios.lives import HostKilledError, Lives, host, wait_without_orphans
from tests.chaos.fire import watched_pool

if TYPE_CHECKING:
    import random
    from pathlib import Path

pytestmark = pytest.mark.chaos

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="templates take what Linux has")

#: Elsewhere nothing tells a worker that cannot run any code of its own.
HERE = [moment for moment in MOMENTS if sys.platform == "linux" or moment not in ("frozen", "stopped")]

#: How a command of a host may end, but for its answer.
LAWFUL = (HostKilledError.__name__, "ProgramExistsError", "ProgramNotFoundError")


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


@pytest.mark.parametrize("moment", HERE)
def test_no_worker_outlives_its_host(moment: str, dspex_random: random.Random) -> None:
    """Whatever workers are doing when their host is killed, they and their children are gone within two seconds."""
    kill_host(moment, dspex_random.uniform(0, 0.05))


@pytest.mark.parametrize("prefix", ["", pytest.param("template/", marks=LINUX)])
def test_no_worker_outlives_its_host_in_a_soak(prefix: str, dspex_random: random.Random) -> None:
    """Twenty hosts, one after the other, killed at moments of chance."""
    for _ in range(20):
        kill_host(prefix + dspex_random.choice(HERE), dspex_random.uniform(0, 0.2))


@LINUX
@pytest.mark.parametrize("moment", ["with_grandchildren", WARMING])
def test_no_template_outlives_its_host(moment: str, dspex_random: random.Random) -> None:
    """Nor a worker that it has forked; also where the template is still busy with an import, deep in C."""
    kill_host(f"template/{moment}", dspex_random.uniform(0, 0.5))


@LINUX
def test_no_template_outlives_its_host_in_a_soak(dspex_random: random.Random) -> None:
    """Twenty templates whose host is killed from the moment that they exist."""
    for _ in range(20):
        kill_host(f"template/{WARMING}", dspex_random.uniform(0, 0.3))


async def kill_hosts(store: Path, random: random.Random, count: int) -> Lives:
    """Kill so many hosts of one store at moments of chance; see that nothing is left, and nothing lost."""
    lives = Lives(store, random)
    while lives.killed < count or not lives.had_told:
        await lives.live()
    check_history(lives.history, errors=LAWFUL, faults=lives.killed)
    config = PoolConfig(pool_size=2, command=MOCK_WORKER, session_store=f"sqlite:{store}")
    async with watched_pool(config) as (pool, _):
        created = {"id": "last", "signature": "question -> answer"}
        await lives.history.call(pool, "tenant-0", "create_program", created, client="the end")
        for session in (f"tenant-{number}" for number in range(TENANTS)):
            listed = await lives.history.call(pool, session, "list_programs", client="the end")
            for program in listed.value["programs"]:
                args = {"program_id": program["id"], "inputs": {"question": "still there?"}}
                await lives.history.call(pool, session, "execute_program", args, client="the end")
    check_history(lives.history, errors=LAWFUL)
    return lives


@pytest.mark.trio
async def test_sessions_in_sqlite_outlive_the_kill_of_their_host(
    dspex_random: random.Random, tmp_path: Path
) -> None:
    """Three hosts are killed: no worker is left, and the store holds what was acknowledged. A loss would be seen."""
    lives = await kill_hosts(tmp_path / "sessions.db", dspex_random, 3)
    store = await SqliteSessionStore.open(tmp_path / "sessions.db")
    await store.delete_program("tenant-0", "last")
    await store.aclose()
    await lives.read_store()
    assert consistent()(lives.history), "a program was lost, and nobody saw it"


@pytest.mark.trio
async def test_sessions_in_sqlite_outlive_a_hundred_kills_in_a_soak(
    dspex_random: random.Random, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred hosts are killed at moments of chance; the longest wait for the last of their workers is told."""
    lives = await kill_hosts(tmp_path / "sessions.db", dspex_random, 100)
    history = lives.history
    acknowledged = sum(history.count(Outcome.OK, command) for command in ("create_program", "load_program"))
    with capsys.disabled():
        print(
            f"\n{lives.killed} kills, {lives.had_told} at work; no process left after {lives.slowest:.2f} s at the "
            f"most; {acknowledged} acknowledged programs and {len(history.operations)} operations explained, "
            f"{history.count(Outcome.UNKNOWN)} of them cut off"
        )
