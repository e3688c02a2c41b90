"""Frames: lengths, limits, and the end of the stream."""

from __future__ import annotations

import io
import sys

import psutil
import pytest

from dspex_pool.errors import (
    LocalFrameTooLargeError,
    LocalProtocolError,
    PortClosedError,
    RemoteFrameTooLargeError,
)
from dspex_pool.protocol import (
    DEFAULT_MAX_FRAME_BYTES,
    HEADER_BYTES,
    LARGEST_FRAME_BYTES,
    FrameDecoder,
    encode_frame,
)
from dspex_pool.protocol.framing import LONG_BYTES, encode_parts, unwritten

TRACEBACK = b"Traceback (most recent call last):\n"


def fed(*chunks: bytes, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> FrameDecoder:
    decoder = FrameDecoder(max_frame_bytes=max_frame_bytes, peer="worker w-3")
    for chunk in chunks:
        decoder.feed(chunk)
    return decoder


def refusal(decoder: FrameDecoder) -> RemoteFrameTooLargeError:
    with pytest.raises(RemoteFrameTooLargeError) as caught:
        decoder.next_frame()
    return caught.value


def end(decoder: FrameDecoder) -> PortClosedError:
    with pytest.raises(PortClosedError) as caught:
        decoder.next_frame()
    return caught.value


def test_encode_frame_prefixes_the_length_big_endian() -> None:
    """The header is what Erlang's ``{packet, 4}`` expects."""
    assert encode_frame(b"x" * 258) == b"\x00\x00\x01\x02" + b"x" * 258


def test_encode_frame_accepts_an_empty_payload() -> None:
    """Framing has no opinion on what a payload is."""
    assert encode_frame(b"") == b"\x00\x00\x00\x00"


def test_encode_frame_accepts_a_payload_of_exactly_the_limit() -> None:
    """The limit itself is allowed."""
    assert len(encode_frame(b"12345", max_frame_bytes=5)) == HEADER_BYTES + 5


def test_encode_frame_refuses_a_payload_over_the_limit() -> None:
    """Both sizes are in the error, as facts and as text."""
    with pytest.raises(LocalFrameTooLargeError, match=r"6 bytes long.*5 bytes") as caught:
        encode_frame(b"123456", max_frame_bytes=5)
    assert (caught.value.size, caught.value.limit) == (6, 5)


class Huge(bytes):
    """Says that it is longer than any frame."""

    def __len__(self) -> int:
        return HEADER_BYTES + LARGEST_FRAME_BYTES + 1


def test_encode_frame_refuses_what_the_header_cannot_say_whatever_the_limit() -> None:
    """A limit above 4 GiB does not lead to a torn header."""
    with pytest.raises(LocalFrameTooLargeError) as caught:
        encode_frame(Huge(), max_frame_bytes=2 * LARGEST_FRAME_BYTES)
    assert caught.value.limit == LARGEST_FRAME_BYTES


@pytest.mark.parametrize("size", [0, 1, LONG_BYTES, LONG_BYTES + 1])
def test_parts_are_the_frame(size: int) -> None:
    """Together they are what is written otherwise; a long payload is the second, and no copy of it."""
    payload = b"x" * size
    head, rest = encode_parts(payload)
    assert head + rest == encode_frame(payload)
    assert rest is payload if size > LONG_BYTES else not rest


def test_unwritten_is_what_is_left_behind_any_byte() -> None:
    """Wherever a write ends, what it left is told, with none of it copied."""
    for head, rest in ((b"head", b"payload"), (b"whole", b""), (b"", b"rest")):
        for written in range(len(head + rest) + 1):
            parts = unwritten(head, rest, written)
            assert b"".join(parts) == (head + rest)[written:]
            assert parts[0].obj is head
            assert parts[1].obj is rest


def test_default_limit_is_64_mib() -> None:
    """The limit of both directions is the protocol's."""
    assert DEFAULT_MAX_FRAME_BYTES == 64 * 1024 * 1024


def test_decoder_gives_back_what_was_encoded() -> None:
    """A frame's payload comes back unchanged, as bytes."""
    payload = fed(encode_frame(b'{"id":1}')).next_frame()
    assert payload == b'{"id":1}'
    assert type(payload) is bytes


def test_decoder_needs_more_when_nothing_was_fed() -> None:
    """``None`` means: feed me."""
    assert fed().next_frame() is None


def test_decoder_needs_more_when_the_header_is_torn() -> None:
    """Three bytes of header are no length."""
    assert fed(b"\x00\x00\x00").next_frame() is None


def test_decoder_needs_more_when_the_payload_is_torn() -> None:
    """A frame is given whole or not at all."""
    assert fed(encode_frame(b"whole")[:-1]).next_frame() is None


def test_decoder_returns_an_empty_payload_as_such() -> None:
    """An empty frame is a frame, not a need for more."""
    assert fed(encode_frame(b"")).next_frame() == b""


def test_decoder_returns_several_frames_of_one_chunk_in_order() -> None:
    """What arrived together is given one by one."""
    decoder = fed(encode_frame(b"one") + encode_frame(b"two"))
    assert [decoder.next_frame(), decoder.next_frame(), decoder.next_frame()] == [b"one", b"two", None]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decoder_copies_what_it_is_fed(kind: type[bytes | bytearray | memoryview]) -> None:
    """The caller may reuse its read buffer at once."""
    source = bytearray(encode_frame(b"kept"))
    decoder = FrameDecoder()
    decoder.feed(kind(source))
    source[:] = b"\xff" * len(source)
    assert decoder.next_frame() == b"kept"


def test_decoder_counts_the_bytes_it_holds() -> None:
    """``buffered`` falls when a frame is given back, header included."""
    decoder = fed(encode_frame(b"one") + b"\x00")
    assert decoder.buffered == 8
    decoder.next_frame()
    assert decoder.buffered == 1


def test_decoder_accepts_a_frame_of_exactly_the_limit() -> None:
    """The limit itself is allowed."""
    assert fed(encode_frame(b"12345"), max_frame_bytes=5).next_frame() == b"12345"


def test_stray_print_is_named_in_the_error() -> None:
    """A traceback on stdout is reported as such, not awaited as 1.4 GB."""
    error = refusal(fed(TRACEBACK))
    assert error.data == TRACEBACK
    assert (error.size, error.limit) == (int.from_bytes(b"Trac", "big"), DEFAULT_MAX_FRAME_BYTES)
    assert "worker w-3 announced a frame of 1416782179 bytes (limit 67108864)" in str(error)
    assert "Traceback (most recent" in str(error)
    assert "print to stdout?" in str(error)


def test_oversize_header_is_refused_before_any_payload_arrives() -> None:
    """Four bytes are enough to refuse."""
    assert refusal(fed(b"\x00\x00\x00\x06", max_frame_bytes=5)).size == 6


def test_oversize_header_is_refused_again_on_every_call() -> None:
    """The stream cannot be used any more, whatever follows."""
    decoder = fed(TRACEBACK)
    refusal(decoder)
    decoder.feed(encode_frame(b"fine"))
    assert refusal(decoder).size == int.from_bytes(b"Trac", "big")


def test_decoder_holds_nothing_more_after_an_oversize_header() -> None:
    """A worker that prints without end does not fill the parent's memory."""
    decoder = fed(TRACEBACK)
    refusal(decoder)
    decoder.feed(b"x" * 10_000)
    assert decoder.buffered == len(TRACEBACK)


def test_oversize_header_quotes_a_bounded_excerpt() -> None:
    """The error stays short however much was printed."""
    assert len(refusal(fed(TRACEBACK * 100)).data or b"") == 64


def test_frames_before_an_oversize_header_are_given_first() -> None:
    """What was right before the print is not lost."""
    decoder = fed(encode_frame(b"good") + TRACEBACK)
    assert decoder.next_frame() == b"good"
    refusal(decoder)


def test_oversize_header_counts_more_than_the_end_of_the_stream() -> None:
    """A print before a crash is the better explanation."""
    decoder = fed(TRACEBACK)
    decoder.feed_eof()
    refusal(decoder)


def test_feeding_nothing_is_not_the_end() -> None:
    """``b""`` changes nothing; only ``feed_eof`` ends the stream."""
    decoder = fed(b"")
    assert decoder.next_frame() is None
    assert not decoder.at_eof


def test_end_between_frames_is_clean() -> None:
    """A worker that left in good order is told apart from one that was cut."""
    decoder = fed(encode_frame(b"last"))
    decoder.feed_eof()
    assert decoder.at_eof
    assert decoder.next_frame() == b"last"
    assert (end(decoder).clean, end(decoder).missing) == (True, 0)


def test_end_inside_a_payload_says_how_many_bytes_miss() -> None:
    """The error counts what the frame lacks."""
    decoder = fed(encode_frame(b"0123456789")[:7])
    decoder.feed_eof()
    error = end(decoder)
    assert (error.clean, error.missing) == (False, 7)
    assert "worker w-3 has closed its stream inside a frame: 7 of 14 bytes are missing" in str(error)


def test_end_inside_a_header_says_how_many_bytes_miss() -> None:
    """Of a torn header only the header's own bytes can be counted."""
    decoder = fed(b"\x00")
    decoder.feed_eof()
    assert (end(decoder).clean, end(decoder).missing) == (False, 3)


def test_feed_refuses_bytes_after_the_end() -> None:
    """Bytes after the end are a mistake of this side."""
    decoder = fed()
    decoder.feed_eof()
    with pytest.raises(LocalProtocolError, match="after the end"):
        decoder.feed(b"late")


# --- chunks that are one frame ---------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"x", b"12345"])
def test_take_gives_the_payload_of_a_chunk_that_is_one_frame(payload: bytes) -> None:
    """It holds nothing then, and the next chunk is taken in the same way."""
    decoder = fed(max_frame_bytes=5)
    for _ in range(2):
        assert decoder.take(encode_frame(payload)) == payload
        assert (decoder.buffered, decoder.holds_any, decoder.next_frame()) == (0, False, None)


@pytest.mark.parametrize(
    "chunk", [b"", b"\0\0\0", b"\0\0\0\5", encode_frame(b"12345")[:-1], encode_frame(b"12345") + b"\0"]
)
def test_take_feeds_a_chunk_that_is_no_frame_or_more_than_one(chunk: bytes) -> None:
    """``next_frame`` tells what is in it, as after ``feed``."""
    decoder, plain = fed(), fed(chunk)
    assert decoder.take(chunk) is None
    assert decoder.buffered == plain.buffered
    assert decoder.next_frame() == plain.next_frame()


def test_take_feeds_a_chunk_behind_what_is_held() -> None:
    """Within another frame, what looks like a frame is none; and order is kept."""
    inner = encode_frame(b"inner")
    decoder = fed(encode_frame(inner)[:HEADER_BYTES])
    assert decoder.take(inner) is None
    assert decoder.next_frame() == inner
    decoder.feed(encode_frame(b"first"))
    assert decoder.take(encode_frame(b"second")) is None
    assert [decoder.next_frame(), decoder.next_frame()] == [b"first", b"second"]


def test_take_feeds_a_long_frame_that_is_begun() -> None:
    """Its bytes go into its own memory, also those that look like a frame."""
    inner = encode_frame(b"inner")
    decoder = fed(encode_frame(inner)[:HEADER_BYTES])
    assert decoder.begin_long_frame(io.BytesIO)
    assert decoder.take(inner) is None
    assert decoder.take(encode_frame(b"behind")) is None
    assert [decoder.next_frame(), decoder.next_frame(), decoder.next_frame()] == [inner, b"behind", None]


def test_take_leaves_an_oversize_frame_to_be_refused() -> None:
    """Also one that has come whole; and what comes behind it is dropped."""
    decoder = fed(max_frame_bytes=5)
    assert decoder.take(encode_frame(b"123456")) is None
    assert refusal(decoder).size == 6
    assert decoder.take(encode_frame(b"fine")) is None
    assert refusal(decoder).size == 6
    assert decoder.buffered == HEADER_BYTES + 6


def test_take_feeds_a_chunk_that_no_header_announces_whatever_the_limit() -> None:
    """A limit above 4 GiB is none."""
    decoder = fed(max_frame_bytes=2 * LARGEST_FRAME_BYTES)
    assert decoder.take(Huge(b"abc")) is None
    assert decoder.buffered == 3


def test_take_refuses_bytes_after_the_end() -> None:
    """As ``feed`` does, whether or not they are a frame."""
    decoder = fed()
    decoder.feed_eof()
    with pytest.raises(LocalProtocolError, match="after the end"):
        decoder.take(encode_frame(b"late"))
    assert end(decoder).clean


# --- long frames ---------------------------------------------------------------------------------------------


def test_long_frame_is_read_into_its_own_memory_and_given_out_as_bytes() -> None:
    """What comes goes into place; the payload is no view that a later read could change."""
    frame = encode_frame(b"0123456789")
    decoder = fed(frame[:7])
    assert decoder.begin_long_frame(io.BytesIO)
    begun = decoder.long_frame
    assert begun is not None
    begun.room[:2] = frame[7:9]
    begun.filled(2)
    assert (decoder.buffered, decoder.holds_any, decoder.next_frame()) == (9, True, None)
    begun.room[:] = frame[9:]
    begun.filled(5)
    payload = decoder.next_frame()
    assert (payload, type(payload)) == (b"0123456789", bytes)
    assert (decoder.buffered, decoder.holds_any, decoder.long_frame) == (0, False, None)


def test_long_frame_is_not_begun_where_there_is_none() -> None:
    """Without a header, with a whole frame or none that is allowed, and within another, all stays as it is."""
    for stream in (b"", b"\0\0\0", encode_frame(b""), encode_frame(b"whole"), b"\0\0\0\6"):
        decoder = fed(stream, max_frame_bytes=5)
        assert not decoder.begin_long_frame(io.BytesIO)
        assert decoder.buffered == len(stream)
    decoder = fed(b"\0\0\0\6")
    assert decoder.begin_long_frame(io.BytesIO)
    assert not decoder.begin_long_frame(io.BytesIO)


def test_what_is_fed_to_a_long_frame_and_beyond_is_kept_in_order() -> None:
    """Feeding goes on to work, whatever was begun."""
    decoder = fed(encode_frame(b"first")[:5])
    decoder.begin_long_frame(io.BytesIO)
    decoder.feed(b"irs")
    decoder.feed(b"t" + encode_frame(b"second") + b"\0")
    assert decoder.buffered == 9 + 10 + 1
    assert not decoder.begin_long_frame(io.BytesIO)
    assert [decoder.next_frame(), decoder.next_frame(), decoder.next_frame()] == [b"first", b"second", None]
    assert decoder.buffered == 1


def test_end_inside_a_long_frame_says_how_many_bytes_miss() -> None:
    """As everywhere, the error counts the whole frame."""
    decoder = fed(encode_frame(b"0123456789")[:7])
    decoder.begin_long_frame(io.BytesIO)
    decoder.feed_eof()
    error = end(decoder)
    assert (error.clean, error.missing) == (False, 7)
    assert "7 of 14 bytes are missing" in str(error)


def test_long_frame_that_is_given_up_leaves_its_memory_to_be_closed() -> None:
    """On Python 3.13 a worker that died within a long answer left ``Exception ignored in: <_io.BytesIO ...>``."""
    memory = io.BytesIO(bytes(10))
    decoder = fed(encode_frame(b"0123456789")[:7])
    decoder.begin_long_frame(lambda _: memory)
    assert decoder.long_frame is not None
    assert len(decoder.long_frame.room) == 7
    memory.close()  # as the garbage collector does, which may come to it before it comes to the frame


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
def test_announced_length_takes_no_memory_before_it_comes() -> None:
    """A worker that announces 64 MiB and sends nothing costs the parent no 64 MiB."""
    decoder = fed(DEFAULT_MAX_FRAME_BYTES.to_bytes(4, "big") + b"x")
    before = psutil.Process().memory_info().rss
    assert decoder.begin_long_frame(io.BytesIO)
    assert psutil.Process().memory_info().rss - before < DEFAULT_MAX_FRAME_BYTES // 8
