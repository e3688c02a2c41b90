"""Strict JSON: a value arrives as it was sent, or is refused with its place."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspex_pool.errors import LocalProtocolError
from dspex_pool.protocol import strict_json
from dspex_pool.protocol.strict_json import decode_json, encode_json
from dspex_testkit import strategies
from tests.cases import case


@dataclass
class Point:
    x: int = 1


class Colour(enum.Enum):
    RED = "red"


class Named(enum.StrEnum):
    RED = "red"


class Text(str):
    """A text that JSON carries, of a kind of its own."""

    __slots__ = ()


class Fields(dict[str, Any]):
    """An object that JSON carries, of a kind of its own."""


def outcome(fields: dict[str, Any]) -> bytes | str:
    """Return the payload, or what is said instead."""
    try:
        return encode_json(fields)
    except LocalProtocolError as error:
        return str(error)


def outcome_of_comparing(fields: dict[str, Any]) -> bytes | str:
    """Return the same where no payload is long enough to be walked over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_LONG_BYTES", 2**60)
        return outcome(fields)


def outcome_of_walking(fields: dict[str, Any]) -> bytes | str:
    """Return the same where every payload is, and as far as need be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "_LONG_BYTES", 0)
        patch.setattr(strict_json, "_BYTES_A_VALUE", 1)
        return outcome(fields)


def any_values() -> st.SearchStrategy[Any]:
    """Draw values that JSON carries, and values that it does not."""
    edges = [
        math.nan, math.inf, -math.inf, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**400, "\ud800", Text("x"),
        Named.RED, Colour.RED, Point(), b"", {1}, frozenset(), object(), decimal.Decimal("1.5"), 1j,
    ]  # fmt: skip
    keys = strategies.texts() | st.sampled_from([1, None, True, 1.5, "\udfff", Text("k"), Named.RED, (1,)])
    return st.recursive(
        strategies.json_values() | st.sampled_from(edges),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
            | st.dictionaries(strategies.texts(), inner, max_size=3).map(Fields)
        ),
        max_leaves=8,
    )


def objection(value: Any) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        encode_json({"args": {"inputs": {"x": value}}})
    text = str(caught.value)
    assert text.endswith("; nothing was sent")
    text.encode()  # the text itself can be sent and logged
    return text


def test_encode_json_keeps_every_json_value() -> None:
    """What JSON can carry arrives equal."""
    cases: list[Any] = [
        None, True, 0, -1, 2**70, 1.5, -0.0, 1e300, "", "é€😀\x00", [], {}, [1, [2, {"a": None}]], Named.RED,
    ]  # fmt: skip
    for value in cases:
        with case(value):
            assert decode_json(encode_json({"v": value})) == {"v": value}


def test_encode_json_writes_non_ascii_unescaped() -> None:
    """The payload is UTF-8, compact."""
    assert encode_json({"v": "é"}) == b'{"v":"\xc3\xa9"}'


def test_encode_json_carries_tuples_as_arrays() -> None:
    """Python's other sequence is not worth an error, at any depth."""
    assert encode_json({"v": (1, {"w": (2,)})}) == b'{"v":[1,{"w":[2]}]}'


def test_encode_json_names_the_place_of_what_json_cannot_carry() -> None:
    """The caller learns which value to change."""
    cases: list[tuple[Any, str]] = [
        (math.nan, "args.inputs.x is NaN"),
        (math.inf, "args.inputs.x is infinite"),
        (-math.inf, "args.inputs.x is infinite"),
        ([0, {"deep": math.nan}], "args.inputs.x[1].deep is NaN"),
        ((0, math.nan), "args.inputs.x[1] is NaN"),
        ({"two words": math.nan}, "args.inputs.x['two words'] is NaN"),
        ({1, 2}, "args.inputs.x is of type set"),
        (b"bytes", "args.inputs.x is of type bytes"),
        (object(), "args.inputs.x is of type object"),
        (Point(), "args.inputs.x is of type Point"),
        (Colour.RED, "args.inputs.x is of type Colour"),
        (decimal.Decimal("1.5"), "args.inputs.x is of type Decimal"),
        (datetime.date(2026, 1, 2), "args.inputs.x is of type date"),
        (10**5000, "args.inputs.x is an integer of 16610 bits"),
        ({1: "one"}, "a key of args.inputs.x is an integer of 1 bits"),
        ({None: 0}, "a key of args.inputs.x is of type NoneType"),
        ({(1, 2): 0}, "a key of args.inputs.x is of type tuple"),
        ("ab\ud800", "args.inputs.x has the lone surrogate U+D800 at character 2"),
        ({"\udfff": 0}, "a key of args.inputs.x has the lone surrogate U+DFFF at character 0"),
    ]
    for value, reason in cases:
        with case(value):
            assert objection(value).startswith(reason)


