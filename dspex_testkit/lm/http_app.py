"""The script as an OpenAI-compatible HTTP service: an ASGI application, whatever server carries it.

Source:
    OpenAI's API reference, "Chat completions" and its streaming by server-sent events; ASGI 3.0, "HTTP".
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec

from dspex_testkit.lm.script import Answer, LMScript, ScriptExhaustedError
from dspex_testkit.lm.steps import LMRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[Mapping[str, Any]], Awaitable[None]]

__all__ = ["LMApp"]

_JSON = (b"content-type", b"application/json")
_CREATED = 1_700_000_000


class LMApp:
    """Serves ``POST /v1/chat/completions`` and ``GET /v1/models`` from a script.

    Args:
        script: What is answered.
    """

    def __init__(self, script: LMScript) -> None:
        self.script = script
        self._is_closing: asyncio.Event | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request.

        Cancellation: The connection is closed, whatever was sent of the answer.
        """
        if scope["type"] != "http":
            return
        match scope["method"], scope["path"]:
            case "GET", "/v1/models":
                await _send_json(send, 200, {"object": "list", "data": []})
            case "POST", "/v1/chat/completions":
                await self._complete(scope, await _body(receive), send)
            case method, path:
                await _send_error(send, 404, f"nothing is served at {method} {path}", "not_found")

    def open(self) -> None:
        """Begin to serve, in the running event loop."""
        self._is_closing = asyncio.Event()

    def close(self) -> None:
        """Break off what still waits."""
        assert self._is_closing is not None, "it was opened"
        self._is_closing.set()

    async def _complete(self, scope: Mapping[str, Any], body: bytes, send: Send) -> None:
        try:
            request = _read(json.loads(body), _key(scope))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            await _send_error(send, 400, f"not a request for a completion: {error}", "invalid_request")
            return
        try:
            answer = self.script.take(request)
        except ScriptExhaustedError as error:
            await _send_error(send, 400, str(error), "script_exhausted")
            return
        if await self._was_closed_within(answer.step.delay):
            return
        await _play(answer, request, send)

    async def _was_closed_within(self, delay: float) -> bool:
        assert self._is_closing is not None, "it was opened"
        try:
            await asyncio.wait_for(self._is_closing.wait(), delay)
        except TimeoutError:
            return False
        return True


async def _play(answer: Answer, request: LMRequest, send: Send) -> None:
    step = answer.step
    if step.kind == "fail":
        await _send_error(send, step.status, step.message, step.code, retry_after=step.retry_after)
    elif request.settings.get("stream"):
        await _stream(answer, request, send)
    elif step.kind == "drop":
        # It promises a body and leaves: ASGI has no way to close a connection without a word.
        headers = [_JSON, (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    else:
        await _send_json(send, 200, _completion(answer, request))


async def _stream(answer: Answer, request: LMRequest, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in answer.pieces:
        await _send_event(send, _chunk(request, {"role": "assistant", "content": piece}))
    if answer.step.kind == "drop":
        return  # without the end of the body, so that the client sees that something is missing
    await _send_event(send, _chunk(request, {}, finish_reason="stop"))
    if (request.settings.get("stream_options") or {}).get("include_usage"):
        await _send_event(send, {**_chunk(request, {}), "choices": [], "usage": _usage(answer)})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def _send_event(send: Send, data: Mapping[str, Any]) -> None:
    body = b"data: " + json.dumps(data).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _send_error(
    send: Send, status: int, message: str, code: str, *, retry_after: float | None = None
) -> None:
    headers = [] if retry_after is None else [(b"retry-after", f"{retry_after:g}".encode())]
    await _send_json(send, status, {"error": {"message": message, "type": code, "code": code}}, headers)


async def _send_json(
    send: Send, status: int, data: Mapping[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps(data).encode()
    all_headers = [_JSON, (b"content-length", str(len(body)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


def _key(scope: Mapping[str, Any]) -> str | None:
    shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    return shown.removeprefix("Bearer ") or None


def _read(data: Mapping[str, Any], key: str | None) -> LMRequest:
    messages = [{"role": item["role"], "content": _text(item.get("content"))} for item in data["messages"]]
    settings = {name: value for name, value in data.items() if name not in ("model", "messages")}
    fields = {"model": data["model"], "messages": messages, "settings": settings, "via": "http"}
    if not isinstance(settings.get("stream_options"), dict | None):
        raise TypeError("stream_options is no object")
    # It comes from outside: before a step is taken for it, everything must have its type.
    return msgspec.convert(fields | {"api_key": key}, LMRequest)


def _text(content: Any) -> Any:
    """Return the text of a content, which is one text, a list of parts, or nothing."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return "" if content is None else content


def _completion(answer: Answer, request: LMRequest) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {**_envelope("chat.completion", request), "choices": [choice], "usage": _usage(answer)}


def _chunk(request: LMRequest, delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {**_envelope("chat.completion.chunk", request), "choices": [choice]}


def _envelope(kind: str, request: LMRequest) -> dict[str, Any]:
    return {"id": "chatcmpl-script", "object": kind, "created": _CREATED, "model": request.model}


def _usage(answer: Answer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }
