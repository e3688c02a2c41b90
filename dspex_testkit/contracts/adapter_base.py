"""What the parts of the adapter contract share: how a promise comes to an adapter, and how all are run."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.adapters.base import Adapter

__all__ = ["INPUTS", "MODEL", "SIGNATURE", "AdapterPromises", "refused"]

SIGNATURE = "context, question -> answer"
INPUTS = {"context": "Paris is the capital of France.", "question": "What is the capital of France?"}
#: The embedded model: honest, free and offline.
MODEL: dict[str, Any] = {"model": "dspex/extractive", "engine": "extractive"}


@contextlib.contextmanager
def refused(kind: type[Exception], *words: str) -> Iterator[None]:
    """Check that the block raises ``kind`` and that its message holds all ``words``."""
    try:
        yield
    except kind as error:
        message = str(error)
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
    missing = [word for word in words if word not in message]
    assert not missing, f"{message!r} does not name {missing}"


class AdapterPromises(ABC):
    """What promises need. A subclass gives ``open_adapter``, and promises as methods ``test_…``."""

    _shared: Adapter | None = None
    _numbers = itertools.count()

    @abstractmethod
    def open_adapter(self) -> AbstractAsyncContextManager[Adapter]:
        """Open the adapter under test, and close it when the block is left."""

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Adapter]:
        """Give an adapter for a session that nobody used before."""
        if self._shared is not None:
            yield await self.begin(self._shared)
            return
        async with self.open_adapter() as adapter:
            yield await self.begin(adapter)

    async def begin(self, adapter: Adapter) -> Adapter:
        """Return the adapter of a new session that has a language model."""
        session = adapter.session_adapter(f"contract-{next(self._numbers)}")
        await session.configure_lm(**MODEL)
        return session

    @contextlib.asynccontextmanager
    async def program(self, program_id: str = "p") -> AsyncIterator[Adapter]:
        """Give an adapter whose new session has one program."""
        async with self.session() as adapter:
            await adapter.create_program(program_id, SIGNATURE)
            yield adapter

    async def keep_all(self, adapter: Adapter) -> None:
        """Run every promise on ``adapter``.

        Raises:
            ExceptionGroup: Of all promises that were broken, each with its name as a note.
        """
        self._shared = adapter
        broken = []
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            try:
                await getattr(self, name)()
            except Exception as error:
                error.add_note(f"promise: {name}")
                broken.append(error)
        if broken:
            raise ExceptionGroup("broken promises", broken)
