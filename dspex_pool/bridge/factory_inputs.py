"""Inputs of modules that a factory made: of their signature, if they have one, is only known what DSPy knows."""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import dspy
import pydantic

from dspex_pool.bridge.signatures import RESERVED_INPUTS
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_call", "is_synchronous", "typed"]

# DSPy's modules whose inputs are those of their signature, as ChainOfThought's are those of its Predict.
_OF_ONE_SIGNATURE = (dspy.Predict, dspy.ProgramOfThought, dspy.ReAct)
# Those whose inputs are those of the module in them.
_PASSING_ON = (dspy.BestOfN, dspy.Refine)
# What a module takes beside its inputs, and what is no data either.
_BOUNDS = ("max_iters",)


def check_call(module: Any, inputs: Mapping[str, Any], *, program_id: str) -> None:
    """Check inputs against the parameters of ``forward`` or ``aforward``, and against the fields of DSPy's modules.

    Raises:
        InvalidArgumentError: An input is missing or unknown, or is no data.
    """
    # Not of the instance: asking it makes DSPy warn of a direct call.
    kind = type(module)
    forward = types.MethodType(kind.forward if is_synchronous(module) else kind.aforward, module)
    try:
        inspect.signature(forward).bind(**inputs)
    except TypeError as error:
        raise InvalidArgumentError(
            f"program {program_id!r} cannot take these inputs: {error}", argument="inputs"
        ) from error
    module = _asked(module)
    signature = _signature_of(module)
    # A forward of the user's own may ask for less than the fields, and add the rest.
    if signature is not None and type(module).forward.__module__.startswith("dspy."):
        _check_fields(signature.input_fields, inputs, program_id=program_id)


def _check_fields(fields: Mapping[str, Any], inputs: Mapping[str, Any], *, program_id: str) -> None:
    """Check what one of DSPy's own modules is given, which takes any names and warns of what is missing."""
    problems = [
        f"misses the input {name!r}"
        for name, field in fields.items()
        if name not in inputs and field.is_required() and not _allows_null(field.annotation)
    ]
    problems += [
        f"got an input {name!r}, a name that DSPy keeps for itself"
        for name in inputs
        if name in RESERVED_INPUTS or (name in _BOUNDS and name not in fields)
    ]
    if problems:
        raise InvalidArgumentError(
            f"program {program_id!r} {', '.join(problems)}; its inputs are {', '.join(fields)}",
            argument="inputs",
        )


def _allows_null(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_allows_null, get_args(annotation)))
    return annotation in (None, types.NoneType)


def typed(module: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with those made that a signature types as DSPy's own: it knows images and conversations by type.

    Modules of the user's own get what was sent.

    Raises:
        InvalidArgumentError: One is not what its type is made of.
    """
    signature = _signature_of(_asked(module))
    if signature is None:
        return inputs
    return {name: _typed(signature, name, value) for name, value in inputs.items()}


def _asked(module: Any) -> Any:
    """Return the module that gets the inputs in the end."""
    while isinstance(module, _PASSING_ON):
        module = module.module
    return module


def _signature_of(module: Any) -> Any:
    root = module.predict if isinstance(module, dspy.ChainOfThought) else module
    return root.signature if isinstance(root, _OF_ONE_SIGNATURE) else None


def _typed(signature: Any, name: str, value: Any) -> Any:
    field = signature.input_fields.get(name)
    if field is None or not _is_of_dspy(field.annotation):
        return value
    try:
        return pydantic.TypeAdapter(field.annotation).validate_python(value)
    except ValueError as error:
        raise InvalidArgumentError(
            f"input {name!r} does not fit its type: {error}", argument="inputs"
        ) from error


def _is_of_dspy(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, (dspy.Type, dspy.History)):
        return True
    return any(map(_is_of_dspy, get_args(annotation)))


def is_synchronous(module: Any) -> bool:
    """Return whether a module has a ``forward``; one that has none has an ``aforward``."""
    return hasattr(type(module), "forward")
