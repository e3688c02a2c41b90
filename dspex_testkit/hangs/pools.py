"""The pools that are open while a test hangs: who holds what, who waits for what, and how each worker is."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

from dspex_testkit.hangs.frames import last_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_pool.worker_pool import WorkerPool

__all__ = ["pool_lines"]

#: Lines shown of a worker's stderr.
_STDERR_LINES = 3


def pool_lines() -> list[str]:
    """Describe every pool that has workers or callers, a line for each fact."""
    if "dspex_pool.worker_pool" not in sys.modules:
        return []
    kind = sys.modules["dspex_pool.worker_pool"].WorkerPool
    # A test that hangs has time: looking for them here costs those that pass nothing.
    pools = [one for one in gc.get_objects() if type(one) is kind]
    return [line for pool in pools for line in _pool(pool)]


def _pool(pool: WorkerPool) -> Iterator[str]:
    state = pool._state
    if not state.workers and not len(state._line):
        return
    now = _now()
    suspended = ", suspended" if state.is_suspended else ""
    closing = ", closing" if state.is_closed else ""
    yield f"pool of {state.pool_size}{suspended}{closing}: {_counts(state)}"
    live = {worker.incarnation: worker for worker in pool.workers()}
    for number, record in state.workers.items():
        since = "" if now is None else f" for {now - record.since:.3g} s"
        held = f", lent to {record.holder}" if record.state.value == "leased" else ""
        yield f"  worker {record.worker_id} (incarnation {number}) is {record.state.value}{since}{held}"
        if number in live:
            yield from (f"    {line}" for line in _worker(live[number]))
    for waiter in state._line:
        waits = "" if now is None else f" for {now - waiter.since:.3g} s"
        session = f", for session {waiter.session!r}" if waiter.session else ""
        yield f"  {waiter.holder} waits in line{waits}{session}"
    if state.last_start_error is not None:
        yield f"  the last start failed: {state.last_start_error}"


def _counts(state: Any) -> str:
    numbers = state.statistics()
    names = ("starting", "idle", "pinging", "leased", "draining", "retiring", "waiting")
    return (
        ", ".join(f"{getattr(numbers, name)} {name}" for name in names if getattr(numbers, name)) or "empty"
    )


def _now() -> float | None:
    try:
        return float(sys.modules["trio"].current_time())
    except RuntimeError:  # the pool runs in another thread
        return None


def _worker(worker: Any) -> Iterator[str]:
    port = worker.port
    if port.pid is not None:
        yield f"process {port.pid}: {_process_state(port.pid)}"
    if port.exit_status is not None:
        yield f"ended with {port.exit_status}"
    yield from last_frames(port)
    for line in port.stderr_tail.splitlines()[-_STDERR_LINES:]:
        yield f"stderr: {line}"


def _process_state(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return f"{process.status()}, {process.cpu_times().user:.2f} s of processor time"
    except psutil.Error:
        return "gone"
