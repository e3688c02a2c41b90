"""The script of a language model, without anybody who plays it."""

from __future__ import annotations

import pytest

from dspex_testkit.lm.script import LMScript, ScriptExhaustedError, pieces_of
from dspex_testkit.lm.steps import LMRequest, LMUsage
from dspex_testkit.script import ScriptNotDrainedError

pytestmark = pytest.mark.fast

DECLARATION = (
    "Your input fields are:\n1. `question` (str):\nYour output fields are:\n1. `answer` (str):\n"
    "All interactions will be structured in the following way"
)
SECTIONS = "[[ ## answer ## ]]\nRome\n\n[[ ## completed ## ]]"


def asked(text: str = "What is it?") -> LMRequest:
    """Return a request."""
    return LMRequest(model="m", messages=[{"role": "user", "content": text}])


def test_script_is_played_in_order_and_counted() -> None:
    """Answers, refusals and breaks come as written; only answers cost tokens."""
    script = LMScript().reply("one two").rate_limit(retry_after=1.5, times=1).down(times=1)
    script.reply("three", input_tokens=100, output_tokens=7)
    answers = [script.take(asked()) for _ in range(4)]
    assert [answer.step.kind for answer in answers] == ["reply", "fail", "drop", "reply"]
    assert (answers[1].step.status, answers[1].step.retry_after) == (429, 1.5)
    assert script.usage == LMUsage(requests=4, answers=2, input_tokens=103, output_tokens=9)
    script.assert_drained()


def test_exhausted_script_fails_and_is_told_again_at_the_end() -> None:
    """The error says what was asked; that the code under test swallowed it does not help."""
    script = LMScript().reply("one")
    script.take(asked())
    with pytest.raises(ScriptExhaustedError, match=r"request 2 came after the 1 .*'And now\?'"):
        script.take(asked("And now?"))
    with pytest.raises(ScriptNotDrainedError, match=r"unexpected request 2: 'And now\?'"):
        script.assert_drained()


def test_leftovers_are_named() -> None:
    """What nobody asked for fails the test."""
    script = LMScript().reply({"answer": "Rome"}).fail(503, times=1).down(times=1)
    with pytest.raises(ScriptNotDrainedError, match=r"(?s)'Rome'.*status 503.*broken connection"):
        script.assert_drained()


def test_last_word_serves_all_further_requests() -> None:
    """``otherwise`` need not be used up."""
    script = LMScript().reply("one").otherwise("other")
    assert [script.take(asked()).text for _ in range(3)] == ["one", "other", "other"]
    script.assert_drained()


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ("Respond with the corresponding output fields, starting with the field `[[ ## ", SECTIONS),
        ("Respond with a JSON object in the following order of fields: ", '{"answer": "Rome"}'),
        ("Write as you like: ", SECTIONS),
    ],
)
def test_fields_are_written_in_the_form_that_the_prompt_asks_for(request_: str, text: str) -> None:
    """That of DSPy's two adapters; for one that is not known, the sections of its usual one."""
    messages = [{"role": "system", "content": DECLARATION}, {"role": "user", "content": request_}]
    script = LMScript().reply({"answer": "Rome"})
    assert script.take(LMRequest(model="m", messages=messages)).text == text


def test_fields_of_a_plain_question_are_the_bare_answer() -> None:
    """Nobody wrote a form into it."""
    assert LMScript().reply({"answer": "Rome"}).take(asked()).text == "Rome"


@pytest.mark.parametrize(("text", "count"), [("", 3), ("ab", 5), ("abcdefg", 3), ("abcd", 1), ("abc", 0)])
def test_pieces_make_the_text(text: str, count: int) -> None:
    """Never more pieces than asked for; nothing is lost unless none is wanted."""
    pieces = pieces_of(text, count)
    assert len(pieces) <= count
    assert "".join(pieces) == (text if count else "")
