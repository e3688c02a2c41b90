"""What a scripted language model is asked and does: records that travel as JSON between processes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Book", "LMRequest", "LMUsage", "Step"]


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model does with one request."""

    #: ``reply`` answers, ``fail`` refuses with ``status``, ``drop`` breaks the connection.
    kind: Literal["reply", "fail", "drop"]
    #: The answer as it is, or ``None`` if ``fields`` are to be written in the form that the prompt asks for.
    text: str | None = None
    #: Output fields by name.
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    #: Seconds before the model does anything.
    delay: float = 0.0
    #: How many pieces a streamed answer comes in; of ``drop``, those that come before the end.
    pieces: int = 3
    #: Tokens of the prompt that are told, or ``None`` for its words.
    input_tokens: int | None = None
    #: Tokens of the answer that are told, or ``None`` for its words.
    output_tokens: int | None = None
    #: Status of HTTP with which it refuses.
    status: int = 500
    #: Text of the refusal.
    message: str = ""
    #: The provider's name for the refusal.
    code: str = ""
    #: Seconds after which the caller may ask again, or ``None`` if nothing is said about it.
    retry_after: float | None = None
    #: Number of the order that has put it before the script; 0 of a step that the script itself has.
    order: int = 0


class LMRequest(msgspec.Struct, frozen=True):
    """One request as the model received it."""

    #: Name of the model.
    model: str
    #: The messages as ``{"role": …, "content": …}``; content is text.
    messages: list[dict[str, str]]
    #: Everything else that was asked for: ``temperature``, ``max_tokens``, ``stream``, …
    settings: dict[str, Any] = {}
    #: Which way it came.
    via: Literal["engine", "http"] = "engine"
    #: The key that was shown over HTTP, or ``None``.
    api_key: str | None = None

    @property
    def prompt(self) -> str:
        """The text of the last message of the user."""
        return next((text["content"] for text in reversed(self.messages) if text["role"] == "user"), "")

    @property
    def system(self) -> str:
        """The text of the system messages."""
        return "\n".join(text["content"] for text in self.messages if text["role"] in ("system", "developer"))


class LMUsage(msgspec.Struct):
    """What a model has done so far."""

    #: Requests that arrived, refused ones included.
    requests: int = 0
    #: Of these, those that were answered.
    answers: int = 0
    #: Tokens of the answered prompts, as told.
    input_tokens: int = 0
    #: Tokens of the answers, as told.
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """All tokens together."""
        return self.input_tokens + self.output_tokens


class Book(msgspec.Struct):
    """The state of a script: what is still to come, and what has been."""

    #: What is still to be done, in order.
    steps: list[Step] = []
    #: What is done with every request after them, or ``None`` if there must be none.
    otherwise: Step | None = None
    #: The requests that arrived.
    received: list[LMRequest] = []
    #: The steps that were carried out, in order.
    played: list[Step] = []
    #: Numbers of the requests, from 1, that came when nothing was left.
    unexpected: list[int] = []
    #: Orders that have put steps before the script.
    orders: int = 0
    #: What was done.
    usage: LMUsage = msgspec.field(default_factory=LMUsage)
