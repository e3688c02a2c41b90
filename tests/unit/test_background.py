"""Tasks that serve a block: they end with it, and its errors stay its own."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from dspex_pool.background import Background


async def fail(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


@pytest.mark.trio
async def test_block_that_ends_ends_its_tasks_and_keeps_its_error() -> None:
    """An error of the block leaves as it is, not in a group; whatever way it ends, no task is left."""
    ended: list[str] = []

    async def serve(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async def block(name: str, error: Exception | None = None) -> None:
        async with Background() as nursery:
            nursery.start_soon(serve, name)
            await trio.testing.wait_all_tasks_blocked()
            if error is not None:
                raise error
            await trio.sleep(0)

    await block("plain")
    with pytest.raises(KeyError, match="mine"):
        await block("error", KeyError("mine"))
    with trio.CancelScope() as scope:
        async with Background() as nursery:
            nursery.start_soon(serve, "cancelled")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ended == ["plain", "error", "cancelled"]


@pytest.mark.trio
async def test_task_that_fails_ends_the_block() -> None:
    """The block is cancelled, and the error of the task leaves in a group."""
    blocks: list[str] = []

    async def block() -> None:
        async with Background() as nursery:
            nursery.start_soon(fail, KeyError("the task's"))
            try:
                await trio.sleep_forever()
            finally:
                blocks.append("left")

    with pytest.raises(ExceptionGroup) as info:
        await block()
    assert blocks == ["left"]
    assert [repr(error) for error in info.value.exceptions] == [repr(KeyError("the task's"))]


def test_background_can_be_made_where_trio_does_not_run() -> None:
    """A pool is an object first; it needs trio from the moment that it is opened."""
    background = Background()

    async def main() -> str:
        async with background as nursery:
            return type(nursery).__name__

    assert trio.run(main) == "Nursery"
