"""Program signatures without DSPy: their fields and types, read from a string or from JSON."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BadSignatureError", "Field", "ParsedSignature", "parse_signature"]

#: Types that a field may have; brackets after ``list``, ``dict`` and ``Literal`` are kept as text.
_TYPE = re.compile(r"(str|int|float|bool|dict|list|Literal)(\[.+\])?\Z")
#: A colon ends the name, a comma outside of brackets ends the field.
_FIELD = re.compile(r"\s*(?P<name>[^:,\[\]]*?)\s*(?::\s*(?P<type>[^,\[\]]+(?:\[.*?\]+)?))?\s*(?:,|\Z)")


class BadSignatureError(ValueError):
    """The signature cannot be used; the text says which part and why."""


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output."""

    name: str
    type: str = "str"
    description: str = ""

    def canned(self, seed: str) -> Any:
        """Return a value of this field's type; strings show ``seed``."""
        kind = _TYPE.match(self.type)
        assert kind is not None
        if kind[1] == "Literal":
            return ast.literal_eval(kind[2])[0]
        values: dict[str, Any] = {"int": 0, "float": 0.0, "bool": False, "list": [], "dict": {}}
        return values.get(kind[1], f"{self.name}: {seed}")


@dataclass(frozen=True, slots=True)
class ParsedSignature:
    """The fields of a signature, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


def parse_signature(signature: object) -> ParsedSignature:
    """Read ``"question, k: int -> answer"`` or ``{inputs: [{name, type, description}], outputs: […]}``.

    Raises:
        BadSignatureError: A part is missing, is no identifier, is named twice, or has an unknown type.
    """
    if isinstance(signature, str):
        parts = signature.split("->")
        if len(parts) != 2:
            raise BadSignatureError(f"signature {signature!r} needs exactly one '->'")
        return _checked(_from_text(parts[0]), _from_text(parts[1]))
    if isinstance(signature, Mapping):
        return _checked(_from_json(signature, "inputs"), _from_json(signature, "outputs"))
    raise BadSignatureError(f"a signature is a string or an object, not {type(signature).__name__}")


def _from_text(text: str) -> list[Field]:
    fields, position = [], 0
    while position < len(text.rstrip()):
        match = _FIELD.match(text, position)
        if match is None or match.end() == position:
            raise BadSignatureError(f"cannot read {text[position:].strip()!r} as a field")
        fields.append(Field(match["name"], (match["type"] or "str").strip()))
        position = match.end()
    return fields


def _from_json(signature: Mapping[str, Any], part: str) -> list[Field]:
    entries = signature.get(part)
    if not isinstance(entries, list):
        raise BadSignatureError(f"signature needs a list named {part!r}")
    fields = []
    for entry in entries:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise BadSignatureError(f"an entry of {part!r} needs a name")
        fields.append(Field(entry["name"], str(entry.get("type", "str")), str(entry.get("description", ""))))
    return fields


def _checked(inputs: list[Field], outputs: list[Field]) -> ParsedSignature:
    if not inputs or not outputs:
        raise BadSignatureError("a signature needs at least one input and one output")
    names: set[str] = set()
    for field in (*inputs, *outputs):
        if not field.name.isidentifier():
            raise BadSignatureError(f"field name {field.name!r} is no identifier")
        if field.name in names:
            raise BadSignatureError(f"field {field.name!r} is named twice")
        if not _TYPE.match(field.type):
            raise BadSignatureError(f"field {field.name!r} has the unknown type {field.type!r}")
        names.add(field.name)
    return ParsedSignature(tuple(inputs), tuple(outputs))
