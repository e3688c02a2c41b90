"""A lease: a worker in a caller's hands, and what its end proves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from dspex_pool.core.records import Granted, Outcome
from dspex_pool.errors import UseAfterReturnError, WorkerDiedError
from dspex_pool.lease import Lease
from dspex_pool.worker import PoolWorker
from dspex_testkit.mock_port import MockPort
from dspex_testkit.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

pytestmark = pytest.mark.trio


async def lent() -> tuple[Lease, MockPort]:
    """Return the lease of a worker that has shaken hands, and its port."""
    port = MockPort("w-1", 1)
    port.answer("echo", lambda args: args).answer("slow", Plan().stall())
    worker = PoolWorker(port, worker_id="w-1", incarnation=1)
    await worker.handshake()
    return Lease(worker, Granted(1, 7, 0.0), "s", port.bytes_sent), port


async def use(lease: Lease) -> None:
    """Use the worker as it should be used."""
    await lease.request("echo")


async def leave(lease: Lease) -> None:
    """Leave an answer due."""
    with trio.move_on_after(1.0):
        await lease.request("slow")


async def retire(lease: Lease) -> None:
    """Ask for another worker."""
    lease.retire("worn out")


async def use_and_retire(lease: Lease) -> None:
    """Ask for another worker for those who come later."""
    await use(lease)
    await retire(lease)


async def die(lease: Lease) -> None:
    """Find it dead."""
    port: Any = lease.worker.port
    port.die()
    with pytest.raises(WorkerDiedError):
        await lease.request("echo")


async def tear(lease: Lease) -> None:
    """Leave half a frame."""
    port: Any = lease.worker.port
    port.accept_only(3)
    with trio.move_on_after(1.0):
        await lease.request("echo")


async def nothing(_: Lease) -> None:
    """Do not use it at all."""


@pytest.mark.parametrize(
    ("act", "resets", "verdict"),
    [
        (nothing, False, (Outcome.UNUSED, "")),
        (nothing, True, (Outcome.UNUSED, "")),
        (use, False, (Outcome.CLEAN, "")),
        (use, True, (Outcome.CARE, "reset")),
        (leave, True, (Outcome.CARE, "answer_due")),
        (retire, True, (Outcome.VOID, "worn out")),
        (use_and_retire, True, (Outcome.RETIRE, "worn out")),
        (die, False, (Outcome.VOID, "died")),
        (tear, False, (Outcome.RETIRE, "torn_frame")),
    ],
)
async def test_end_of_a_lease_says_what_it_proves(
    act: Callable[[Lease], Any], resets: bool, verdict: tuple[Outcome, str], autojump_clock: MockClock
) -> None:
    """Unused, clean, to be cared for, or to be replaced: by what was written and read, not by how the block ended."""
    lease, _ = await lent()
    await act(lease)
    assert lease.end(resets=resets) == verdict
    assert lease.is_ended


async def test_lease_knows_its_worker_and_keeps_what_it_is_told() -> None:
    """Token, worker and session can be read; what is attached to the worker outlives the lease."""
    lease, port = await lent()
    assert (lease.token, lease.worker_id, lease.session) == (7, "w-1", "s")
    lease.update({"programs": 3})
    lease.end()
    assert lease.worker.state == {"programs": 3}
    before = port.bytes_sent
    with pytest.raises(UseAfterReturnError, match="token 7"):
        await lease.request("echo")
    assert port.bytes_sent == before
