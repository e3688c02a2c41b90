"""What is to be run: the program and the language model that the command line names."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_pool.cli.problems import CliError, one_line
from dspex_pool.cli.rows import non_finite_place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_pool.cli.rows import Row

__all__ = [
    "EMBEDDED_LM",
    "MODULE_KINDS",
    "LmChoice",
    "ProgramChoice",
    "UnfitRowError",
    "choose_lm",
    "choose_program",
]

#: The kinds of module that the bridge builds from a signature.
MODULE_KINDS = ("predict", "chain_of_thought", "react", "program_of_thought")

#: The language model of a run that names none: part of the worker, no network, no key.
EMBEDDED_LM = "dspex/extractive"

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class UnfitRowError(Exception):
    """A row cannot be run as it is. It becomes the row's error; the run goes on."""


@dataclass(frozen=True, slots=True)
class ProgramChoice:
    """One program, as the bridge's ``load_program`` takes it."""

    #: What the user wrote, for messages.
    label: str
    #: Arguments of ``create_program`` without the ids: ``signature``, ``program_type``, ``factory``.
    definition: Mapping[str, Any]
    #: DSPy's JSON state, if the program has learned something.
    state: Mapping[str, Any] | None = None
    #: Input fields; ``None`` where only the program knows them (a factory).
    inputs: tuple[str, ...] | None = None

    def digest(self) -> str:
        """Return what tells this program from any other. A factory's code is not looked into."""
        return _digest({"definition": self.definition, "state": self.state})

    def inputs_of(self, row: Row, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Pick the program's inputs from ``row``.

        Args:
            row: The row.
            without: Fields that are no inputs, where the program does not say what its inputs are.

        Raises:
            UnfitRowError: A field is missing, or holds a number that JSON cannot carry.
        """
        if self.inputs is None:
            picked = {name: value for name, value in row.fields.items() if name not in without}
        else:
            picked = {name: self._field(row, name) for name in self.inputs}
        for name, value in picked.items():
            place = non_finite_place(value, name)
            if place:
                raise UnfitRowError(
                    f"{row.name}: {place}; JSON has no such number, use null or leave the row out"
                )
        return picked

    def _field(self, row: Row, name: str) -> Any:
        if name in row.fields:
            return row.fields[name]
        wanted = ", ".join(self.inputs or ())
        raise UnfitRowError(f"{row.name} has no field {name!r}; {one_line(self.label, 200)!r} wants {wanted}")


@dataclass(frozen=True, slots=True)
class LmChoice:
    """The language model of all sessions of a run."""

    #: Arguments of ``configure_lm``. Never an API key: only the name of the variable that holds it.
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The model's name."""
        return str(self.settings["model"])

    def digest(self) -> str:
        """Return what tells this model and its settings from any other; the key's variable is no part."""
        settings = {key: value for key, value in self.settings.items() if key != "api_key_env"}
        return f"{self.label}:{_digest(settings)}"


def choose_lm(
    model: str | None,
    *,
    api_key_env: str | None = None,
    api_base: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
) -> LmChoice:
    """Return the model's settings; the embedded engine where ``model`` is not given.

    Raises:
        CliError: The variable of the key is not set, or options are given that the embedded engine has not.
    """
    options = {
        "api_key_env": api_key_env,
        "api_base": api_base,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if model is None or model == EMBEDDED_LM:
        if given:
            flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
            raise CliError(f"{flags}: the embedded engine has no such option; name a model with --lm")
        return LmChoice({"model": EMBEDDED_LM, "engine": "extractive"})
    if api_key_env is not None and not os.environ.get(api_key_env):
        raise CliError(f"--api-key-env {api_key_env}: this environment variable is not set")
    return LmChoice({"model": model, **given})


def choose_program(
    program: str, *, module: str | None = None, signature: str | None = None, state: str | None = None
) -> ProgramChoice:
    """Find out what ``program`` names: a signature, a saved program's JSON, or ``module:factory``.

    Args:
        program: The PROGRAM argument.
        module: Kind of module around a signature; ``predict`` if not given.
        signature: The signature for a file that holds only DSPy's state.
        state: Path of a JSON file with DSPy's state.

    Raises:
        CliError: It names nothing, options contradict each other, or a file cannot be used.
    """
    if module is not None and module not in MODULE_KINDS:
        raise CliError(f"--module {module!r} is unknown: use {', '.join(MODULE_KINDS)}")
    if "->" in program:
        if signature is not None:
            raise CliError("--signature is for a file with DSPy's state; PROGRAM is a signature already")
        return _from_signature(program, module, _state_of(state))
    if program.endswith(".json") or Path(program).is_file():
        return _from_file(program, module, signature, state)
    if FACTORY.fullmatch(program):
        return _from_factory(program, module, signature, _state_of(state))
    raise CliError(
        f"PROGRAM {one_line(program, 200)!r} is no signature ('question -> answer'), "
        "no module:factory, and no JSON file of a saved program"
    )


def signature_inputs(signature: str) -> tuple[str, ...]:
    """Return the names of a signature's inputs: ``("context", "question")`` of ``context, question -> answer``.

    Raises:
        CliError: The text is no signature.
    """
    left, _, right = signature.partition("->")
    names = tuple(part.partition(":")[0].strip() for part in _split_at_commas(left))
    if not right.strip() or not all(name.isidentifier() for name in names):
        shown = one_line(signature, 200)
        raise CliError(
            f"{shown!r} is no signature: write inputs -> outputs, such as 'context, question -> answer'"
        )
    return names


def _split_at_commas(text: str) -> list[str]:
    # The commas inside dict[str, int] and Literal['a', 'b'] separate no fields.
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "[(") - (char in "])")
            if char == "," and depth == 0:
                parts.append("")
                continue
        parts[-1] += char
    return parts


def _from_signature(signature: str, module: str | None, state: dict[str, Any] | None) -> ProgramChoice:
    definition = {"signature": signature, "program_type": module or "predict"}
    return ProgramChoice(signature, definition, state, signature_inputs(signature))


def _from_factory(
    factory: str, module: str | None, signature: str | None, state: dict[str, Any] | None
) -> ProgramChoice:
    if module is not None or signature is not None:
        raise CliError(
            f"--module and --signature do not go with the factory {factory!r}, which builds its own"
        )
    return ProgramChoice(factory, {"factory": factory}, state, None)


def _from_file(path: str, module: str | None, signature: str | None, state: str | None) -> ProgramChoice:
    if state is not None:
        raise CliError(f"--state: {path!r} is a saved program and has a state of its own")
    saved = _json_object(path)
    if "definition" not in saved:
        if signature is None:
            raise CliError(
                f"{path}: no 'definition' in it, so this is DSPy's state alone; give its signature with --signature"
            )
        return _from_signature(signature, module, saved)
    if module is not None or signature is not None:
        raise CliError(f"--module and --signature do not go with {path!r}, which holds its own definition")
    definition, own_state = saved["definition"], saved.get("state")
    if not isinstance(definition, dict) or not isinstance(own_state, dict | None):
        raise CliError(f"{path}: 'definition' and 'state' of a saved program are JSON objects")
    return ProgramChoice(path, definition, own_state, _inputs_of_definition(definition, path))


def _inputs_of_definition(definition: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
    signature = definition.get("signature")
    if definition.get("factory") is not None:
        return None
    if isinstance(signature, str):
        return signature_inputs(signature)
    try:
        return tuple(str(entry["name"]) for entry in (signature or {})["inputs"])
    except (KeyError, TypeError) as error:
        raise CliError(f"{path}: the definition has neither a signature with inputs nor a factory") from error


def _state_of(path: str | None) -> dict[str, Any] | None:
    return None if path is None else _json_object(path)


def _json_object(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise CliError(f"cannot read {path!r}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise CliError(
            f"{path} line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CliError(f"{path}: not JSON in UTF-8 ({one_line(str(error), 200)})") from error
    if not isinstance(found, dict):
        raise CliError(f"{path}: a JSON object is wanted, with 'definition' and 'state'")
    return found


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=dict)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
