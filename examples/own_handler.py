"""A pool for any Python that is slow to start or may crash: workers with a handler of your own, and no DSPy.

The class is in ``own_handler_worker.py``, so that the workers import what they need and not this program.
"""

import trio

from dspex_pool import SubprocessOptions, SubprocessPortFactory, WorkerPool
from dspex_pool.errors import WorkerDiedError

QUERIES = [
    "deepest lake on Earth",
    "only outlet of Lake Baikal",
    "unfrozen fresh water of the world",
]


async def search(pool: WorkerPool, query: str) -> None:
    """Borrow a worker, ask it, and give it back."""
    async with pool.checkout() as lease:
        found = await lease.request("search", {"query": query}, timeout=10)
    print(f"{query}: {found['sentence']}")


async def main() -> None:
    ports = SubprocessPortFactory(SubprocessOptions(handler="own_handler_worker:Search"))
    async with WorkerPool(ports, pool_size=2) as pool:
        async with trio.open_nursery() as nursery:
            for query in QUERIES:
                nursery.start_soon(search, pool, query)
        try:
            async with pool.checkout() as lease:
                await lease.request("crash")
        except WorkerDiedError as error:
            print(f"lost {error.worker_id}: {error.message}")
        # The other worker serves at once; the lost one is replaced meanwhile.
        await search(pool, "deepest lake on Earth")


if __name__ == "__main__":
    trio.run(main)
