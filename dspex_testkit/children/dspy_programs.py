"""Factories, tools and engines for programs in real workers: ``dspex_testkit.children.dspy_programs:NAME``.

Start the worker with ``--allow dspex_testkit.children.dspy_programs``. DSPy is imported when one of them is used.
"""

from __future__ import annotations

import datetime
import enum
import logging
import math
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NO_FUNCTION",
    "BrokenEngine",
    "MessageCountingEngine",
    "RateLimitedEngine",
    "ReactEngine",
    "ScriptedEngine",
    "asynchronous",
    "awaited_word_count",
    "borrower",
    "chooser",
    "configured",
    "coroutine",
    "easygoing",
    "failing",
    "idle",
    "no_module",
    "parallel",
    "patient",
    "secretive",
    "seer",
    "settings",
    "shouter",
    "teller",
    "thinker",
    "word_count",
]

#: A name that leads to no function.
NO_FUNCTION = "just a text"


def shouter() -> Any:
    """Make a program that needs no model: ``{text}`` gives ``{loud}``, and one record is logged."""
    import dspy

    class Shouter(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, text: str) -> Any:
            logging.getLogger("shouter").info("shouting %d characters", len(text))
            return dspy.Prediction(loud=text.upper())

    return Shouter()


def teller() -> Any:
    """Make a program that returns something of a ``kind``: object, record, typed, parsed, keys, text, …"""
    import dspy

    class Colour(enum.Enum):
        RED = "red"

    class Name(str):
        __slots__ = ()

    class Teller(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, kind: str) -> Any:
            record = dspy.Example(a=(1, 2), image=dspy.Image(url="http://127.0.0.1/x.png"))
            kinds: dict[str, Any] = {"object": {"it": 1}, "record": {"it": [record]}}
            kinds["typed"] = {
                "it": [Colour.RED, datetime.date(2026, 2, 3), datetime.datetime(2026, 2, 3, 4, 5)]
            }
            kinds["parsed"] = {
                "it": [Decimal("1.10"), UUID(int=5), {3}, Name("Ann"), datetime.timedelta(seconds=5)]
            }
            kinds["keys"] = {"it": {1: "a", Colour.RED: "b", datetime.date(2026, 2, 3): "c"}}
            kinds["same keys"] = {"it": {1: "a", "1": "b"}}
            kinds["anything"] = {"it": [object()]}
            kinds["told"] = {
                "trajectory": {"observation_0": [object, math.nan, b"\xff"], "observation_1": {1: Colour.RED}}
            }
            return kinds.get(kind, kind)

    return Teller()


def patient() -> Any:
    """Make a program that sleeps for ``seconds`` and returns them."""
    import dspy

    class Patient(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, seconds: float) -> Any:
            logging.getLogger("patient").info("sleeping")
            time.sleep(seconds)
            return dspy.Prediction(slept=seconds)

    return Patient()


def thinker() -> Any:
    """Make a program with a language model of its own: ``{context, question}`` gives ``{answer}``."""
    import dspy

    from dspex_pool.bridge.extractive import MODEL, ExtractiveEngine

    program = dspy.Predict("context, question -> answer")
    program.set_lm(dspy.LM(MODEL, engine=ExtractiveEngine(), cache=False))
    return program


def easygoing() -> Any:
    """Make a program with inputs of many types, one of which may be null; it gives ``{answer}``."""
    import dspy

    return dspy.Predict("context, question, hint: Optional[str], max_iters: int, names: list[str] -> answer")


def secretive() -> Any:
    """Make a program with a language model of its own that is full of secrets; each has ``hush-hush`` in it."""
    import dspy

    secret = "hush-hush-0123456789"
    settings: dict[str, Any] = {
        "api_key": secret,
        "api_base": f"http://me:{secret}@127.0.0.1:1/v1?key={secret}#x",
        "extra_headers": {"Authorization": f"Bearer {secret}"},
        "headers": {"X-Proxy": secret},
        "extra_body": {"top_k": 3, "auth": {"value": secret}, "user": {"password": secret}},
        "azure_ad_token": secret,
        "aws_secret_access_key": secret,
        "vertex_credentials": secret,
        "model_list": [{"model_name": "m", "litellm_params": {"api_key": secret}}],
        "max_tokens": 77,
    }
    program = dspy.ChainOfThought("question -> answer")
    program.set_lm(dspy.LM("openai/m", train_kwargs={"api_key": secret}, **settings))
    return program


def borrower() -> Any:
    """Make a program that takes the model of its session for its own: ``{context, question}`` gives ``{answer}``."""
    import dspy

    class Borrower(dspy.Module):  # type: ignore[misc] # dspy has no types
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("context, question -> answer")

        def forward(self, context: str, question: str) -> Any:
            self.set_lm(dspy.settings.lm)
            return self.predict(context=context, question=question)

    return Borrower()


def chooser() -> Any:
    """Make a program that takes the best of two answers: ``{context, question}`` gives ``{answer}``."""
    import dspy

    return dspy.BestOfN(
        thinker(), N=2, reward_fn=lambda inputs, prediction: len(prediction.answer), threshold=999
    )


