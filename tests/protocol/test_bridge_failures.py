"""The translation of exceptions into failures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dspex_pool.bridge.failures import describe
from dspex_pool.bridge.interrupts import CommandCancelledError
from dspex_pool.bridge.secrets import Secrets, without_secrets
from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError
from dspex_pool.protocol.messages import Failure, encode_failure
from tests.cases import case


def raised(error: BaseException) -> BaseException:
    """Return ``error`` after it was raised."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_exception_has_its_type_on_the_wire() -> None:
    """The names that the protocol gives, else the class name."""
    cases: list[tuple[BaseException, str]] = [
        (InvalidArgumentError("x"), "InvalidArgument"),
        (ProgramNotFoundError("x"), "ProgramNotFound"),
        (ProgramExistsError("x"), "ProgramExists"),
        (CommandCancelledError(), "Cancelled"),
        (KeyboardInterrupt(), "Cancelled"),
        (ZeroDivisionError("x"), "ZeroDivisionError"),
    ]
    for error, wire_type in cases:
        assert describe(error)[1].type == wire_type, error


def test_callers_mistake_needs_no_traceback() -> None:
    """It is told completely by its message; anything else shows where it happened."""
    assert describe(raised(InvalidArgumentError("x")))[1].traceback is None
    assert "in raised" in str(describe(raised(ValueError("x")))[1].traceback)


def test_empty_exception_is_told_by_its_class() -> None:
    """There is always something for people to read."""
    text, info = describe(ValueError())
    assert text == info.message == "ValueError"


def test_consequence_of_a_cancellation_is_a_cancellation() -> None:
    """By cause or by context; but not where the code says that they have nothing to do with each other."""
    caused, handled, unrelated = RuntimeError("a"), RuntimeError("b"), RuntimeError("c")
    caused.__cause__ = handled.__context__ = unrelated.__context__ = CommandCancelledError()
    unrelated.__suppress_context__ = True
    assert [describe(error)[1].type for error in (caused, handled, unrelated)] == [
        "Cancelled",
        "Cancelled",
        "RuntimeError",
    ]


def test_chain_that_bites_its_tail_is_survived() -> None:
    """Exceptions may be linked in a circle."""
    one, other = ValueError("1"), ValueError("2")
    one.__cause__, other.__cause__ = other, one
    assert describe(one)[1].type == "ValueError"


def test_attributes_are_told_if_they_have_the_right_type() -> None:
    """Other libraries use the same names for other things."""
    cases: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({"code": "c", "status": 500, "retry_after": 3, "retryable": False}, ("c", 500, 3.0, False)),
        ({"code": 7, "status": "500", "retry_after": "3", "retryable": 1}, (None, None, None, None)),
        ({"status": True, "retry_after": True}, (None, None, None, None)),
        ({"retry_after": math.inf}, (None, None, None, None)),
        ({"retry_after": -1}, (None, None, None, None)),
        ({"retry_after": 10**400}, (None, None, None, None)),
        ({}, (None, None, None, None)),
    ]
    for attributes, facts in cases:
        with case(attributes):
            error = RuntimeError("x")
            vars(error).update(attributes)
            info = describe(error)[1]
            assert (info.code, info.status, info.retry_after_s, info.retryable) == facts


class OddText(str):
    """A text of somebody's own."""

    __slots__ = ()


class OddNumber(int):
    """A number of somebody's own."""


def test_facts_of_a_class_of_their_own_travel_as_plain_ones() -> None:
    """The codec refuses any other; the worker ended when it came to such a failure."""
    error = RuntimeError("x")
    vars(error).update({"code": OddText("rate_limit"), "status": OddNumber(429)})
    info = describe(error)[1]
    assert b'"code":"rate_limit","status":429' in encode_failure(Failure(1, "x", 0.0, info))


class FalseError(Exception):
    """An exception that has no truth."""

    def __bool__(self) -> bool:
        raise RuntimeError


def test_exception_without_truth_is_told_with_what_it_led_to() -> None:
    """It is a link like any other; the worker ended when it came to it."""
    error = RuntimeError("x")
    error.__cause__ = FalseError()
    error.__cause__.__context__ = CommandCancelledError()
    assert describe(error)[1].type == "Cancelled"


def test_handlers_knowledge_comes_first_and_fills_gaps_only_with_something() -> None:
    """What the handler does not know is read from the exception."""
    error = RuntimeError("x")
    vars(error).update({"code": "own", "status": 500})
    info = describe(error, facts=lambda _: {"status": 503, "code": None, "retryable": True, "other": 1})[1]
    assert (info.code, info.status, info.retryable) == ("own", 503, True)


@pytest.mark.parametrize("facts", [lambda _: None, lambda _: 1 / 0, lambda _: {"status": "many"}])
def test_handlers_mistake_does_not_hide_the_error(facts: Any) -> None:
    """The error itself is what matters."""
    assert describe(ValueError("x"), facts=facts)[1].message == "x"


