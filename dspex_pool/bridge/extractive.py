"""A language model without weights: DSPy's custom ``engine=`` interface over sentence extraction.

It answers what the prompt's own text holds, in the text's own words, and says so when the text holds nothing.
It needs no network, no key and no model file, so programs can be run and tested anywhere; it does not reason
and writes nothing new. DSPy is imported when a request is answered, not when this module is.

Source:
    ``dspy/clients/engines/base.py`` of DSPy 3.4: one ``Request`` in, one ``Response`` out; errors of ``dspy.lm15``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.adapter_prompt import read_prompt, write_answer
from dspex_pool.bridge.extraction import extract
from dspex_pool.bridge.field_values import Unfilled, fill
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dspex_pool.bridge.adapter_prompt import PromptTask

__all__ = ["MODEL", "ExtractiveEngine"]

#: The model name under which programs know this engine.
MODEL = "dspex/extractive"


class ExtractiveEngine:
    """Answers DSPy's requests with sentences of the prompt.

    Use it as ``dspy.LM("dspex/extractive", engine=ExtractiveEngine())``. It holds no state, so one engine may
    serve many threads. Settings of sampling (``temperature``, ``seed``, ``max_tokens``) change nothing. Tokens
    of the usage are words.
    """

    def complete(self, request: Any) -> Any:
        """Answer a ``dspy.lm15.Request`` with a ``dspy.lm15.Response``.

        Raises:
            dspy.lm15.UnsupportedFeatureError: The prompt holds more than text, offers native tools, was written
                by an adapter other than ``ChatAdapter`` and ``JSONAdapter``, or asks for a field whose value
                cannot be taken from the text. Programs see it as ``LMUnsupportedFeatureError``; DSPy does not
                try again.
        """
        from dspy import lm15

        try:
            prompt = _read_request(request)
            text = answer_prompt(*prompt)
        except InvalidArgumentError as exc:
            raise lm15.UnsupportedFeatureError(str(exc)) from exc
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant(text),
            finish_reason="stop",
            usage=lm15.Usage(
                input_tokens=sum(len(part.split()) for part in prompt), output_tokens=len(text.split())
            ),
        )

    def stream(self, request: Any) -> Iterator[Any]:
        """Answer a request as ``dspy.lm15`` stream events; the whole answer is one piece."""
        from dspy import lm15

        return iter(lm15.response_to_events(self.complete(request)))

    def close(self) -> None:
        """Do nothing: the engine holds nothing open."""

    def dump_state(self) -> dict[str, Any]:
        """Return the state that DSPy saves with a program: an empty object."""
        return {}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> ExtractiveEngine:
        """Return an engine for what ``dump_state`` returned."""
        return cls()


def answer_prompt(system: str, user: str) -> str:
    """Answer the text of a prompt in the form that it asks for.

    Raises:
        InvalidArgumentError: The prompt's form is unknown, or a field cannot be filled from its text.
    """
    task = read_prompt(system, user)
    return write_answer(task, _fill_all(task))


def _fill_all(task: PromptTask) -> dict[str, Any]:
    found = extract(task.context, task.question)
    values = {field.name: fill(field, found) for field in task.outputs}
    for name, value in values.items():
        if isinstance(value, Unfilled):
            raise InvalidArgumentError(
                f"The extractive engine cannot fill the field {name!r}: it {value.reason}. Ask for text, make the "
                "field optional, or use a language model.",
                argument=name,
            )
    return values


def _read_request(request: Any) -> tuple[str, str]:
    """Return the texts of the system message and of the last user message."""
    if request.tools:
        raise InvalidArgumentError("The extractive engine calls no tools.", argument="tools")
    users = [message.text for message in request.messages if message.role == "user"]
    system = request.system or ""
    if not isinstance(system, str):
        system = "".join(part.text for part in system)
    if not users or users[-1] is None:
        raise InvalidArgumentError(
            "The extractive engine reads text alone; the last message must be a user's, without images or files.",
            argument="messages",
        )
    return system, users[-1]
