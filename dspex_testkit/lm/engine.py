"""The script as an engine of DSPy: no network, in the test's own process or in a real worker.

In a worker it is named, not handed over::

    async with PythonPool.open(allow=("dspex_testkit.lm",)) as pool:
        await pool.configure_lm(**scripted_lm.settings)

DSPy is imported when a request is answered, not when this module is.

Source:
    ``dspy/clients/engines/base.py`` of DSPy 3.4: one ``Request`` in, one ``Response`` out; errors of ``dspy.lm15``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_testkit.lm.script import Answer, LMScript, ScriptExhaustedError
from dspex_testkit.lm.steps import LMRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ScriptedEngine", "ScriptedLM"]

_PREFIX = "script/"
_ENGINE = "dspex_testkit.lm.engine:ScriptedEngine"


class ScriptedLM:
    """A scripted model for real workers: the script is kept in a file, where all of them find it.

    Args:
        path: The file. It is made when the script is first used.
    """

    #: What workers must be allowed, for ``PoolConfig.allow``.
    allow = "dspex_testkit.lm"

    def __init__(self, path: Path) -> None:
        #: What it answers, and what it was asked.
        self.script = LMScript(path)

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which ``configure_lm`` has workers play the script."""
        return {"model": f"{_PREFIX}{self.script.path}", "engine": _ENGINE}


class ScriptedEngine:
    """Answers DSPy's requests as a script says.

    Use it as ``dspy.LM("script/model", engine=ScriptedEngine(script))``. Delays really sleep.

    Args:
        script: The script; by default that in the file which the model's name tells after ``script/``.
    """

    def __init__(self, script: LMScript | None = None) -> None:
        self._script = script

    def complete(self, request: Any) -> Any:
        """Answer a ``dspy.lm15.Request`` with a ``dspy.lm15.Response``.

        Raises:
            dspy.lm15.LM15Error: As the script says; ``InvalidRequestError``, which DSPy does not try again, if it
                is exhausted.
        """
        return self._response(request, self._answer(request, is_streamed=False))

    def stream(self, request: Any) -> Iterator[Any]:
        """Answer as ``dspy.lm15`` stream events, the text in the pieces that the script says."""
        from dspy import lm15

        answer = self._answer(request, is_streamed=True)
        yield lm15.StreamStartEvent(model=request.model)
        for piece in answer.pieces:
            yield lm15.StreamDeltaEvent(delta=lm15.TextDelta(text=piece))
        if answer.step.kind == "drop":
            raise _broken()
        response = self._response(request, answer)
        yield lm15.StreamEndEvent(finish_reason=response.finish_reason, usage=response.usage)

    def close(self) -> None:
        """Do nothing: the engine holds nothing open."""

    def dump_state(self) -> dict[str, Any]:
        """Return the state that DSPy saves with a program: nothing of the script."""
        return {}

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> ScriptedEngine:
        """Return an engine for what ``dump_state`` returned."""
        return cls()

    def _answer(self, request: Any, *, is_streamed: bool) -> Answer:
        from dspy import lm15

        script = self._script or LMScript(Path(request.model.removeprefix(_PREFIX)))
        try:
            answer = script.take(_read(request, is_streamed=is_streamed))
        except ScriptExhaustedError as error:
            raise lm15.InvalidRequestError(str(error), provider_code="script_exhausted") from error
        time.sleep(answer.step.delay)
        if answer.step.kind == "fail":
            raise _refusal(answer)
        if answer.step.kind == "drop" and not (is_streamed and answer.step.pieces):
            raise _broken()
        return answer

    def _response(self, request: Any, answer: Answer) -> Any:
        from dspy import lm15

        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant(answer.text),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens),
        )


def _refusal(answer: Answer) -> Exception:
    from dspy import lm15

    step = answer.step
    kinds: dict[int, type[Exception]] = {
        401: lm15.AuthError,
        403: lm15.AuthError,
        408: lm15.TimeoutError,
        429: lm15.RateLimitError,
    }
    kind: Any = kinds.get(step.status, lm15.ServerError if step.status >= 500 else lm15.InvalidRequestError)
    error: Exception = kind(
        step.message, status=step.status, retry_after=step.retry_after, provider_code=step.code
    )
    return error


def _broken() -> Exception:
    from dspy import lm15

    error: Exception = lm15.TransportError("the connection broke, as the script says", retry_after=0.0)
    return error


def _read(request: Any, *, is_streamed: bool) -> LMRequest:
    system = request.system or ""
    if not isinstance(system, str):
        system = "".join(part.text for part in system)
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": message.role, "content": message.text or ""} for message in request.messages]
    wanted = {"temperature": request.config.temperature, "max_tokens": request.config.max_tokens}
    settings: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    return LMRequest(
        model=request.model, messages=messages, settings=settings | ({"stream": True} if is_streamed else {})
    )
