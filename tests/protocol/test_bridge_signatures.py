"""Signatures: what is read, what is refused, and what a program may be given."""

from __future__ import annotations

import sys
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex_pool.bridge.field_types import mismatch, parse_type
from dspex_pool.bridge.signatures import FieldSpec, parse_signature, validate_inputs
from dspex_pool.errors import InvalidArgumentError
from tests.cases import case
from tests.search_profiles import depth


def refusal_of(signature: object) -> str:
    """Return why a signature is refused."""
    with pytest.raises(InvalidArgumentError) as caught:
        parse_signature(signature)
    assert caught.value.argument == "signature"
    return caught.value.message


# --- reading -----------------------------------------------------------------------------------------------


def test_string_gives_names_in_order_without_types() -> None:
    """An untyped field has no annotation: text in any form."""
    spec = parse_signature("context, question -> answer")
    assert spec.inputs == (FieldSpec("context"), FieldSpec("question"))
    assert spec.outputs == (FieldSpec("answer"),)
    assert spec.name is None
    assert spec.description is None


def test_string_gives_types() -> None:
    """Types stand behind a colon, with commas and brackets of their own."""
    spec = parse_signature(
        "a: int, b: Literal['x, y', 2], c: dict[str, list[float]] -> d: bool, e: str | None"
    )
    assert [field.annotation for field in (*spec.inputs, *spec.outputs)] == [
        int, Literal["x, y", 2], dict[str, list[float]], bool, str | None
    ]  # fmt: skip


def test_object_gives_name_instructions_types_and_descriptions() -> None:
    """Everything that typed fields say is kept."""
    spec = parse_signature(
        {
            "name": "QA",
            "description": "Answer shortly.",
            "inputs": [{"name": "question", "type": "string", "description": "what is asked"}],
            "outputs": [{"name": "answer"}, {"name": "score", "type": "float", "description": None}],
        }
    )
    assert spec.name == "QA"
    assert spec.description == "Answer shortly."
    assert spec.inputs == (FieldSpec("question", str, "what is asked"),)
    assert spec.outputs == (FieldSpec("answer"), FieldSpec("score", float))


def test_type_is_read_under_all_its_names() -> None:
    """Python's names, JSON's, and those of Elixir clients."""
    cases: list[tuple[str, Any]] = [
        ("str", str), ("string", str), ("int", int), ("integer", int), ("float", float), ("number", float),
        ("bool", bool), ("boolean", bool), ("list", list), ("array", list), ("dict", dict), ("object", dict),
        ("map", dict), (" list[ str ] ", list[str]), ("List[list[int]]", list[list[int]]),
        ("dict[str, bool]", dict[str, bool]), ("Dict[string, map[str, int]]", dict[str, dict[str, int]]),
        ("Literal['a']", Literal["a"]), ("Literal['a', 1, True, -2]", Literal["a", 1, True, -2]),
        ("Optional[int]", int | None), ("list[str] | None", list[str] | None),
    ]  # fmt: skip
    for text, annotation in cases:
        assert parse_type(text, "field") == annotation, text


def test_unknown_type_is_refused_with_the_field_and_the_known_types() -> None:
    """No silent fallback to text (R31)."""
    cases: list[str] = [
        "", "text", "os.path", "set", "bytes", "Any", "None", "list[text]", "list[int, str]", "dict[int, str]",
        "dict[str]", "Literal[]", "Literal[()]", "Literal[x]", "Literal[1.5]", "Literal[None]", "int | str",
        "print('x')", "str str", "lambda: 0", "\0", "list[" * 500 + "int" + "]" * 500, "3",
    ]  # fmt: skip
    for text in cases:
        with case(text):
            with pytest.raises(InvalidArgumentError) as caught:
                parse_type(text, "score")
            assert "'score'" in caught.value.message
            assert "known are str, int" in caught.value.message


def test_type_is_never_imported() -> None:
    """DSPy imports the modules that a string names; we read the string first."""
    name = "this_is_no_module"
    assert "unknown type" in refusal_of(f"a: {name} -> b")
    assert "unknown type" in refusal_of("a: antigravity -> b")
    assert "antigravity" not in sys.modules


def test_bad_signature_is_refused_with_the_reason() -> None:
    """Error, never fallback (R31)."""
    cases: list[tuple[object, str]] = [
        ("question", "exactly one '->'"),
        ("a -> b -> c", "exactly one '->'"),
        (" -> answer", "at least one input"),
        ("question ->", "one output"),
        ("a b -> c", "cannot be read near 'a b'"),
        ("a, a -> b", "two fields named 'a'"),
        ("a -> a", "two fields named 'a'"),
        ("_a -> b", "'_a', which is no identifier"),
        ("a = 1 -> b", "must list names"),
        ("*a -> b", "must list names"),
        ("**a -> b", "must list names"),
        ("a, /, b -> c", "must list names"),
        ("a, *, b -> c", "must list names"),
        ("x): pass\ndef f(y -> b", "must list names"),
        ("a # -> b", "cannot be read"),
        ("a: int: str -> b", "cannot be read"),
        ("\0 -> b", "cannot be read"),
        ("config -> b", "DSPy keeps for itself"),
        ("class -> b", "cannot be read"),
        (7, "must be a string or an object"),
        (None, "must be a string or an object"),
        ({}, "needs a list named 'inputs'"),
        ({"inputs": [{"name": "a"}]}, "needs a list named 'outputs'"),
        ({"inputs": [], "outputs": [{"name": "b"}]}, "at least one input"),
        ({"inputs": ["a"], "outputs": [{"name": "b"}]}, "entry in 'inputs'"),
        ({"inputs": [{"type": "str"}], "outputs": [{"name": "b"}]}, "entry in 'inputs'"),
        ({"inputs": [{"name": "a", "type": 3}], "outputs": [{"name": "b"}]}, "type or description"),
        ({"inputs": [{"name": "a", "description": 3}], "outputs": [{"name": "b"}]}, "type or description"),
        ({"inputs": [{"name": "not good"}], "outputs": [{"name": "b"}]}, "'not good', which is no identifier"),
        ({"inputs": [{"name": "if"}], "outputs": [{"name": "b"}]}, "'if', which is no identifier"),
        ({"name": 3, "inputs": [{"name": "a"}], "outputs": [{"name": "b"}]}, "'name' that is no string"),
    ]  # fmt: skip
    for signature, problem in cases:
        with case(signature):
            assert problem in refusal_of(signature)


