"""Starting, pinging and stopping one real worker, without a pool around it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from dspex_pool.cli.doctor import Finding, failed_worker
from dspex_pool.cli.stop import Stop
from dspex_pool.errors import DspexPoolError, WorkerDiedError, WorkerStartError
from dspex_pool.supervisor import ports_for
from dspex_pool.transport.port import keeping
from dspex_pool.worker import PoolWorker

if TYPE_CHECKING:
    from dspex_pool.config import PoolConfig
    from dspex_pool.transport.port import PortFactory

__all__ = ["probe_worker"]

#: Name of the worker that is started for the check.
WORKER_ID = "doctor"


def probe_worker(config: PoolConfig) -> Finding:
    """Start a worker as ``config`` says, shake hands, stop it, and say how that went."""
    try:
        return Stop().run(partial(_probe, config))
    except (DspexPoolError, ExceptionGroup, OSError) as error:
        return failed_worker(error)


async def _probe(config: PoolConfig) -> Finding:
    ports = ports_for(config)
    async with keeping(ports):
        return await _probe_with(ports, config)


async def _probe_with(ports: PortFactory, config: PoolConfig) -> Finding:
    began = trio.current_time()
    port = await ports.open(worker_id=WORKER_ID, incarnation=1)
    worker = PoolWorker(port, worker_id=WORKER_ID, incarnation=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_attend, worker)
        try:
            await _handshake(worker, config.spawn_timeout)
            seconds = trio.current_time() - began
            port.send_eof()
            with trio.move_on_after(config.terminate_grace) as grace:
                await worker.exited.wait()
        finally:
            port.kill()
    return _finding(worker, seconds, has_left=not grace.cancelled_caught)


async def _attend(worker: PoolWorker) -> None:
    # Shielded, because the port is killed in any case: this ends, and nothing is left behind.
    with trio.CancelScope(shield=True):
        await worker.port.attend()
    worker.exited.set()


async def _handshake(worker: PoolWorker, timeout: float) -> None:
    try:
        with trio.fail_after(timeout):
            await worker.handshake()
    except trio.TooSlowError:
        advice = "see what its command does, or raise spawn_timeout"
        raise _start_error(worker, f"the worker said nothing within {timeout:g} s: {advice}") from None
    except WorkerDiedError:
        raise _start_error(
            worker, f"the worker left before it said anything ({worker.port.exit_status})"
        ) from None


def _start_error(worker: PoolWorker, message: str) -> WorkerStartError:
    tail = worker.port.stderr_tail
    return WorkerStartError(message, worker_id=WORKER_ID, pid=worker.port.pid, stderr_tail=tail)


def _finding(worker: PoolWorker, seconds: float, *, has_left: bool) -> Finding:
    versions = dict(worker.hello.versions)
    text = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    facts = {"handshake_s": round(seconds, 3), "pid": worker.port.pid, "versions": versions}
    if not has_left:
        return Finding(
            "worker", "warn", "answered, but did not leave when its stdin ended: it was killed", facts
        )
    return Finding(
        "worker", "ok", f"answered in {seconds:.2f} s and left ({text or 'no versions told'})", facts
    )
