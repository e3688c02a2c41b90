"""Frames: a 4-byte big-endian length, then that many bytes of payload. Bytes in, bytes out, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dspex_pool.errors import (
    LocalFrameTooLargeError,
    LocalProtocolError,
    PortClosedError,
    RemoteFrameTooLargeError,
)
from dspex_pool.protocol.long_frame import LongFrame

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    from dspex_pool.protocol.long_frame import Memory

__all__ = [
    "DEFAULT_MAX_FRAME_BYTES",
    "HEADER_BYTES",
    "LARGEST_FRAME_BYTES",
    "LONG_BYTES",
    "FrameDecoder",
    "encode_frame",
    "encode_parts",
    "unwritten",
]

# An answer of this size is still plausible (a program's state with embedded examples). A stray print read
# as a length is not: the ASCII bytes "Trac" (of "Traceback") mean 1.4 GB.
DEFAULT_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024

#: Length of the header, in bytes.
HEADER_BYTES: Final = 4
#: Longest payload that a header can announce, in bytes; no limit can be set above it.
LARGEST_FRAME_BYTES: Final = 256**HEADER_BYTES - 1

#: A payload that is longer, in bytes, is worth a system call more and not a copy more.
LONG_BYTES: Final = 64 * 1024

# Copying so much twice costs less than a view of it.
_SHORT_BYTES: Final = 4096

# Enough to recognise a print or the head of a traceback in an error message.
_EXCERPT_BYTES: Final = 64


def encode_frame(payload: bytes, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> bytes:
    """Prefix ``payload`` with its length as a 4-byte big-endian unsigned integer.

    Args:
        payload: One JSON document as UTF-8. May be empty.
        max_frame_bytes: Largest payload allowed, in bytes; ``LARGEST_FRAME_BYTES`` holds besides it.

    Returns:
        Header and payload together, ``4 + len(payload)`` bytes.

    Raises:
        LocalFrameTooLargeError: ``payload`` is longer than ``max_frame_bytes``.

    Source:
        Erlang ``open_port/2``, option ``{packet, 4}``.
    """
    head, rest = encode_parts(payload, max_frame_bytes=max_frame_bytes)
    return head + rest


def encode_parts(payload: bytes, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> tuple[bytes, bytes]:
    """Do as ``encode_frame``, but do not copy a long payload behind its header.

    Args:
        payload: One JSON document as UTF-8. May be empty.
        max_frame_bytes: Largest payload allowed, in bytes; ``LARGEST_FRAME_BYTES`` holds besides it.

    Returns:
        What is to be written, in two parts, of which the second may be empty.

    Raises:
        LocalFrameTooLargeError: ``payload`` is longer than ``max_frame_bytes``.
    """
    size = len(payload)
    if size <= LONG_BYTES and size <= max_frame_bytes:
        return size.to_bytes(HEADER_BYTES, "big") + payload, b""
    if size > max_frame_bytes or size > LARGEST_FRAME_BYTES:
        limit = min(max_frame_bytes, LARGEST_FRAME_BYTES)
        raise LocalFrameTooLargeError(
            f"the message is {size} bytes long, but a frame may hold {limit} bytes; "
            "nothing was sent. Send less, or raise max_frame_bytes on both sides.",
            size=size,
            limit=limit,
        )
    return size.to_bytes(HEADER_BYTES, "big"), payload


def unwritten(head: bytes, rest: bytes, written: int) -> tuple[memoryview, memoryview]:
    """Return what is left of two parts, uncopied, after so many bytes of them were written."""
    whole = len(head)
    return memoryview(head)[written:], memoryview(rest)[max(0, written - whole) :]


class FrameDecoder:
    """Cut a stream of bytes, fed in any split, into the payloads of its frames.

    Args:
        max_frame_bytes: Largest payload accepted, in bytes. Checked on the header.
        peer: Who sends, for error messages, such as ``worker w-3``.
    """

    __slots__ = ("_buffer", "_eof", "_max_frame_bytes", "_peer", "_refused", "long_frame")

    def __init__(self, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES, peer: str = "peer") -> None:
        self._max_frame_bytes = min(max_frame_bytes, LARGEST_FRAME_BYTES)  # no header announces more
        self._peer = peer
        self._buffer = bytearray()
        self._eof = False
        self._refused = False
        #: The frame that ``begin_long_frame`` has begun, until it is given out.
        self.long_frame: LongFrame | None = None

    @property
    def buffered(self) -> int:
        """Bytes held that no frame has given back yet."""
        begun = self.long_frame
        return len(self._buffer) if begun is None else HEADER_BYTES + begun.come + len(self._buffer)

    @property
    def holds_any(self) -> bool:
        """Whether ``next_frame`` may have something to tell without further bytes: bytes or the end are held."""
        return bool(self._buffer) or self._eof or self.long_frame is not None

    @property
    def at_eof(self) -> bool:
        """Whether the end of the stream was fed; complete frames may still be buffered."""
        return self._eof

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream. ``b""`` means nothing; the end is told by ``feed_eof``.

        After an oversize header the stream is lost, so further bytes are dropped instead of held.

        Raises:
            LocalProtocolError: ``feed_eof`` was called before.
        """
        if self._eof:
            raise LocalProtocolError(f"bytes of {self._peer} were fed after the end of its stream")
        if self.long_frame is not None:
            data = self.long_frame.take(data)
        if not self._refused:
            self._buffer += data

    def take(self, data: bytes) -> bytes | None:
        """Return the payload of ``data`` if that is one whole frame and nothing is held; else feed it.

        What a chunk is in most cases: it needs no way through the buffer.

        Args:
            data: The next bytes of the stream.

        Returns:
            The payload, or ``None``: ``next_frame`` tells what there is then, as after ``feed``.

        Raises:
            LocalProtocolError: ``feed_eof`` was called before.
        """
        size = len(data) - HEADER_BYTES
        if (
            0 <= size <= self._max_frame_bytes
            and not self._buffer  # which after an oversize header still holds it
            and not self._eof
            and self.long_frame is None
            and data[:HEADER_BYTES] == size.to_bytes(HEADER_BYTES, "big")
        ):
            return data[HEADER_BYTES:]
        self.feed(data)
        return None

    def feed_eof(self) -> None:
        """Note that no byte will follow. Calling it again changes nothing."""
        self._eof = True

    def begin_long_frame(self, new_memory: Callable[[bytes], Memory]) -> bool:
        """Give the next frame memory of its own, if its header is known and not all of it is held.

        The rest of it can be read into ``long_frame.room``, which spares copies; feeding it does as well. To be
        called when much of it is held: its memory is laid out at once, whether or not the rest ever comes.

        Args:
            new_memory: The reader's kind of memory, such as ``io.BytesIO``, which gives out what it holds uncopied.

        Returns:
            Whether a frame was begun.
        """
        buffer = self._buffer
        if self.long_frame is not None or len(buffer) < HEADER_BYTES:
            return False
        size = int.from_bytes(buffer[:HEADER_BYTES], "big")
        if size > self._max_frame_bytes or len(buffer) >= HEADER_BYTES + size:
            return False
        frame = LongFrame(size, new_memory)
        with memoryview(buffer) as view:
            frame.take(view[HEADER_BYTES:])
        buffer.clear()
        self.long_frame = frame
        return True

    def next_frame(self) -> bytes | None:
        """Return the payload of the next complete frame, or ``None`` when more bytes are needed.

        Raises:
            RemoteFrameTooLargeError: A header announces more than ``max_frame_bytes``. Every later call
                raises it again.
            PortClosedError: The stream has ended and no complete frame is left. ``clean`` tells whether it
                ended between two frames, ``missing`` how many bytes the last one lacks (of its header, if
                that is torn).
        """
        if self.long_frame is not None:
            return self._next_long_frame(self.long_frame)
        buffer = self._buffer
        held = len(buffer)
        if held < HEADER_BYTES:
            self._check_eof(HEADER_BYTES, held=held)
            return None
        size = int.from_bytes(buffer[:HEADER_BYTES], "big")
        if size > self._max_frame_bytes:
            self._refuse(size)
        end = HEADER_BYTES + size
        if held < end:
            self._check_eof(end, held=held)
            return None
        if size <= _SHORT_BYTES:
            payload = bytes(buffer[HEADER_BYTES:end])
        else:
            # Slicing the bytearray itself would copy a large payload twice.
            with memoryview(buffer) as view:
                payload = bytes(view[HEADER_BYTES:end])
        del buffer[:end]
        return payload

    def _next_long_frame(self, frame: LongFrame) -> bytes | None:
        if not frame.is_whole:
            self._check_eof(HEADER_BYTES + frame.size, held=HEADER_BYTES + frame.come)
            return None
        self.long_frame = None
        return frame.payload()

    def _check_eof(self, total: int, *, held: int) -> None:
        if not self._eof:
            return
        if not held:
            raise PortClosedError(f"{self._peer} has closed its stream", clean=True, missing=0)
        raise PortClosedError(
            f"{self._peer} has closed its stream inside a frame: {total - held} of {total} bytes are missing",
            clean=False,
            missing=total - held,
        )

    def _refuse(self, size: int) -> Never:
        self._refused = True
        excerpt = bytes(self._buffer[:_EXCERPT_BYTES])
        raise RemoteFrameTooLargeError(
            f"{self._peer} announced a frame of {size} bytes (limit {self._max_frame_bytes}); "
            f"first bytes {excerpt!r}. Does something in it print to stdout?",
            size=size,
            limit=self._max_frame_bytes,
            data=excerpt,
        )
