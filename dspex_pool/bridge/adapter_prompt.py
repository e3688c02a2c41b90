"""Read what a DSPy adapter asks of a model, and write the answer in the form that it parses.

Understood are the prompts of ``ChatAdapter`` (sections under ``[[ ## field ## ]]``) and ``JSONAdapter`` (one
JSON object), and prompts that no adapter wrote: plain text whose last question is answered from the rest.

Source:
    ``dspy/adapters/chat_adapter.py`` and ``json_adapter.py`` of DSPy 3.4.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dspex_pool.bridge.field_values import OutputField
from dspex_pool.bridge.words import split_sentences
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PromptTask", "read_prompt", "write_answer"]

#: How the request for output fields begins, in the last message of each adapter's prompt.
_REQUESTS: dict[Literal["chat", "json"], str] = {
    "chat": "Respond with the corresponding output fields, starting with the field `[[ ## ",
    "json": "Respond with a JSON object in the following order of fields: ",
}
_DECLARATIONS = re.compile(
    r"Your input fields are:\n(?P<inputs>.*?)^Your output fields are:\n(?P<outputs>.*?)"
    r"^All interactions will be structured",
    re.DOTALL | re.MULTILINE,
)
_DECLARATION = re.compile(r"^\d+\. `(?P<name>\w+)` \((?P<type>.*?)\):", re.MULTILINE)
_CHOICES = r"\{%s\}\s+# note: the value you produce must be one of: (?P<choices>[^\n]*?)\"?,?$"
_QUESTION_NAMES = ("question", "query", "q", "ask", "claim", "statement")
_CONTEXT_NAMES = ("context", "passage", "passages", "text", "document", "documents", "article", "facts")
_LIST_ITEM = re.compile(r"^\[\d+\] «(.*)»$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PromptTask:
    """What a prompt asks for."""

    #: The text to answer from; empty when the prompt holds none.
    context: str
    #: The question; empty when nothing is asked.
    question: str
    #: The fields to fill, in the order asked for.
    outputs: tuple[OutputField, ...]
    #: The form of the answer: ``chat`` and ``json`` for the adapters, ``text`` for the bare answer.
    layout: Literal["chat", "json", "text"]


def read_prompt(system: str, user: str) -> PromptTask:
    """Find the inputs and the requested outputs in the text of a prompt.

    Args:
        system: The system message, which declares the fields; empty when there is none.
        user: The last user message, which holds the values. Examples before it are of no use here.

    Raises:
        InvalidArgumentError: An adapter wrote the prompt, but neither ``ChatAdapter`` nor ``JSONAdapter``.
    """
    declared = _DECLARATIONS.search(system)
    if declared is None:
        return _read_plain_text(user)
    layout, values = _split_request(user)
    inputs = _read_sections(values, [found["name"] for found in _DECLARATION.finditer(declared["inputs"])])
    question = _pick_question(inputs)
    context = _pick_context({name: text for name, text in inputs.items() if name != question})
    return PromptTask(
        context=_unpack(inputs.get(context, "")),
        question=inputs.get(question, ""),
        outputs=_read_outputs(declared["outputs"], system),
        layout=layout,
    )


def _read_plain_text(text: str) -> PromptTask:
    sentences = split_sentences(text)
    asked = [place for place, sentence in enumerate(sentences) if sentence.endswith("?")]
    question = sentences.pop(asked[-1]) if asked else ""
    return PromptTask("\n\n".join(sentences), question, (OutputField("answer"),), "text")


def _split_request(user: str) -> tuple[Literal["chat", "json"], str]:
    """Find the adapter's request, which ends the message, and return its form and what comes before it."""
    starts = {layout: user.rfind(request) for layout, request in _REQUESTS.items()}
    layout = max(starts, key=lambda one: starts[one])
    if starts[layout] < 0:
        raise InvalidArgumentError(
            "The extractive engine reads prompts of DSPy's ChatAdapter and JSONAdapter, and this one was written "
            "by another. Use one of the two, or a language model that follows any instructions.",
            argument="adapter",
        )
    return layout, user[: starts[layout]]


def _read_sections(text: str, names: Sequence[str]) -> dict[str, str]:
    """Cut ``text`` at the header of each field, in the order declared.

    A header inside a value belongs to the value unless it is that of the next field; so text that imitates the
    headers of outputs changes nothing.
    """
    headers: list[tuple[str, int, int]] = []
    position = 0
    for name in names:
        header = re.compile(rf"^\[\[ ## {name} ## \]\]\n?", re.MULTILINE).search(text, position)
        if header is not None:
            headers.append((name, header.start(), header.end()))
            position = header.end()
    ends = [start for _, start, _ in headers] + [len(text)]
    return {name: text[start:end].strip() for (name, _, start), end in zip(headers, ends[1:], strict=True)}


def _pick_question(inputs: Mapping[str, str]) -> str:
    """Name the input that asks: by its name, or by its question mark; ``""`` when none does."""
    for name in _QUESTION_NAMES:
        if name in inputs:
            return name
    asking = [name for name, text in inputs.items() if text.endswith("?")]
    return min(asking, key=lambda name: len(inputs[name]), default="")


def _pick_context(inputs: Mapping[str, str]) -> str:
    """Name the input to answer from: by its name, or else the longest; ``""`` when there is none."""
    for name in _CONTEXT_NAMES:
        if inputs.get(name):
            return name
    return max(inputs, key=lambda name: len(inputs[name]), default="")


def _unpack(text: str) -> str:
    """Turn a list of passages, as adapters write them, into paragraphs."""
    if text.startswith("["):
        try:
            return "\n\n".join(str(passage) for passage in json.loads(text))
        except (ValueError, RecursionError):
            return _LIST_ITEM.sub(r"\1\n", text)
    return text.removeprefix("«").removesuffix("»")


def _read_outputs(declarations: str, system: str) -> tuple[OutputField, ...]:
    return tuple(
        OutputField(found["name"], found["type"], _read_choices(found["name"], system))
        for found in _DECLARATION.finditer(declarations)
    )


def _read_choices(name: str, system: str) -> tuple[str, ...]:
    found = re.search(_CHOICES % re.escape(name), system, re.MULTILINE)
    return tuple(found["choices"].split("; ")) if found else ()


def write_answer(task: PromptTask, values: Mapping[str, Any]) -> str:
    """Write one value for each output field in the form that the task's adapter parses.

    A value of ``None`` is ``null`` in JSON; in sections it is left out, which DSPy reads as ``None``.
    """
    if task.layout == "text":
        return "\n".join(str(value) for value in values.values())
    if task.layout == "json":
        return json.dumps(dict(values), ensure_ascii=False)
    sections = [_section(name, value) for name, value in values.items() if value is not None]
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _section(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else _literal(value)
    # A value that begins like a header would be taken for one on a line of its own.
    return f"[[ ## {name} ## ]]{' ' if text.startswith('[[ ##') else chr(10)}{text}"


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
