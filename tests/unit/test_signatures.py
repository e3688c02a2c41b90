"""Canned values for the fields of signatures."""

from __future__ import annotations

from dspex_pool.bridge.field_types import mismatch
from dspex_pool.bridge.signatures import parse_signature
from dspex_testkit.signatures import canned_value


def test_canned_value_is_of_its_fields_type() -> None:
    """The bridge itself would take every canned value for an output of that type; texts show what was asked."""
    spec = parse_signature(
        "a, b: int -> c, d: str, e: float, f: bool | None, g: list[dict[str, int]], h: dict, i: Literal[3, 'x'], "
        "j: Literal['y'] | None"
    )
    values = {field.name: canned_value(field, "why?") for field in spec.outputs}
    assert values == {
        "c": "c: why?", "d": "d: why?", "e": 0.0, "f": False, "g": [], "h": {}, "i": 3, "j": "y"
    }  # fmt: skip
    assert not [field for field in spec.outputs[1:] if mismatch(values[field.name], field.annotation)]


def test_canned_value_is_never_shared() -> None:
    """What one caller does to his answer is not seen by the next."""
    (field,) = parse_signature("a -> b: list").outputs
    canned_value(field, "").append(1)
    assert canned_value(field, "") == []
