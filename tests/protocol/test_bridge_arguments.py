"""Args, definitions, language models and sessions: what requests bring, checked before DSPy sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspex_pool.bridge.arguments import (
    describe,
    mapping,
    names,
    number,
    optional_mapping,
    optional_text,
    positive_int,
    text,
)
from dspex_pool.bridge.definitions import read_definition
from dspex_pool.bridge.extractive import MODEL
from dspex_pool.bridge.lm import EXTRACTIVE_MODEL, read_settings
from dspex_pool.bridge.sessions import Program, Sessions
from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError
from tests.cases import case

Reader = Callable[[dict[str, Any], str], Any]


def refusal_of(read: Callable[..., object], *arguments: object) -> InvalidArgumentError:
    """Return the error by which an argument is refused."""
    with pytest.raises(InvalidArgumentError) as caught:
        read(*arguments)
    return caught.value


# --- single arguments --------------------------------------------------------------------------------------


def test_argument_of_the_right_type_is_returned() -> None:
    """As it came."""
    cases: list[tuple[Reader, Any]] = [
        (text, "x"),
        (optional_text, "x"),
        (mapping, {"a": 1}),
        (mapping, {}),
        (optional_mapping, {}),
        (number, 0),
        (number, 1.5),
        (positive_int, 1),
    ]
    for read, value in cases:
        assert read({"it": value}, "it") == value, (read, value)


@pytest.mark.parametrize("args", [{}, {"it": None}])
def test_optional_argument_may_be_missing_or_null(args: dict[str, Any]) -> None:
    """Both mean that nothing was said."""
    for read in (optional_text, optional_mapping, number, positive_int):
        assert read(args, "it") is None
    assert names(args, "it") == ()


@pytest.mark.parametrize("read", [text, mapping])
def test_required_argument_that_is_missing_is_named(read: Reader) -> None:
    """The message and the fact both say which."""
    error = refusal_of(read, {}, "it")
    assert error.message.startswith("it is required")
    assert error.argument == "it"


def test_argument_of_another_type_is_refused() -> None:
    """Nothing is converted."""
    cases: list[tuple[Reader, Any]] = [
        (text, ""), (text, 3), (optional_text, []), (mapping, []), (optional_mapping, "x"), (number, True),
        (number, -1), (number, "1"), (positive_int, 0), (positive_int, 1.0), (positive_int, True), (names, "x"),
        (names, [1]), (names, [""]),
    ]  # fmt: skip
    for read, value in cases:
        with case(read, value):
            assert refusal_of(read, {"it": value}, "it").message.startswith("it must be")


def test_value_is_described_in_the_words_of_json() -> None:
    """And never at length: it may be a prompt."""
    cases: list[tuple[Any, str]] = [
        (None, "null"), (True, "true"), (1.5, "the number 1.5"), ("x", "the string 'x'"),
        ("x" * 99, "a string of 99 characters"), ({}, "an object"), ([], "a list"), ((), "of type tuple"),
    ]  # fmt: skip
    for value, words in cases:
        assert describe(value) == words, value


# --- definitions -------------------------------------------------------------------------------------------


def test_definition_has_the_usual_kind() -> None:
    """``predict``, from a signature."""
    definition = read_definition({"signature": "q -> a"})
    assert definition.program_type == "predict"
    assert definition.spec is not None
    assert definition.to_json() == {"signature": "q -> a", "program_type": "predict"}


def test_definition_survives_its_json() -> None:
    """What ``dump_program`` gives, ``load_program`` takes."""
    args = {"signature": "q -> a", "program_type": "react", "tools": ["m:f"], "max_iters": 3, "other": 1}
    definition = read_definition(args)
    assert read_definition(definition.to_json()) == definition
    made = read_definition({"factory": "m:f", "program_type": "predict"})
    assert made.program_type == "factory"
    assert read_definition(made.to_json()) == made


def test_bad_definition_is_refused() -> None:
    """The kind is never ignored, and never guessed (R31)."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "signature", "required, unless a factory"),
        ({"signature": "q"}, "signature", "exactly one '->'"),
        (
            {"signature": "q -> a", "program_type": "magic"},
            "program_type",
            "known are predict, chain_of_thought",
        ),
        ({"signature": "q -> a", "program_type": 3}, "program_type", "must be a non-empty string"),
        ({"factory": "m:f", "program_type": "react"}, "program_type", "exclude each other"),
        ({"signature": "q -> a", "tools": ["m:f"]}, "tools", "are for program_type 'react'"),
        ({"signature": "q -> a", "max_iters": 3}, "max_iters", "not 'predict'"),
        ({"signature": "q -> a", "program_type": "react", "max_iters": 0}, "max_iters", "1 or more"),
    ]
    for args, argument, problem in cases:
        with case(args, argument):
            error = refusal_of(read_definition, args)
            assert error.argument == argument
            assert problem in error.message