def test_signature_that_goes_on_behind_its_names_is_refused() -> None:
    """The rest was ignored, and came back with the definition; lines may be broken as anywhere."""
    for text in ("a): pass # -> b", "a -> b): pass; import os #", "a -> b):\n while (1"):
        with case(text):
            assert "must list names" in refusal_of(text)
    for text in ("a,\n c -> b", "a,\r\n c -> b", "a,\r c -> b", "a,\f c -> b: Literal['\u2028']"):
        with case(text):
            assert [field.name for field in parse_signature(text).inputs] == ["a", "c"]


def test_choices_that_cannot_be_evaluated_are_refused() -> None:
    """For want of a hash it was a TypeError."""
    assert "unknown type" in refusal_of("a -> b: Literal[{[]}]")


@settings(max_examples=depth(10, 1000))
@given(st.text())
def test_any_string_is_read_or_refused(text: str) -> None:
    """Nothing that a caller can write is anything else than a signature or a refusal."""
    try:
        spec = parse_signature(text)
    except InvalidArgumentError:
        return
    assert spec.inputs
    assert spec.outputs


# --- inputs ------------------------------------------------------------------------------------------------

SPEC = parse_signature(
    "count: int, rate: float, tags: list[str], kind: Literal['a', 'b'], note: str | None, text -> r"
)
GOOD: dict[str, Any] = {"count": 1, "rate": 2, "tags": ["x"], "kind": "a", "note": None, "text": "t"}


def problems_of(inputs: dict[str, Any]) -> str:
    """Return why inputs are refused."""
    with pytest.raises(InvalidArgumentError) as caught:
        validate_inputs(SPEC, inputs, program_id="p-1")
    assert caught.value.argument == "inputs"
    assert "'p-1'" in caught.value.message
    return caught.value.message


def test_inputs_of_the_right_types_are_accepted() -> None:
    """An int serves as a float; an untyped field takes any value."""
    changes: list[dict[str, Any]] = [{}, {"note": "n"}, {"rate": 0.5}, {"tags": []}, {"text": ["any", 1]}]
    for change in changes:
        with case(change):
            validate_inputs(SPEC, GOOD | change, program_id="p-1")


def test_input_that_allows_null_may_be_left_out() -> None:
    """Optional means optional."""
    validate_inputs(SPEC, {name: value for name, value in GOOD.items() if name != "note"}, program_id="p-1")


def test_missing_and_unknown_inputs_are_all_named() -> None:
    """One error tells everything, and what would be right (R30)."""
    message = problems_of({"coutn": 1, "rate": 2.0, "tags": [], "kind": "a"})
    assert "misses the input 'count'" in message
    assert "misses the input 'text'" in message
    assert "has no input 'coutn'" in message
    assert "its inputs are count, rate, tags, kind, note, text" in message


def test_input_of_another_type_is_refused() -> None:
    """Nothing is converted behind the caller's back (R30)."""
    cases: list[tuple[str, Any, str]] = [
        ("count", True, "is true, not int"),
        ("count", "1", "is the string '1', not int"),
        ("count", 1.5, "is the number 1.5, not int"),
        ("count", None, "is null, not int"),
        ("rate", "x" * 50, "is a string of 50 characters, not float"),
        ("rate", False, "is false, not float"),
        ("tags", "x", "not list"),
        ("tags", ["x", 2], "has an item [1] that is the number 2, not str"),
        ("kind", "c", "is the string 'c', not one of 'a', 'b'"),
        ("note", [], "is a list, not str"),
        ("text", None, "is null"),
    ]
    for name, value, problem in cases:
        with case(name, value):
            assert f"got an input {name!r} that " in (message := problems_of(GOOD | {name: value}))
            assert problem in message


def test_value_is_held_against_its_type() -> None:
    """The types of JSON, no more and no less."""
    cases: list[tuple[Any, Any, bool]] = [
        ({"a": 1}, dict, True),
        ({"a": [1.5]}, dict[str, list[float]], True),
        ({"a": ["x"]}, dict[str, list[float]], False),
        ([], dict, False),
        (1, Literal[1, 2], True),
        (True, Literal[1, 2], False),
        (True, Literal[True], True),
        (None, int | None, True),
        ("x", int | None, False),
        (True, bool, True),
        (1, bool, False),
    ]
    for value, annotation, fits in cases:
        assert (mismatch(value, annotation) is None) is fits, (value, annotation)
