"""The bridge protocol: frames, messages and conversations. Takes bytes and gives messages; does no I/O."""

from dspex_pool.protocol.conversation import (
    HANDSHAKE_COMMAND,
    HANDSHAKE_ID,
    PROTOCOL_VERSION,
    ClientConversation,
    WorkerConversation,
)
from dspex_pool.protocol.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    HEADER_BYTES,
    LARGEST_FRAME_BYTES,
    FrameDecoder,
    encode_frame,
)
from dspex_pool.protocol.messages import (
    ErrorInfo,
    Event,
    Failure,
    FromWorker,
    Reply,
    Request,
    Success,
    decode_from_worker,
    decode_request,
    encode_event,
    encode_failure,
    encode_request,
    encode_success,
)

__all__ = [
    "DEFAULT_MAX_FRAME_BYTES",
    "HANDSHAKE_COMMAND",
    "HANDSHAKE_ID",
    "HEADER_BYTES",
    "LARGEST_FRAME_BYTES",
    "PROTOCOL_VERSION",
    "ClientConversation",
    "ErrorInfo",
    "Event",
    "Failure",
    "FrameDecoder",
    "FromWorker",
    "Reply",
    "Request",
    "Success",
    "WorkerConversation",
    "decode_from_worker",
    "decode_request",
    "encode_event",
    "encode_failure",
    "encode_frame",
    "encode_request",
    "encode_success",
]