def test_program_of_thought_needs_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is a clear error; with it the definition is read."""
    args = {"signature": "q -> a", "program_type": "program_of_thought", "max_iters": 2}
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("dspex_pool.bridge.definitions.importlib.util.find_spec", lambda name: None)
    assert "Deno sandbox" in refusal_of(read_definition, args).message
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert read_definition(args).max_iters == 2


# --- language models ---------------------------------------------------------------------------------------


def test_embedded_model_has_one_name_in_both_places() -> None:
    """The settings know it without loading the engine."""
    assert EXTRACTIVE_MODEL == MODEL


def test_model_is_named_as_dspy_names_it() -> None:
    """Provider and model are put together once, here."""
    cases: list[tuple[dict[str, Any], str, str, str]] = [
        ({"model": "openai/gpt-4o-mini"}, "openai", "openai/gpt-4o-mini", "auto"),
        ({"model": "gpt-4o-mini"}, "openai", "openai/gpt-4o-mini", "auto"),
        ({"model": "claude", "provider": "anthropic"}, "anthropic", "anthropic/claude", "auto"),
        ({"model": "gemini-2.5-flash", "provider": "google"}, "google", "gemini/gemini-2.5-flash", "auto"),
        ({"model": "a/b", "engine": "lm15"}, "a", "a/b", "lm15"),
        ({"model": "a/b", "engine": "m.n:Engine"}, "a", "a/b", "m.n:Engine"),
        ({"model": EXTRACTIVE_MODEL}, "dspex", EXTRACTIVE_MODEL, "extractive"),
        ({"engine": "extractive"}, "dspex", EXTRACTIVE_MODEL, "extractive"),
        ({"engine": "extractive", "model": EXTRACTIVE_MODEL}, "dspex", EXTRACTIVE_MODEL, "extractive"),
    ]
    for args, provider, qualified, engine in cases:
        with case(args):
            settings = read_settings(args, {})
            assert settings.engine == engine
            assert (settings.provider, settings.qualified_model) == (provider, qualified)
            assert settings.answer()["provider"] == provider


def test_settings_are_read_and_the_key_is_not_shown() -> None:
    """By name from the environment; and not in the answer or the text of the record."""
    args = {
        "model": "a/b",
        "api_key_env": "MY_KEY",
        "api_base": "http://127.0.0.1:1",
        "temperature": 0.5,
        "max_tokens": 9,
    }
    settings = read_settings(args, {"MY_KEY": "sk-from-environment"})
    assert settings.api_key == "sk-from-environment"
    assert settings.api_base == "http://127.0.0.1:1"
    assert settings.max_tokens == 9
    assert settings.answer() == {"status": "configured", "model": "a/b", "provider": "a", "temperature": 0.5}
    assert "sk-from" not in repr(settings)


def test_embedded_engine_takes_no_key() -> None:
    """It is accepted, because clients send it along, and dropped."""
    settings = read_settings({"engine": "extractive", "api_key": "sk-useless", "api_base": "http://x"}, {})
    assert settings.api_key is None
    assert settings.api_base is None


def test_bad_settings_are_refused() -> None:
    """A refusal is a failure, never a success with an error in it (R32)."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "model", "is required"),
        ({"model": "a/b", "api_key": "x", "api_key_env": "Y"}, "api_key_env", "give one"),
        ({"model": "a/b", "api_key_env": "Y"}, "api_key_env", "'Y', which is not set"),
        ({"model": "a/b", "temperature": "hot"}, "temperature", "must be a number"),
        ({"model": "a/b", "max_tokens": 0}, "max_tokens", "1 or more"),
        ({"model": "a/b", "engine": "steam"}, "engine", "known are extractive"),
        ({"model": "a/b", "engine": "extractive"}, "engine", "only, not 'a/b'"),
        ({"model": EXTRACTIVE_MODEL, "engine": "lm15"}, "engine", "does not serve"),
    ]
    for args, argument, problem in cases:
        with case(args, argument):
            error = refusal_of(read_settings, args, {})
            assert error.argument == argument
            assert problem in error.message


