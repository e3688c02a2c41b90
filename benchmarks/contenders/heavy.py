"""Contenders that bring a cluster along: only with ``--heavy``."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.futures import FutureContender
from benchmarks.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Future

__all__ = ["open_dask", "open_ray"]


class _OfDask(FutureContender):
    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        # Not pure: the answer to the same argument must not come from a cache.
        future: Future[Any] = self._client.submit(TASKS[task], argument, pure=False)
        return future


class _OfRay(FutureContender):
    """Actors in turn; Ray keeps the order of each one's calls."""

    def __init__(self, actors: list[Any]) -> None:
        self._turns = itertools.cycle(actors)

    def submit(self, task: str, argument: Any, timeout: float | None = None) -> Future[Any]:
        future: Future[Any] = next(self._turns).run.remote(task, argument).future()
        return future


@contextlib.asynccontextmanager
async def open_dask(workers: int) -> AsyncIterator[FutureContender]:
    """Open a local cluster of processes with one thread each."""
    import distributed

    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster) as client:
            yield _OfDask(client)


class _Actor:
    def run(self, task: str, argument: Any) -> Any:
        return TASKS[task](argument)


@contextlib.asynccontextmanager
async def open_ray(workers: int) -> AsyncIterator[FutureContender]:
    """Open a local Ray with an actor for each worker."""
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        kind = ray.remote(num_cpus=1)(_Actor)
        yield _OfRay([kind.remote() for _ in range(workers)])
    finally:
        ray.shutdown()
