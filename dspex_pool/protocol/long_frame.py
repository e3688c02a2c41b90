"""A long frame that has begun: its payload, in memory of its own, into which the reader reads the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LongFrame", "Memory"]


class Memory(Protocol):
    """What a reader reads into, such as ``io.BytesIO``."""

    def getbuffer(self) -> memoryview:
        """Return a view through which the memory can be written to."""

    def getvalue(self) -> bytes:
        """Return what the memory holds; the best do so without a copy."""


class LongFrame:
    """The payload of one frame, as far as it has come.

    Args:
        size: Its whole length, in bytes.
        new_memory: Makes memory of the bytes that it is given. They are its own from then on.
    """

    __slots__ = ("_memory", "come", "size")

    def __init__(self, size: int, new_memory: Callable[[bytes], Memory]) -> None:
        #: Its whole length, in bytes.
        self.size = size
        #: Bytes of it that have come.
        self.come = 0
        # The system gives pages to a block of zeros only as they are written to: what a header announces takes no
        # memory before it comes.
        self._memory = new_memory(bytes(size))

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self.come == self.size

    @property
    def room(self) -> memoryview:
        """Where the bytes to come belong. Whoever reads some into it tells by ``filled``, and does not keep it."""
        # No view is kept: memory that is looked into cannot be closed, not even by the garbage collector.
        return self._memory.getbuffer()[self.come :]

    def filled(self, count: int) -> None:
        """Note that so many bytes have come into ``room``."""
        self.come += count

    def take(self, data: bytes | bytearray | memoryview) -> memoryview:
        """Copy what belongs to the frame, and return what comes behind it."""
        view = memoryview(data)
        count = min(len(view), self.size - self.come)
        self.room[:count] = view[:count]
        self.come += count
        return view[count:]

    def payload(self) -> bytes:
        """Return the whole payload. Ends the use of the frame."""
        return self._memory.getvalue()
