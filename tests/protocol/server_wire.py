"""A blocking client of a mock server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import FrameDecoder, encode_frame
from dspex_pool.protocol.messages import Event, Failure, Success

if TYPE_CHECKING:
    from dspex_testkit.bridge_mock_server import BridgeMockServer

__all__ = ["CREATE", "EXECUTE", "HELLO", "Wire", "connect"]

HELLO = {"initialization": True, "worker_id": "w-0", "protocol": 2, "events": ["log"]}
CREATE = {"id": "p", "signature": "question -> answer", "session_id": "s"}
EXECUTE = {"program_id": "p", "inputs": {"question": "why?"}, "session_id": "s"}


class Wire:
    """A blocking client on two descriptors: the product's conversation, nothing else of the pool."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests = requests
        self.answers = answers
        self.conversation = ClientConversation(peer="worker")
        self.decoder = FrameDecoder()

    def ask(self, command: str, args: dict[str, Any] | None = None) -> Any:
        self.say(command, args)
        return self.hear()

    def say(self, command: str, args: dict[str, Any] | None = None) -> None:
        os.write(self.requests, encode_frame(self.conversation.request(command, args or {})[1]))

    def hear(self) -> Any:
        """Return the result, or the error's type."""
        while True:
            message = self.conversation.receive(self.next_frame())
            if isinstance(message, Success):
                return message.result
            if isinstance(message, Failure):
                return message.error_info.type if message.error_info else message.error
            assert isinstance(message, Event)

    def next_frame(self) -> bytes:
        while (payload := self.decoder.next_frame()) is None:
            data = os.read(self.answers, 1 << 16)
            self.decoder.feed(data) if data else self.decoder.feed_eof()
        return payload


def connect(server: BridgeMockServer) -> Wire:
    assert server.requests is not None
    assert server.answers is not None
    wire = Wire(server.requests, server.answers)
    assert wire.ask("ping", HELLO)["status"] == "ok"
    return wire
