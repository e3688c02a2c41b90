"""What a worker of version 1 of the protocol makes of a request."""

from __future__ import annotations

from dspex_pool.errors import RemoteProtocolError
from dspex_pool.protocol.messages import Request, decode_request, encode_request

__all__ = ["as_version_1"]


def as_version_1(payload: bytes) -> bytes:
    """Take out what a version 1 worker would not look at, so that nobody answers it in version 2."""
    try:
        request = decode_request(payload)
    except RemoteProtocolError:
        return payload
    args = {name: value for name, value in request.args.items() if name not in ("protocol", "events")}
    return encode_request(Request(request.id, request.command, args, request.timestamp))
