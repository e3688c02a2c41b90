"""What is kept and shown of a worker's stderr. Takes bytes, does no I/O."""

from __future__ import annotations

__all__ = ["DEFAULT_MAX_LINE_BYTES", "LineCutter", "StderrTail"]

# Longer than any line that people wrote, shorter than a dumped model or a base64 image.
DEFAULT_MAX_LINE_BYTES = 8192


class StderrTail:
    """The last whole lines of a byte stream, within a bound.

    Args:
        limit_bytes: Most bytes to keep. ``0`` keeps nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept = bytearray()

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._kept += data
        # Cut at twice the bound, so that a flood moves the kept bytes once per bound, not once per read.
        # One byte more than the bound stays: it tells whether the first line kept is a whole one.
        if len(self._kept) > 2 * self._limit_bytes + 1:
            del self._kept[: len(self._kept) - self._limit_bytes - 1]

    @property
    def text(self) -> str:
        """The last whole lines; a line longer than the bound, or not yet ended, is shown in part."""
        return self._kept[self._start() :].decode("utf-8", errors="replace")

    def _start(self) -> int:
        start = len(self._kept) - self._limit_bytes
        if start <= 0 or self._kept[start - 1] == ord("\n"):
            return max(start, 0)
        whole = self._kept.find(b"\n", start) + 1
        # With no later line to start at, the end of a long line says more than nothing.
        return whole if 0 < whole < len(self._kept) else start


class LineCutter:
    """Cuts a byte stream into lines of text, and long lines short.

    Args:
        max_line_bytes: Bytes of a line that are kept; of the rest only the number is told.
    """

    def __init__(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._pending = bytearray()
        self._surplus_bytes = 0

    def feed(self, data: bytes) -> list[str]:
        """Add what was read and return the lines that it ended, without their line ends."""
        *ends, rest = data.split(b"\n")
        lines = [self._end_line(end) for end in ends]
        self._extend(rest)
        return lines

    def finish(self) -> list[str]:
        """Return the last line if the stream did not end it."""
        return [self._end_line(b"")] if self._pending else []

    def _extend(self, piece: bytes) -> None:
        room = self._max_line_bytes - len(self._pending)
        self._pending += piece[:room]
        self._surplus_bytes += max(0, len(piece) - room)

    def _end_line(self, end: bytes) -> str:
        self._extend(end)
        line = self._pending.removesuffix(b"\r").decode("utf-8", errors="replace")
        if self._surplus_bytes:
            line += f" … ({self._surplus_bytes} bytes cut)"
        self._pending.clear()
        self._surplus_bytes = 0
        return line