# --- sessions ----------------------------------------------------------------------------------------------


def add(sessions: Sessions, args: dict[str, Any], program_id: str) -> None:
    """Put an empty program into a session."""
    sessions.open(args).programs[program_id] = Program(program_id, {}, None, None)


def test_programs_of_sessions_are_apart() -> None:
    """The same id in two sessions is two programs."""
    sessions = Sessions("pool-worker")
    for session_id in ("a", "b"):
        add(sessions, {"session_id": session_id}, "p")
    assert sessions.programs_count == len(sessions) == 2
    assert sessions.remove({"session_id": "a"}) == ("a", 1)
    assert sessions.find({"session_id": "b", "program_id": "p"}).id == "p"
    with pytest.raises(ProgramNotFoundError, match="Program not found: p") as caught:
        sessions.find({"session_id": "a", "program_id": "p"})
    assert caught.value.program_id == "p"


def test_session_id_is_required_in_pool_worker_mode() -> None:
    """With the words that the protocol gives."""
    error = refusal_of(Sessions("pool-worker").key, {})
    assert error.message == "session_id is required in pool-worker mode"
    assert "must be a non-empty string" in refusal_of(Sessions("pool-worker").key, {"session_id": 3}).message


def test_standalone_worker_has_one_space() -> None:
    """Whatever session a call names."""
    sessions = Sessions("standalone")
    add(sessions, {"session_id": "a"}, "p")
    assert sessions.find({"session_id": "b", "program_id": "p"}).id == "p"
    assert sessions.remove({}) == ("global", 1)
    assert sessions.current is None


def test_looking_at_a_session_does_not_begin_it() -> None:
    """Questions about sessions that do not exist leave nothing behind (R114)."""
    sessions = Sessions("pool-worker")
    assert sessions.look({"session_id": "a"}).programs == {}
    assert len(sessions) == 0
    assert sessions.current == "a"
    assert sessions.remove({"session_id": "a"}) == ("a", 0)


def test_second_program_of_an_id_is_refused() -> None:
    """With the words that the protocol gives."""
    sessions = Sessions("pool-worker")
    args = {"session_id": "a"}
    sessions.refuse_existing(args, "p")
    add(sessions, args, "p")
    with pytest.raises(ProgramExistsError, match=r"^Program with ID 'p' already exists\.$"):
        sessions.refuse_existing(args, "p")
    assert sessions.clear() == 1
    assert sessions.current is None


def test_runs_are_counted() -> None:
    """How often, and when last."""
    program = Program("p", {}, None, None)
    assert (program.execution_count, program.last_executed) == (0, None)
    program.ran()
    assert program.execution_count == 1
    assert program.last_executed is not None
    assert program.last_executed >= program.created_at