def test_long_texts_are_cut_and_secrets_masked() -> None:
    """A failure is for people; and keys are for nobody."""
    secrets = Secrets()
    secrets.add("sk-12345678")
    text, info = describe(raised(ValueError("sk-12345678 " + "x" * 100_000)), mask=secrets.mask)
    assert text.startswith("[secret] xxx")
    assert len(text) == len(info.traceback or "") == 16_000
    assert "sk-12345678" not in str(info)


class OddError(Exception):
    """An exception whose members raise something."""

    def __init__(self, something: type[BaseException]) -> None:
        self.something = something

    def __str__(self) -> str:
        raise self.something

    @property
    def code(self) -> str:
        """Fail."""
        raise self.something


@pytest.mark.parametrize("something", [RuntimeError, SystemExit, GeneratorExit])
def test_exception_whose_members_raise_is_told(something: type[BaseException]) -> None:
    """Whatever a program raises is answered; what is no Exception ended the worker."""

    def facts(_: BaseException) -> dict[str, Any]:
        raise something

    text, info = describe(OddError(something), facts=facts)
    assert text == "OddError, whose text cannot be had"
    assert info.code is None


def test_exception_that_cannot_be_formatted_is_told() -> None:
    """A syntax error of somebody's own making may hold anything."""
    info = describe(SyntaxError("no such word", ("file", 1, 1, 5)))[1]  # type: ignore[arg-type] # that is the point
    assert info.type == "SyntaxError"
    assert info.traceback == "the traceback of SyntaxError cannot be formatted"


def test_longer_secret_is_masked_before_the_one_it_begins_with() -> None:
    """No end of a key is left over; and short words are no secrets."""
    secrets = Secrets()
    for value in ("sk-12345", "sk-12345-and-more", "sk-12345", "short"):
        secrets.add(value)
    assert secrets.mask("sk-12345-and-more, sk-12345, short") == "[secret], [secret], short"


@pytest.mark.parametrize("value", ["sk-12345678\n", "sk\\12345678", "sk-\t'\"12345678"])
def test_secret_is_masked_in_quotes_too(value: str) -> None:
    """A key with the end of its file's line was told in full: the refusal quoted it, which made it another text."""
    secrets = Secrets()
    secrets.add(value)
    for text in (value, value.strip(), repr(value), repr(value.strip())):
        assert "12345678" not in secrets.mask(f"forbidden byte in {text}")


def test_secrets_of_an_environment_are_known_by_their_names() -> None:
    """A provider that repeated the key of ``OPENAI_API_KEY`` had it told in errors, outputs and journals."""
    values = {
        "OPENAI_API_KEY": "sk-0123456789",
        "openai_apikey": "sk-1234567890",
        "AWS_SECRET_ACCESS_KEY": "aws-2345678901",
        "HF_TOKEN": "hf-3456789012",
        "PGPASSWORD": "pw-4567890123",
        "CLIENT_SECRET": "cs-5678901234",
    }
    harmless = {
        "KEYBOARD": "a-keyboard",
        "TOKENIZERS_PARALLELISM": "false-and-long",
        "SSH_AUTH_SOCK": "/tmp/agent",
    }
    secrets = Secrets()
    secrets.add_environment(values | harmless)
    assert {secrets.mask(value) for value in values.values()} == {"[secret]"}
    assert [secrets.mask(value) for value in harmless.values()] == list(harmless.values())


def test_state_loses_the_secrets_of_language_models_alone() -> None:
    """What examples of a program are called is no matter: a field named ``key`` is kept."""
    model = {
        "_dspy_lm_class": "m.LM", "api_token": "s", "max_tokens": 5, "api_base": "http://u:p@host/v1?key=s#top",
        "extra": [{"x-key": "s", "retries": 2}],
    }  # fmt: skip
    kept = {
        "_dspy_lm_class": "m.LM", "max_tokens": 5, "api_base": "http://host/v1#top", "extra": [{"retries": 2}]
    }  # fmt: skip
    demos = [{"key": "of the door", "address": "http://u:p@host", "token": None}]
    assert without_secrets({"p": {"lm": model, "demos": demos}}) == {"p": {"lm": kept, "demos": demos}}


def test_who_asks_by_an_address_is_secret() -> None:
    """An address with a password in it was told in full when nobody answered there."""
    secrets = Secrets()
    secrets.add_address("http://ann:pass-0123456789@127.0.0.1:1/v1")
    assert secrets.mask("ann:pass-0123456789@127.0.0.1") == "[secret]@127.0.0.1"
    assert secrets.mask("pass-0123456789 for http://127.0.0.1:1/v1") == "[secret] for http://127.0.0.1:1/v1"
    secrets.add_address("http://127.0.0.1:1/v1?api-version=2026-01-01")
    assert secrets.mask("http://127.0.0.1:1/v1?api-version=2026-01-01").endswith("2026-01-01")
