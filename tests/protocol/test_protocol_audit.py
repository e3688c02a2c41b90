"""The judge of what clients send."""

from __future__ import annotations

import json
from typing import Any

from dspex_pool.protocol.conversation import ClientConversation
from dspex_pool.protocol.framing import encode_frame
from dspex_testkit.protocol_audit import ProtocolAudit
from tests.cases import case

HELLO = {"initialization": True, "worker_id": "w-0", "protocol": 2, "events": ["log"]}


def message(**changes: Any) -> bytes:
    fields = {"id": 1, "command": "work", "args": {}, "timestamp": "2026-01-01T00:00:00+00:00"} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


HANDSHAKE = message(id=0, command="ping", args=HELLO)


def rules(*payloads: bytes, version: int = 2, outstanding: frozenset[int] = frozenset()) -> list[str]:
    audit = ProtocolAudit(max_frame_bytes=1000, version=version)
    audit.feed(encode_frame(HANDSHAKE))
    audit.feed(b"".join(map(encode_frame, payloads)), outstanding=outstanding)
    audit.feed_eof()
    return [violation.rule for violation in audit.violations]


def test_product_client_keeps_to_the_protocol_in_any_split() -> None:
    """What the pool's own conversation writes is found without fault."""
    client = ClientConversation(peer="worker")
    stream = b""
    for command, args in (("ping", HELLO), ("work", {"text": "東京"}), ("shutdown", {})):
        stream += encode_frame(client.request(command, args)[1])
    for chunk in range(1, 51):
        with case(chunk):
            audit = ProtocolAudit(max_frame_bytes=1000)
            for begin in range(0, len(stream), chunk):
                audit.feed(stream[begin : begin + chunk])
            audit.feed_eof()
            assert audit.violations == []
            assert audit.frames == 3


def test_each_fault_has_its_rule() -> None:
    """One fault, one violation, by name."""
    cases: list[tuple[bytes, str]] = [
        (b"\xef\xbb\xbf" + message(), "byte-order-mark"),
        (b"\xff\xfe", "not-utf-8"),
        (b"hello", "not-json"),
        (b'{"id": NaN}', "not-json"),
        (b"[" * 5000, "not-json"),
        (b"[]", "not-an-object"),
        (b'{"id": 1, "id": 2}', "duplicate-key"),
        (message(id=...), "bad-id"),
        (message(id=-1), "bad-id"),
        (message(id=True), "bad-id"),
        (message(id="1"), "bad-id"),
        (message(command=7), "wrong-type"),
        (message(args=[]), "wrong-type"),
        (message(timestamp=1.5), "wrong-type"),
        (message(timestamp="yesterday"), "bad-timestamp"),
        (message(timeout_s="soon"), "wrong-type"),
    ]
    for payload, rule in cases:
        with case(payload):
            audit = ProtocolAudit(max_frame_bytes=10_000)
            audit.feed(encode_frame(HANDSHAKE) + encode_frame(payload))
            assert [violation.rule for violation in audit.violations] == [rule]
            assert str(audit.violations[0]).startswith(f"{rule}: ")


def test_id_is_in_use_until_it_is_answered() -> None:
    """Reuse is judged against what the worker owes, also within one read."""
    assert rules(message(id=5), message(id=5)) == ["id-in-use"]
    assert rules(message(id=5), outstanding=frozenset({5})) == ["id-in-use"]
    assert rules(message(id=5), message(id=6)) == []


def test_first_request_must_be_the_handshake() -> None:
    """Ping with id 0, initialization and the worker's id."""
    cases: list[bytes] = [
        message(id=1, command="ping", args=HELLO),
        message(id=0, command="work"),
        message(id=0, command="ping", args={"worker_id": "w-0"}),
        message(id=0, command="ping", args={"initialization": True}),
        message(id=0, command="ping", args=None),
    ]
    for first in cases:
        with case(first):
            audit = ProtocolAudit(max_frame_bytes=1000)
            audit.feed(encode_frame(first))
            assert [violation.rule for violation in audit.violations] == ["no-handshake"]


def test_version_1_worker_must_not_see_newer_fields() -> None:
    """Trace context and time-out belong to version 2, whichever side is the older."""
    newer = message(timeout_s=1.5, traceparent="00-1-2-03")
    assert rules(newer) == []
    assert rules(newer, version=1) == ["too-new"]


def test_nothing_may_follow_shutdown() -> None:
    """A worker that was told to leave is left alone."""
    assert rules(message(command="shutdown"), message(id=2)) == ["after-shutdown"]


def test_frame_over_the_limit_ends_the_audit() -> None:
    """After a senseless header nothing can be read any more."""
    audit = ProtocolAudit(max_frame_bytes=1000)
    audit.feed(b"GET / HTTP/1.1\r\n\r\n")
    audit.feed(encode_frame(message()))
    audit.feed_eof()
    assert [violation.rule for violation in audit.violations] == ["frame-too-large"]


def test_end_in_a_frame_is_a_violation() -> None:
    """A client must not leave in the middle of a request."""
    audit = ProtocolAudit(max_frame_bytes=1000)
    audit.feed(encode_frame(HANDSHAKE)[:-1])
    audit.feed_eof()
    assert [violation.rule for violation in audit.violations] == ["torn-frame"]
