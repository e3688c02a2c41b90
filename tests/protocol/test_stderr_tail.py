"""What is kept and shown of a worker's stderr."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.transport.stderr_tail import LineCutter, StderrTail
from tests.search_profiles import depth

CHUNKS = st.lists(st.binary(max_size=40) | st.sampled_from([b"\n", b"ab\n", b"\r\n", "ä\n".encode()]))


def tail_of(*chunks: bytes, limit_bytes: int) -> str:
    tail = StderrTail(limit_bytes)
    for chunk in chunks:
        tail.feed(chunk)
    return tail.text


def lines_of(*chunks: bytes, max_line_bytes: int = 100) -> list[str]:
    cutter = LineCutter(max_line_bytes)
    lines = [line for chunk in chunks for line in cutter.feed(chunk)]
    return lines + cutter.finish()


def test_tail_keeps_everything_within_the_bound() -> None:
    """Nothing is lost while the bound is not reached, also not the line that has no end yet."""
    assert tail_of(b"one\ntw", b"o\nthree", limit_bytes=13) == "one\ntwo\nthree"


def test_tail_starts_at_a_whole_line() -> None:
    """A line that the bound would cut is left out; one that fits exactly is kept."""
    assert tail_of(b"one\ntwo\nthree\n", limit_bytes=9) == "three\n"
    assert tail_of(b"one\ntwo\nthree\n", limit_bytes=10) == "two\nthree\n"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_tail_shows_the_end_of_a_line_longer_than_the_bound(end: bytes) -> None:
    """The end of a long line says more than nothing."""
    assert tail_of(b"0123456789" + end, limit_bytes=4) == (b"0123456789" + end)[-4:].decode()


def test_tail_of_no_bytes_is_empty() -> None:
    """A bound of zero keeps nothing."""
    assert tail_of(b"one\n", b"two\n", limit_bytes=0) == ""


def test_tail_replaces_what_is_not_utf8() -> None:
    """A character that was cut, and bytes that are none, do not raise."""
    assert tail_of(b"\xff\xfe\n", limit_bytes=10) == "\ufffd\ufffd\n"
    assert tail_of("ää".encode(), limit_bytes=3) == "\ufffdä"


def test_tail_stays_bounded_in_a_flood() -> None:
    """However much is fed, no more than twice the bound is held."""
    tail = StderrTail(1000)
    for number in range(5000):
        tail.feed(b"%d line of a flood\n" % number)
        assert len(tail._kept) <= 2001
    assert tail.text.endswith("\n4999 line of a flood\n")


@settings(max_examples=depth(10, 1000))
@given(CHUNKS, st.integers(min_value=0, max_value=60))
def test_tail_is_the_same_in_any_split(chunks: list[bytes], limit_bytes: int) -> None:
    """How the stream was cut by reading does not show."""
    whole = b"".join(chunks)
    text = tail_of(*chunks, limit_bytes=limit_bytes)
    assert text == tail_of(whole, limit_bytes=limit_bytes)
    kept = whole[-limit_bytes:] if limit_bytes else b""
    assert kept.decode("utf-8", errors="replace").endswith(text)


def test_lines_are_put_together_over_reads() -> None:
    """A line is told once, when its end has come, without the end."""
    assert lines_of(b"on", b"e\ntw", b"o\r\n", b"\nlast") == ["one", "two", "", "last"]


def test_line_without_end_is_told_at_the_end_of_the_stream() -> None:
    """The last words of a dying worker often lack their line end."""
    assert lines_of(b"dying") == ["dying"]
    assert lines_of(b"dead\n") == ["dead"]


def test_long_line_is_cut_and_says_so() -> None:
    """Of a long line its start is shown and the rest is counted."""
    assert lines_of(b"0123", b"456789", b"\nnext\n", max_line_bytes=6) == ["012345 … (4 bytes cut)", "next"]


def test_line_without_end_does_not_grow() -> None:
    """A stream without line ends is counted, not kept."""
    cutter = LineCutter(10)
    for _ in range(1000):
        assert not cutter.feed(b"x" * 100)
        assert len(cutter._pending) <= 10
    assert cutter.finish() == ["xxxxxxxxxx … (99990 bytes cut)"]


def test_line_that_is_not_utf8_is_told_with_replacements() -> None:
    """Bytes that are no text do not raise."""
    assert lines_of(b"\xff!\n") == ["\ufffd!"]


@settings(max_examples=depth(10, 1000))
@given(CHUNKS, st.integers(min_value=1, max_value=60))
def test_lines_are_the_same_in_any_split(chunks: list[bytes], max_line_bytes: int) -> None:
    """How the stream was cut by reading does not show."""
    whole = b"".join(chunks)
    assert lines_of(*chunks, max_line_bytes=max_line_bytes) == lines_of(whole, max_line_bytes=max_line_bytes)