def test_encode_json_names_the_first_of_several_faults() -> None:
    """The order is the value's own."""
    assert "x[1] is NaN" in objection([0, math.nan, {1}, b""])


def test_encode_json_names_a_key_of_the_message_itself() -> None:
    """The top of the message has a name too."""
    with pytest.raises(LocalProtocolError, match="a key of the message is an integer"):
        encode_json({1: 2})  # type: ignore[dict-item]  # what is tested


def test_encode_json_refuses_a_value_that_holds_itself() -> None:
    """A cycle is an error, not an endless loop or a RecursionError."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert "nested too deeply, or holds itself" in objection(cycle)


def test_encode_json_refuses_deep_nesting_with_a_short_text() -> None:
    """20,000 levels are an error; its text stays short."""
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    text = objection(deep)
    assert "nested too deeply" in text
    assert len(text) < 200


def test_encode_json_refuses_nesting_that_the_stack_at_hand_is_too_small_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The codec may run out of stack where the value has no fault to name; that is an error too."""

    def exhausted(value: Any) -> bytes:
        if isinstance(value, dict):
            raise RecursionError("maximum recursion depth exceeded")
        return msgspec.json.encode(value)

    monkeypatch.setattr(strict_json, "_encode", exhausted)
    with pytest.raises(LocalProtocolError, match="cannot be carried by JSON: maximum recursion depth"):
        encode_json({"v": {"w": 0}})


def test_encode_json_does_not_quote_values() -> None:
    """A key sent by value does not end up in an error text."""
    assert "sk-secret" not in objection({"api_key": "sk-secret\ud800"})


# --- long payloads -------------------------------------------------------------------------------------------


@given(value=any_values())
def test_walking_and_comparing_agree_on_any_value(value: Any) -> None:
    """A long message is sent or refused as a short one is, with the same bytes and words."""
    fields = {"args": {"x": value}}
    assert outcome_of_walking(fields) == outcome_of_comparing(fields)


def test_walking_and_comparing_agree_on_any_depth() -> None:
    """However deep a value is, and where the stack ends."""
    deep: dict[str, Any] = {}
    for depth in range(1, 501):
        deep = {"a": [deep] if depth % 3 else (deep,)}
        if 31 < depth < 35 or depth > 485:
            assert outcome_of_walking(deep) == outcome_of_comparing(deep)


def test_long_payload_of_few_values_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of a megabyte costs no second one."""
    fields = {"args": {"text": "x" * 2**20, "more": [1, 1.5, None, True, ("y", {"z": -1})]}}
    payload = encode_json(fields)
    monkeypatch.setattr(strict_json, "decode_json", None)
    assert encode_json(fields) == payload


def test_long_payload_of_many_values_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk ends before it costs more than it saves."""
    decoded = []

    def decode(payload: bytes) -> Any:
        decoded.append(len(payload))
        return msgspec.json.decode(payload)

    monkeypatch.setattr(strict_json, "decode_json", decode)
    fields = {"args": {"numbers": list(range(10_000))}}
    assert decoded == [len(encode_json(fields))]


def test_long_payload_with_a_fault_is_refused_with_its_place() -> None:
    """Length is no excuse."""
    assert objection(["x" * 2**20, math.nan]).startswith("args.inputs.x[1] is NaN")
    assert objection({"text": "x" * 2**20 + "\ud800"}).startswith("args.inputs.x.text has the lone surrogate")
