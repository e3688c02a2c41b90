"""The sentences of ``docs/protocol.md`` that clauses are taken from, word for word; a test compares them."""

from __future__ import annotations

__all__ = [
    "ASKED_EVENTS",
    "ERROR_INFO",
    "EVENT",
    "EXTRAS",
    "FAILURE",
    "FIRST_PING",
    "FITS_NO_FRAME",
    "HELLO_1",
    "HELLO_2",
    "IN_TIME",
    "JUDGED",
    "LENGTH",
    "LIMIT",
    "LIVES_ON",
    "NOT_A_NUMBER",
    "NO_FRAME",
    "NO_READER",
    "NULL_ID",
    "OBJECT",
    "ONE_ANSWER",
    "ONLY_FRAMES",
    "PRINTS",
    "REFUSED",
    "REQUEST",
    "SHUTDOWN",
    "SIGINT_IDLE",
    "SIGINT_RUNNING",
    "SIGTERM",
    "STDIN_ENDS",
    "SUCCESS",
    "TORN",
    "TRACE",
    "UNKNOWN_COMMAND",
    "UNKNOWN_FIELDS",
    "VERSION_2",
]

LENGTH = (
    "A frame is a length, then as many bytes: the length as four bytes, big-endian and unsigned, which does not "
    "count itself."
)
OBJECT = "The bytes are one JSON object in UTF-8 without a byte order mark."
LIMIT = "A frame may be at most `max_frame_bytes` long (64 MiB unless set otherwise), in either direction."
JUDGED = (
    "The length is judged before anything is read, because a length of gigabytes is most often the beginning of a "
    "line that somebody printed."
)
TORN = (
    "The stream may end between two frames; inside a frame that is an error, which says how many bytes "
    "are missing."
)
SUCCESS = "`id` of the request · `success`, true · `result`, any JSON · `timestamp`, Unix seconds or text"
FAILURE = "`id` of the request · `success`, false · `error`, text for people · `timestamp`"
EVENT = "`id` of the request or null · `event`: `log`, `chunk` or `progress` · `data`, object"
REQUEST = "`id`, a whole number not in use by another outstanding request"
TRACE = "version 2, optional: `traceparent`, `timeout_s`"
EXTRAS = "version 2, optional: `usage`, `duration_s`"
UNKNOWN_FIELDS = "A receiver ignores fields that it does not know."
REFUSED = "It refuses a message that lacks a required field or has one of another type."
ONE_ANSWER = "There is at most one answer to a request; answers need not come in order."
NULL_ID = 'A request that is no JSON, or has no usable `id`, is answered by a failure with `"id": null`.'
NOT_A_NUMBER = "NaN and the infinities are not JSON, and are sent by nobody."
ERROR_INFO = (
    "`error_info` is `{type, message, traceback, code, status, retry_after_s, retryable}`, all but the first two "
    "optional."
)
VERSION_2 = "Version 2 adds fields, and says them only to a peer that asked for version 2."
ASKED_EVENTS = (
    "Events are sent only in version 2, and only of the kinds that the client's first ping asked for."
)
IN_TIME = "A worker that has not answered within `spawn_timeout` is ended, and never enters the pool."
FIRST_PING = (
    'The client\'s first request has the id 0 and the command `ping`, with `{"initialization": true, '
    '"worker_id": "w-1"}`;'
)
HELLO_2 = 'A worker of version 2 answers with `"protocol": 2`, its `pid`, its `versions` and `capabilities`;'
HELLO_1 = 'one of version 1 with `"status": "ok"` alone.'
UNKNOWN_COMMAND = "An unknown command is answered by a failure that names it, and the worker lives on."
LIVES_ON = "A command that fails costs its request an answer of that kind, and the worker nothing."
STDIN_ENDS = "stdin ends | leaves at once with status 0, whatever it is doing"
SIGTERM = "SIGTERM | leaves with status 0, within a second"
SIGINT_RUNNING = (
    "SIGINT while a command runs | ends the command with a failure of type `Cancelled`, and lives on"
)
SIGINT_IDLE = "SIGINT while idle | nothing"
NO_FRAME = "it reads what is no frame | complains on stderr and leaves with status 65"
FITS_NO_FRAME = "an answer that fits no frame | sends a failure with both sizes instead"
NO_READER = "nobody reads its stdout | leaves without a traceback"
PRINTS = "its own code, or what it calls, prints | keeps it off the stdout of the protocol"
SHUTDOWN = '`status: "shutting_down"`, `worker_id`, `mode`, `sessions_cleaned`; then the process ends'
ONLY_FRAMES = "Nothing but frames is ever written to stdout, and no answer that nobody asked for."