def seer() -> Any:
    """Make a program that talks about pictures: ``{images, history, question}`` gives ``{answer}``.

    The answer is how many messages and pictures its model was shown.
    """
    import dspy

    program = dspy.ChainOfThought("images: list[dspy.Image], history: dspy.History, question -> answer")
    program.set_lm(dspy.LM("dspex/counting", engine=MessageCountingEngine(), cache=False))
    return program


def asynchronous() -> Any:
    """Make a program that asks the model in an event loop: ``{context, question}`` gives ``{answer}``."""
    import asyncio

    import dspy

    class Asynchronous(dspy.Module):  # type: ignore[misc] # dspy has no types
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("context, question -> answer")

        def forward(self, context: str, question: str) -> Any:
            return asyncio.run(self.predict.acall(context=context, question=question))

    return Asynchronous()


def coroutine() -> Any:
    """Make a program without a ``forward``, which waits ``seconds`` before it asks the model for ``answer``."""
    import asyncio

    import dspy

    class Coroutine(dspy.Module):  # type: ignore[misc] # dspy has no types
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("context, question -> answer")

        async def aforward(self, context: str, question: str, seconds: float = 0.0) -> Any:
            logging.getLogger("coroutine").info("sleeping")
            await asyncio.sleep(seconds)
            return await self.predict.acall(context=context, question=question)

    return Coroutine()


def configured() -> Any:
    """Make a program that configures DSPy when it is made, and when it runs with ``more``; it tells ``settings``."""
    import dspy

    dspy.configure(max_errors=31)

    class Configured(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, more: int | None = None) -> Any:
            if more is not None:
                dspy.configure(num_threads=more, of_its_own=more)
                dspy.settings.callbacks.append("one more")
            return _settings()

    return Configured()


def settings() -> Any:
    """Make a program that tells some of DSPy's settings, and changes none."""
    import dspy

    class Settings(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self) -> Any:
            return _settings()

    return Settings()


def _settings() -> dict[str, Any]:
    import dspy

    names = ("max_errors", "num_threads", "of_its_own", "callbacks")
    return {name: dspy.settings.get(name) for name in names}


def parallel() -> Any:
    """Make a program that asks its own model twice, in threads: ``{context, question}`` gives ``{answers}``."""
    import dspy

    predict = thinker()

    class Parallel(dspy.Module):  # type: ignore[misc] # dspy has no types
        def forward(self, context: str, question: str) -> Any:
            example = dspy.Example(context=context, question=question).with_inputs("context", "question")
            return {"answers": predict.batch([example, example], num_threads=2, disable_progress_bar=True)}

    return Parallel()


def no_module() -> object:
    """Return something else than a module."""
    return object()


def idle() -> Any:
    """Make a module that does nothing: it has neither ``forward`` nor ``aforward``."""
    import dspy

    class Idle(dspy.Module):  # type: ignore[misc] # dspy has no types
        pass

    return Idle()


def failing() -> object:
    """Raise, as a factory may."""
    raise LookupError("no such blueprint")


def word_count(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def awaited_word_count(text: str) -> int:
    """Count the words of a text, as a tool that waits for a service.

    Cancellation: Nothing is undone.
    """
    return word_count(text)


awaited_word_count.__name__ = "word_count"  # by which the model calls it


class ScriptedEngine:
    """Answers DSPy's requests with the next of ``script``: fields by name, in the form of ``ChatAdapter``."""

    #: What is answered, in order; begun anew for each engine.
    script: ClassVar[tuple[dict[str, str], ...]] = ()

    def __init__(self) -> None:
        self._answers: Iterator[dict[str, str]] = iter(self.script)

    def complete(self, request: Any) -> Any:
        """Answer one request."""
        from dspy import lm15

        fields = [f"[[ ## {name} ## ]]\n{value}\n" for name, value in next(self._answers).items()]
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant("\n".join([*fields, "[[ ## completed ## ]]"])),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=10, output_tokens=2, total_tokens=12),
        )


class MessageCountingEngine(ScriptedEngine):
    """Answers with the numbers of messages and of pictures that it is shown."""

    def complete(self, request: Any) -> Any:
        """Answer one request."""
        pictures = sum(type(part).__name__ == "ImagePart" for said in request.messages for part in said.parts)
        self._answers = iter([{"reasoning": "counted", "answer": f"{len(request.messages)} and {pictures}"}])
        return super().complete(request)


class ReactEngine(ScriptedEngine):
    """Calls the tool ``word_count`` once, and answers."""

    script = (
        {
            "next_thought": "count",
            "next_tool_name": "word_count",
            "next_tool_args": '{"text": "a b c"}',
        },
        {"next_thought": "done", "next_tool_name": "finish", "next_tool_args": "{}"},
        {"reasoning": "three words", "answer": "3"},
    )


class RateLimitedEngine:
    """Refuses every request, as a provider does that is asked too often."""

    def complete(self, request: Any) -> Any:
        """Refuse."""
        from dspy import lm15

        raise lm15.RateLimitError("slow down", status=429, retry_after=0.01)


class BrokenEngine:
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError("no such machine")
