"""Finder: frames and conversations as bytes, without a loop."""

from __future__ import annotations

from typing import Final

import pytest

from dspex_pool.errors import PortClosedError, RemoteFrameTooLargeError, RemoteProtocolError
from dspex_pool.protocol import Success
from dspex_pool.protocol.conversation import ClientConversation, WorkerConversation
from dspex_pool.protocol.framing import FrameDecoder, encode_frame

__all__ = ["TRIES", "play"]

PAYLOADS: Final = (b"{}", b"", b'{"a":1}', b"x" * 300)


def play(number: int) -> int:
    """Play check ``number``; raises what is wrong."""
    _CHECKS[number]()
    return 1


def _any_split() -> None:
    stream = b"".join(encode_frame(payload) for payload in PAYLOADS)
    for size in (1, 3, 5, 7, 64, len(stream)):
        decoder, frames = FrameDecoder(), []
        for begin in range(0, len(stream), size):
            decoder.feed(stream[begin : begin + size])
            while (frame := decoder.next_frame()) is not None:
                frames.append(frame)
        assert tuple(frames) == PAYLOADS, f"in pieces of {size} bytes the frames are {frames}"


def _limit() -> None:
    decoder = FrameDecoder(max_frame_bytes=100)
    decoder.feed(b"Traceback")
    with pytest.raises(RemoteFrameTooLargeError):
        decoder.next_frame()


def _end() -> None:
    for cut in range(1, len(PAYLOADS[3])):
        decoder = FrameDecoder()
        decoder.feed(encode_frame(PAYLOADS[3])[:cut])
        assert decoder.buffered == cut
        decoder.feed_eof()
        with pytest.raises(PortClosedError) as caught:
            decoder.next_frame()
        assert not caught.value.clean
        assert caught.value.missing


def _ids() -> None:
    client, worker = ClientConversation(peer="the worker"), WorkerConversation()
    for _ in range(2):
        worker.receive(client.request("ping", {})[1])
    _, late = client.request("echo", {})
    worker.receive(late)
    client.abandon(2)
    for number in (1, 0):
        reply = client.receive(worker.succeed(number, f"answer {number}"))
        assert isinstance(reply, Success)
        assert reply.result == f"answer {number}"
    answer = worker.succeed(2, "late")
    assert client.receive(answer) is None
    with pytest.raises(RemoteProtocolError):
        client.receive(answer)


_CHECKS: Final = (_any_split, _limit, _end, _ids)
TRIES: Final = len(_CHECKS)
