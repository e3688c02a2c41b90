"""Reading signatures without DSPy."""

from __future__ import annotations

from typing import Any

import pytest

from dspex_testkit.signatures import BadSignatureError, Field, parse_signature


def test_signature_string_is_read_with_types() -> None:
    """Fields without a type are strings; brackets may hold commas."""
    parsed = parse_signature(" a , b:int->c: dict[str, int] ,d : Literal['x', 'y'], e: list[dict[str, int]] ")
    assert [(field.name, field.type) for field in parsed.inputs] == [("a", "str"), ("b", "int")]
    assert [(field.name, field.type) for field in parsed.outputs] == [
        ("c", "dict[str, int]"),
        ("d", "Literal['x', 'y']"),
        ("e", "list[dict[str, int]]"),
    ]


def test_signature_object_is_read_with_descriptions() -> None:
    """The JSON form has names, types and descriptions."""
    signature = {
        "inputs": [{"name": "a", "description": "what"}],
        "outputs": [{"name": "b", "type": "float"}],
    }
    parsed = parse_signature(signature)
    assert parsed.inputs == (Field("a", "str", "what"),)
    assert parsed.outputs == (Field("b", "float"),)


@pytest.mark.parametrize(
    ("signature", "word"),
    [
        ("a", "->"),
        ("a -> b -> c", "->"),
        ("a ->", "output"),
        ("-> b", "input"),
        (", -> b", "identifier"),
        ("a b -> c", "a b"),
        ("1a -> b", "1a"),
        ("a, a -> b", "twice"),
        ("a -> b: Money", "Money"),
        ("a -> b: list[", "read|list"),
        ({"inputs": []}, "outputs|input"),
        ({"inputs": [], "outputs": []}, "input"),
        ({"inputs": [{"type": "str"}], "outputs": [{"name": "b"}]}, "name"),
        ({"outputs": [{"name": "b"}]}, "inputs"),
        (None, "NoneType"),
        (["a", "b"], "list"),
    ],
)
def test_bad_signature_says_which_part(signature: Any, word: str) -> None:
    """The error shows what cannot be used."""
    with pytest.raises(BadSignatureError, match=word):
        parse_signature(signature)
