"""Inputs of modules that a factory made: of their signature, if they have one, is only known what DSPy knows."""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Any, get_args

import dspy
import pydantic

from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_call", "is_synchronous", "typed"]

# DSPy's modules whose inputs are those of their signature, as ChainOfThought's are those of its Predict.
_OF_ONE_SIGNATURE = (dspy.Predict, dspy.ProgramOfThought, dspy.ReAct)


def check_call(module: Any, inputs: Mapping[str, Any], *, program_id: str) -> None:
    """Check inputs against the parameters of ``forward`` or ``aforward``, for modules of which nothing else is known.

    Raises:
        InvalidArgumentError: A parameter is missing or unknown.
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


def typed(module: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs with those made that a signature types as DSPy's own: it knows images and conversations by type.

    Modules of the user's own get what was sent.

    Raises:
        InvalidArgumentError: One is not what its type is made of.
    """
    root = module.predict if isinstance(module, dspy.ChainOfThought) else module
    if not isinstance(root, _OF_ONE_SIGNATURE):
        return inputs
    return {name: _typed(root.signature, name, value) for name, value in inputs.items()}


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
