"""What is to be run: the program and the language model that the command line names."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_pool.bridge.definitions import PROGRAM_TYPES
from dspex_pool.bridge.lm import EXTRACTIVE_ENGINE, EXTRACTIVE_MODEL, read_settings
from dspex_pool.bridge.signatures import parse_signature, validate_inputs
from dspex_pool.cli.problems import CliError, one_line
from dspex_pool.cli.rows import non_finite_place
from dspex_pool.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dspex_pool.bridge.signatures import SignatureSpec
    from dspex_pool.cli.rows import Row

__all__ = ["LmChoice", "ProgramChoice", "UnfitRowError", "choose_lm", "choose_program"]

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class UnfitRowError(Exception):
    """A row cannot be run as it is. It becomes the row's error; the run goes on."""


@dataclass(frozen=True, slots=True)
class ProgramChoice:
    """One program, as the bridge's ``load_program`` takes it."""

    #: What the user wrote, for messages.
    label: str
    #: Arguments of ``create_program`` without the ids: ``signature``, ``program_type``, ``tools``, ``factory``.
    definition: Mapping[str, Any]
    #: DSPy's JSON state, if the program has learned something.
    state: Mapping[str, Any] | None = None
    #: The signature; ``None`` where only the program knows its inputs (a factory).
    spec: SignatureSpec | None = None

    @property
    def needs_allow(self) -> bool:
        """Whether it names code that the workers run only if it is on their allow-list."""
        return bool(self.definition.get("factory") or self.definition.get("tools"))

    def digest(self) -> str:
        """Return what tells this program from any other. The code of a factory is not looked into."""
        return _digest({"definition": self.definition, "state": self.state})

    def inputs_of(self, row: Row, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Pick the program's inputs from ``row``.

        Args:
            row: The row.
            without: Fields that are no inputs, where the program does not say what its inputs are.

        Raises:
            UnfitRowError: An input is missing or of another type, or holds a number that JSON cannot carry.
        """
        if self.spec is None:
            picked = {name: value for name, value in row.fields.items() if name not in without}
        else:
            fields = [field for field in self.spec.inputs if field.name in row.fields]
            picked = {field.name: row.value(field.name, field.annotation) for field in fields}
        for name, value in picked.items():
            place = non_finite_place(value, name)
            if place:
                raise UnfitRowError(
                    f"{row.name}: {place}; JSON has no such number, use null or leave the row out"
                )
        if self.spec is not None:
            try:
                validate_inputs(self.spec, picked, program_id=one_line(self.label, 200))
            except InvalidArgumentError as error:
                raise UnfitRowError(f"{row.name}: {error}") from error
        return picked


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
        CliError: A setting cannot be used, the variable of the key is not set, or options are given that the
            embedded engine has not.
    """
    options = {
        "api_key_env": api_key_env,
        "api_base": api_base,
        "temperature": temperature,
        "max_tokens": max_tokens,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if model is None or model == EXTRACTIVE_MODEL:
        if given:
            flags = ", ".join(f"--{key.replace('_', '-')}" for key in given)
            raise CliError(f"{flags}: the embedded engine has no such option; name a model with --lm")
        return LmChoice({"model": EXTRACTIVE_MODEL, "engine": EXTRACTIVE_ENGINE})
    if api_key_env is not None and not os.environ.get(api_key_env):
        raise CliError(f"--api-key-env {api_key_env}: this environment variable is not set")
    settings = {"model": model, **given}
    try:
        read_settings(settings, os.environ)
    except InvalidArgumentError as error:
        raise CliError(f"the language model cannot be used: {error}") from error
    return LmChoice(settings)


def choose_program(
    program: str,
    *,
    module: str | None = None,
    signature: str | None = None,
    tools: Sequence[str] = (),
    state: str | None = None,
) -> ProgramChoice:
    """Find out what ``program`` names: a signature, a saved program's JSON, or ``module:factory``.

    Args:
        program: The PROGRAM argument.
        module: Kind of module around a signature; ``predict`` if not given.
        signature: The signature for a file that holds only DSPy's state.
        tools: ``module:function`` of each tool of a ``react`` module.
        state: Path of a JSON file with DSPy's state.

    Raises:
        CliError: It names nothing, options contradict each other, or a file cannot be used.
    """
    if module is not None and module not in PROGRAM_TYPES:
        raise CliError(f"--module {module!r} is unknown: use {', '.join(PROGRAM_TYPES)}")
    if tools and module != "react":
        raise CliError("--tool is for --module react")
    around = {"program_type": module or "predict", **({"tools": list(tools)} if tools else {})}
    if "->" in program:
        if signature is not None:
            raise CliError("--signature is for a file with DSPy's state; PROGRAM is a signature already")
        return _from_signature(program, around, _state_of(state))
    is_built = module is None and signature is None
    if program.endswith(".json") or Path(program).is_file():
        return _from_file(program, signature, around, state, is_built=is_built)
    if not FACTORY.fullmatch(program):
        raise CliError(
            f"PROGRAM {one_line(program, 200)!r} is no signature ('question -> answer'), "
            "no module:factory, and no JSON file of a saved program"
        )
    if not is_built:
        raise CliError(
            f"--module and --signature do not go with the factory {program!r}, which builds its own"
        )
    return ProgramChoice(program, {"factory": program}, _state_of(state))


def _from_signature(signature: str, around: Mapping[str, Any], state: dict[str, Any] | None) -> ProgramChoice:
    return ProgramChoice(signature, {"signature": signature, **around}, state, _spec(signature, "PROGRAM"))


def _spec(signature: object, where: str) -> SignatureSpec:
    try:
        return parse_signature(signature)
    except InvalidArgumentError as error:
        raise CliError(f"{where}: {error}; a signature is such as 'context, question -> answer'") from error


def _from_file(
    path: str, signature: str | None, around: Mapping[str, Any], state: str | None, *, is_built: bool
) -> ProgramChoice:
    if state is not None:
        raise CliError(f"--state: {path!r} is a saved program and has a state of its own")
    saved = _json_object(path)
    if "definition" not in saved:
        if signature is None:
            what = "no 'definition' in it, so this is DSPy's state alone"
            raise CliError(f"{path}: {what}; give its signature with --signature")
        return _from_signature(signature, around, saved)
    if not is_built:
        raise CliError(f"--module and --signature do not go with {path!r}, which holds its own definition")
    definition, own_state = saved["definition"], saved.get("state")
    if not isinstance(definition, dict) or not isinstance(own_state, dict | None):
        raise CliError(f"{path}: 'definition' and 'state' of a saved program are JSON objects")
    given = definition.get("signature")
    if given is None and definition.get("factory") is None:
        raise CliError(f"{path}: the definition has neither a signature nor a factory")
    return ProgramChoice(path, definition, own_state, None if given is None else _spec(given, path))


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
