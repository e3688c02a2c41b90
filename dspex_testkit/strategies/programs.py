"""Signatures, programs and sessions as the bridge and the stores take them."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, get_origin

from hypothesis import strategies as st

from dspex_pool.bridge.signatures import SignatureSpec, parse_signature
from dspex_pool.session_store import ProgramRecord, SessionRecord
from dspex_pool.session_table import MAX_SESSION_ID_BYTES
from dspex_testkit.strategies.values import json_objects, json_values, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "definitions",
    "inputs_for",
    "program_ids",
    "session_ids",
    "session_records",
    "signature_objects",
    "signature_texts",
    "signatures",
    "values_of",
]

#: Names that DSPy's modules keep for themselves; a field must not be called so.
_RESERVED = frozenset({"completions", "config", "demos", "lm", "new_signature", "signature"})
_USUAL_NAMES = ("question", "context", "answer", "k", "score", "ärger", "x" * 40, "match")
_SIMPLE = ("str", "int", "float", "bool", "list", "dict")
_CHOICES = ("Literal['yes', 'no']", "Literal['a, b -> c', 1, True, -2]", "Literal[']']")


_TIMES = st.floats(0, 2e9)

#: The fields of the inputs, and those of the outputs.
_Sides: TypeAlias = tuple[list[Any], list[Any]]


def _names() -> st.SearchStrategy[str]:
    letters = st.text("abcdefgh_0123456789", min_size=1, max_size=6)
    drawn = letters.filter(
        lambda name: name.isidentifier() and name[0] != "_" and not keyword.iskeyword(name)
    )
    return (st.sampled_from(_USUAL_NAMES) | drawn).filter(lambda name: name not in _RESERVED)


def _types() -> st.SearchStrategy[str]:
    """Draw types of fields under all their names, nested ones too."""
    plain = st.sampled_from(
        [*_SIMPLE, "string", "integer", "number", "boolean", "array", "object", *_CHOICES]
    )
    nested = st.recursive(
        plain,
        lambda inner: inner.map(lambda t: f"list[{t}]") | inner.map(lambda t: f"dict[str, {t}]"),
        max_leaves=3,
    )
    return nested | nested.map(lambda text: f"{text} | None")


def _sides(field: st.SearchStrategy[Any], name_of: Callable[[Any], str]) -> st.SearchStrategy[_Sides]:
    """Draw the fields of both sides, each name only once."""
    drawn = st.lists(field, min_size=2, max_size=5, unique_by=name_of)
    return drawn.flatmap(lambda all_: st.integers(1, len(all_) - 1).map(lambda cut: (all_[:cut], all_[cut:])))


def signature_texts() -> st.SearchStrategy[str]:
    """Draw signatures as strings: ``"question, k: int -> answer: list[str]"``."""
    field = st.tuples(_names(), st.none() | _types())
    space = st.sampled_from(["", " "])

    def text(sides: _Sides, gap: str) -> str:
        inputs, outputs = (
            f",{gap}".join(name if kind is None else f"{name}:{gap}{kind}" for name, kind in side)
            for side in sides
        )
        return f"{gap}{inputs}{gap}->{gap}{outputs}{gap}"

    # An arrow inside of a literal is no arrow to Python, but the form has only one.
    return st.builds(text, _sides(field, lambda each: each[0]), space).filter(
        lambda each: each.count("->") == 1
    )


def signature_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Draw signatures as JSON: ``{name, description, inputs: [{name, type, description}], outputs: […]}``."""
    field = st.fixed_dictionaries(
        {"name": _names()}, optional={"type": _types(), "description": texts() | st.just("what is asked")}
    )
    about = st.fixed_dictionaries({}, optional={"name": st.just("QA"), "description": texts()})

    def whole(sides: _Sides, rest: dict[str, Any]) -> dict[str, Any]:
        return {**rest, "inputs": sides[0], "outputs": sides[1]}

    return st.builds(whole, _sides(field, lambda each: each["name"]), about)


def signatures() -> st.SearchStrategy[str | dict[str, Any]]:
    """Draw signatures of either form."""
    return signature_texts() | signature_objects()


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Draw JSON values of a field's type, as ``FieldSpec.annotation`` gives it; ``None`` stands for any text."""
    if annotation is None:
        return texts()
    origin, parameters = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(parameters)
    if type(None) in parameters:
        return st.none() | values_of(parameters[0])
    items = values_of(parameters[-1]) if parameters else json_values(max_leaves=3)
    by_kind: dict[Any, st.SearchStrategy[Any]] = {
        str: texts(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
        bool: st.booleans(),
        list: st.lists(items, max_size=3),
        dict: st.dictionaries(texts(), items, max_size=3),
    }
    return by_kind[origin or annotation]


def inputs_for(signature: str | Mapping[str, Any] | SignatureSpec) -> st.SearchStrategy[dict[str, Any]]:
    """Draw what a program of this signature can be executed on."""
    spec = signature if isinstance(signature, SignatureSpec) else parse_signature(signature)
    needed = {field.name: values_of(field.annotation) for field in spec.inputs}
    may_be_left_out = [field.name for field in spec.inputs if type(None) in get_args(field.annotation)]
    return st.fixed_dictionaries(
        {name: value for name, value in needed.items() if name not in may_be_left_out},
        optional={name: needed[name] for name in may_be_left_out},
    )


def program_ids() -> st.SearchStrategy[str]:
    """Draw ids of programs: few usual ones, so that they meet again, and nasty ones."""
    return st.sampled_from(["p", "q", "qa"]) | texts(min_size=1)


def definitions() -> st.SearchStrategy[dict[str, Any]]:
    """Draw what a program is made from: the arguments of ``create_program`` without its id.

    Only kinds that every worker has: no ``program_of_thought``, which needs a sandbox, and no factory or tool, which
    the worker must have been allowed.
    """
    kinds = st.sampled_from(["predict", "chain_of_thought", "react"])
    plain = st.fixed_dictionaries({"signature": signatures()}, optional={"program_type": kinds})
    limited = plain.map(lambda drawn: {**drawn, "program_type": "react"})
    return plain | st.builds(lambda drawn, most: {**drawn, "max_iters": most}, limited, st.integers(1, 20))


def session_ids() -> st.SearchStrategy[str]:
    """Draw ids of sessions: few usual ones, so that they meet again, nasty ones, and the longest there are."""
    longest = st.sampled_from(["s" * MAX_SESSION_ID_BYTES, "é" * (MAX_SESSION_ID_BYTES // 2)])
    return st.sampled_from(["anonymous", "tenant-1", "tenant-2"]) | texts(min_size=1, max_size=64) | longest


def _program_records() -> st.SearchStrategy[ProgramRecord]:
    return st.builds(
        ProgramRecord,
        id=program_ids(),
        definition=definitions(),
        state=st.none() | json_objects(max_leaves=3),
        revision=st.integers(1, 9),
        created_at=_TIMES,
        execution_count=st.integers(0, 9),
        last_executed=st.none() | _TIMES,
    )


def session_records() -> st.SearchStrategy[SessionRecord]:
    """Draw sessions with their programs, as a store keeps them. They hold no secrets, which no store keeps."""
    programs = st.lists(_program_records(), max_size=3, unique_by=lambda each: each.id)
    models = st.fixed_dictionaries(
        {"model": st.sampled_from(["m/1", "m/2"])}, optional={"temperature": st.floats(0, 2)}
    )
    return st.builds(
        SessionRecord,
        id=session_ids(),
        created_at=_TIMES,
        last_used=_TIMES,
        programs=programs.map(lambda held: {each.id: each for each in held}),
        lm=st.none() | models,
    )
