"""Signatures without DSPy: their fields and types, and what a program may be given.

A signature is a string, ``"question, k: int -> answer: list[str]"``, or an object, ``{name, description, inputs:
[{name, type, description}], outputs: […]}``. Both are read here in full, so that nothing in them is guessed,
ignored, or imported: DSPy itself would import modules that a string names.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.field_types import mismatch, parse_type, type_of_node
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["RESERVED_INPUTS", "FieldSpec", "SignatureSpec", "parse_signature", "validate_inputs"]

#: Keywords that DSPy's modules keep for themselves when they are called.
RESERVED_INPUTS = frozenset({"completions", "config", "demos", "lm", "new_signature", "signature"})


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One input or output."""

    #: Its name, an identifier.
    name: str
    #: Its type as a Python annotation; ``None`` where none was given, which means text in any form.
    annotation: Any = None
    #: What it is, for the model; empty where nothing was said.
    description: str = ""


@dataclass(frozen=True, slots=True)
class SignatureSpec:
    """What goes in and what comes out."""

    inputs: tuple[FieldSpec, ...]
    outputs: tuple[FieldSpec, ...]
    #: Name of the signature, or ``None``.
    name: str | None = None
    #: Instructions for the model, or ``None`` for the usual ones.
    description: str | None = None


def parse_signature(signature: object) -> SignatureSpec:
    """Read a signature.

    Args:
        signature: A string or an object, see above. Types are ``str``, ``int``, ``float``, ``bool``, ``list``,
            ``list[…]``, ``dict``, ``dict[str, …]``, ``Literal[…]`` and ``… | None``.

    Raises:
        InvalidArgumentError: It is something else, has no inputs or no outputs, or a field whose name or type
            cannot be used.
    """
    if isinstance(signature, str):
        spec = _from_text(signature)
    elif isinstance(signature, Mapping):
        spec = _from_object(signature)
    else:
        raise _refuse(f"must be a string or an object, not of type {type(signature).__name__}")
    _check_names(spec)
    return spec


def validate_inputs(spec: SignatureSpec, inputs: Mapping[str, Any], *, program_id: str) -> None:
    """Check what a program is given against its signature.

    Args:
        spec: The signature.
        inputs: Values by name. An input whose type allows null may be left out.
        program_id: For the error.

    Raises:
        InvalidArgumentError: An input is missing, unknown, or of another type.
    """
    expected = [field.name for field in spec.inputs]
    missing = [
        field.name
        for field in spec.inputs
        if field.name not in inputs and (field.annotation is None or mismatch(None, field.annotation))
    ]
    unknown = [name for name in inputs if name not in expected]
    problems = [f"misses the input {name!r}" for name in missing]
    problems += [f"has no input {name!r}" for name in unknown]
    problems += _mismatches(spec.inputs, inputs)
    if problems:
        raise InvalidArgumentError(
            f"program {program_id!r} {', '.join(problems)}; its inputs are {', '.join(expected)}",
            argument="inputs",
        )


def _mismatches(fields: Sequence[FieldSpec], inputs: Mapping[str, Any]) -> list[str]:
    problems = []
    for field in fields:
        if field.name not in inputs:
            continue
        value = inputs[field.name]
        if field.annotation is None:
            problem = "is null" if value is None else None
        else:
            problem = mismatch(value, field.annotation)
        if problem:
            problems.append(f"got an input {field.name!r} that {problem}")
    return problems


def _refuse(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"signature {problem}", argument="signature")


def _from_text(text: str) -> SignatureSpec:
    sides = text.split("->")
    if len(sides) != 2:
        raise _refuse(f"{text!r} must have exactly one '->', between inputs and outputs")
    inputs, outputs = (tuple(_fields_of_side(side, text)) for side in sides)
    return SignatureSpec(inputs, outputs)


def _fields_of_side(side: str, text: str) -> Iterable[FieldSpec]:
    """Read ``a, b: type``, which has the form of a function's parameters."""
    source = f"def signature({side}): pass"
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refuse(f"{text!r} cannot be read near {side.strip()!r}: {error}") from error
    function = module.body[0]
    if not isinstance(function, ast.FunctionDef) or not _is_list_of_names(function, source):
        raise _refuse(f"{text!r} must list names, each with a type or without, not {side.strip()!r}")
    for argument in function.args.args:
        annotation = argument.annotation and type_of_node(argument.annotation, argument.arg)
        yield FieldSpec(argument.arg, annotation)


def _is_list_of_names(function: ast.FunctionDef, source: str) -> bool:
    """Tell whether there is nothing but names and types: what else is written may close the list, and go on."""
    is_all = ast.get_source_segment(source, function) == source and isinstance(function.body[0], ast.Pass)
    arguments = function.args
    others = (
        *arguments.posonlyargs, *arguments.kwonlyargs, *arguments.defaults, arguments.vararg, arguments.kwarg
    )  # fmt: skip
    return is_all and not any(others)


def _from_object(signature: Mapping[str, Any]) -> SignatureSpec:
    for key in ("name", "description"):
        if not isinstance(signature.get(key), str | None):
            raise _refuse(f"has a {key!r} that is no string")
    return SignatureSpec(
        tuple(_fields_of_list(signature, "inputs")),
        tuple(_fields_of_list(signature, "outputs")),
        signature.get("name") or None,
        signature.get("description") or None,
    )


def _fields_of_list(signature: Mapping[str, Any], part: str) -> Iterable[FieldSpec]:
    entries = signature.get(part)
    if not isinstance(entries, list):
        raise _refuse(f"needs a list named {part!r}")
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str):
            raise _refuse(f"has an entry in {part!r} that is no object with a 'name': {entry!r}")
        kind, description = entry.get("type"), entry.get("description") or ""
        if not isinstance(kind, str | None) or not isinstance(description, str):
            raise _refuse(f"has a field {name!r} whose type or description is no string")
        yield FieldSpec(name, None if kind is None else parse_type(kind, name), description)


def _check_names(spec: SignatureSpec) -> None:
    if not spec.inputs or not spec.outputs:
        raise _refuse("needs at least one input and one output")
    seen: set[str] = set()
    for field in (*spec.inputs, *spec.outputs):
        name = field.name
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            raise _refuse(f"has a field {name!r}, which is no identifier, or begins with an underscore")
        if name in seen:
            raise _refuse(f"has two fields named {name!r}")
        seen.add(name)
    if taken := sorted(RESERVED_INPUTS & {field.name for field in spec.inputs}):
        raise _refuse(f"has an input {taken[0]!r}, a name that DSPy keeps for itself")
