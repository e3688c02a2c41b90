"""What a program is made from, checked before DSPy sees it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.arguments import names, optional_text, positive_int, refusal
from dspex_pool.bridge.signatures import SignatureSpec, parse_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROGRAM_TYPES", "Definition", "read_definition"]

#: The kinds of modules that need no factory.
PROGRAM_TYPES = ("predict", "chain_of_thought", "react", "program_of_thought")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """How to make one program."""

    #: One of ``PROGRAM_TYPES``, or ``factory``.
    program_type: str
    #: The signature as it was given, or ``None``.
    signature: Any = None
    #: The signature as it was understood, or ``None``.
    spec: SignatureSpec | None = None
    #: ``package.module:function`` that makes the module, or ``None``.
    factory: str | None = None
    #: ``package.module:function`` of each tool of a ``react`` program.
    tools: tuple[str, ...] = ()
    #: Most rounds of a ``react`` or ``program_of_thought`` program, or ``None`` for DSPy's default.
    max_iters: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the definition as ``load_program`` takes it."""
        fields = {
            "signature": self.signature,
            "program_type": self.program_type,
            "factory": self.factory,
            "tools": list(self.tools) or None,
            "max_iters": self.max_iters,
        }
        return {name: value for name, value in fields.items() if value is not None}


def read_definition(args: Mapping[str, Any]) -> Definition:
    """Read the args of ``create_program``, or the ``definition`` of ``load_program``.

    Raises:
        InvalidArgumentError: An argument is missing, cannot be used, or does not go with another.
    """
    factory = optional_text(args, "factory")
    signature = args.get("signature")
    if signature is None and factory is None:
        raise refusal("signature", "is required, unless a factory is given")
    definition = Definition(
        program_type=_program_type(args, factory),
        signature=signature,
        spec=None if signature is None else parse_signature(signature),
        factory=factory,
        tools=names(args, "tools"),
        max_iters=positive_int(args, "max_iters"),
    )
    _check_fit(definition)
    return definition


def _program_type(args: Mapping[str, Any], factory: str | None) -> str:
    kind = optional_text(args, "program_type")
    if factory is not None:
        # Clients send the default kind along with a factory.
        if kind not in (None, "factory", "predict"):
            raise refusal("program_type", f"{kind!r} and a factory exclude each other")
        return "factory"
    kind = kind or "predict"
    if kind not in PROGRAM_TYPES:
        raise refusal(
            "program_type", f"{kind!r} is unknown; known are {', '.join(PROGRAM_TYPES)}, or give a factory"
        )
    return kind


def _check_fit(definition: Definition) -> None:
    kind = definition.program_type
    if definition.tools and kind != "react":
        raise refusal("tools", f"are for program_type 'react', not {kind!r}")
    if definition.max_iters is not None and kind not in ("react", "program_of_thought"):
        raise refusal("max_iters", f"is for program_type 'react' or 'program_of_thought', not {kind!r}")
    if kind == "program_of_thought" and not _has_sandbox():
        raise refusal(
            "program_type",
            "'program_of_thought' runs the model's code in the Deno sandbox, which is not installed in this worker; "
            "install dspy[deno], or put deno on its PATH",
        )


def _has_sandbox() -> bool:
    import shutil  # with its archives, for one question in a worker's life

    return importlib.util.find_spec("deno") is not None or shutil.which("deno") is not None
