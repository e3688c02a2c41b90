"""What must be known of a worker besides the protocol: which of its commands wait, echo, fail or print."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_pool.errors import InvalidArgumentError
from dspex_pool.protocol.framing import DEFAULT_MAX_FRAME_BYTES, LARGEST_FRAME_BYTES
from dspex_testkit.settings import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ECHO_PROFILE", "ROLES", "KnownCommand", "Profile", "command_of_text", "load_profile"]

#: What commands are needed for, each with what the command does.
ROLES: Mapping[str, str] = {
    "echo": "answers with its args",
    "slow": "takes half a minute or longer",
    "failing": "fails, and says why",
    "printing": "prints something to what it takes for its stdout, and succeeds",
    "big": "has an answer of more than max_frame_bytes",
    "nan": "has a result with NaN or infinity in it",
    "progress": "tells of an event of the kind progress, and succeeds",
}


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """A command of the worker, with arguments that are enough."""

    #: Its name.
    name: str
    #: Its arguments.
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of a worker. The more, the more clauses can be judged."""

    #: Commands by role, see ``ROLES``.
    commands: Mapping[str, KnownCommand] = field(default_factory=dict)
    #: Largest payload that the worker was started for, in bytes.
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    #: How long anything may take that should happen at once.
    timeout: float = 5.0

    def knows(self, need: str) -> bool:
        """Tell whether a clause with this need can be judged."""
        if need == "small max_frame_bytes":
            return self.max_frame_bytes <= 1 << 20
        return need in self.commands


#: What ``dspex_testkit.children.echo:EchoHandler`` serves, in a bridge started with ``--max-frame-bytes 65536``.
ECHO_PROFILE = Profile(
    commands={
        "echo": KnownCommand("echo"),
        "slow": KnownCommand("sleep", {"seconds": 60}),
        "failing": KnownCommand("raise_error", {"message": "as asked"}),
        "printing": KnownCommand("print_fd", {"text": "printed\n"}),
        "big": KnownCommand("big", {"bytes": 70_000}),
        "nan": KnownCommand("nan"),
        "progress": KnownCommand("emit", {"event": "progress", "data": {"done": 1}}),
    },
    max_frame_bytes=65_536,
)


def load_profile(path: Path) -> Profile:
    """Read a profile from a TOML file.

    The file may hold ``max_frame_bytes``, ``timeout`` and the table ``commands``: for each role the name of a
    command, or ``{name = "…", args = {…}}``.

    Raises:
        InvalidArgumentError: The file is no TOML, or says something else.
        OSError: It cannot be read.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: {error}", argument="profile") from error
    except RecursionError:
        raise InvalidArgumentError(f"{path}: it is nested too deeply", argument="profile") from None
    commands = fields.pop("commands", {})
    if not isinstance(commands, dict):
        raise InvalidArgumentError(f"{path}: commands is no table", argument="profile")
    known = {role: _command(role, value, str(path)) for role, value in commands.items()}
    for name, value in fields.items():
        _check_number(name, value, path)
    return Profile(commands=known, **fields)


#: Of each setting that is a number its types, what they are called, and the most that it may be.
_NUMBERS: Mapping[str, tuple[tuple[type, ...], str, float]] = {
    "max_frame_bytes": ((int,), "whole number", LARGEST_FRAME_BYTES),
    "timeout": ((int, float), "number", MOST_SECONDS),
}


def _check_number(name: str, value: Any, path: Path) -> None:
    if name not in _NUMBERS:
        text = f"{path}: there is no setting {name}, only commands, max_frame_bytes and timeout"
        raise InvalidArgumentError(text, argument="profile")
    kinds, called, most = _NUMBERS[name]
    if type(value) not in kinds or not 0 < value <= most:
        text = f"{path}: {name} = {value!r} is refused: it must be a {called} above 0 and up to {most:g}"
        raise InvalidArgumentError(text, argument="profile")


def command_of_text(text: str) -> tuple[str, KnownCommand]:
    """Read ``ROLE=NAME`` or ``ROLE=NAME {"args": …}``.

    Raises:
        InvalidArgumentError: It is something else.
    """
    role, equals, rest = text.partition("=")
    name, _, args = rest.strip().partition(" ")
    if not equals or not name:
        raise InvalidArgumentError(
            f"--command {text!r} is not of the form ROLE=NAME {{JSON}}", argument="command"
        )
    try:
        value = {"name": name, "args": json.loads(args) if args.strip() else {}}
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"--command {text!r} has arguments that are no JSON: {error}", argument="command"
        ) from error
    return role, _command(role, value, "--command")


def _command(role: str, value: Any, where: str) -> KnownCommand:
    if role not in ROLES:
        raise InvalidArgumentError(
            f"{where}: there is no role {role!r}, only {', '.join(ROLES)}", argument="command"
        )
    if isinstance(value, str):
        return KnownCommand(value)
    if isinstance(value, dict) and value.keys() <= {"name", "args"} and isinstance(value.get("name"), str):
        args = value.get("args", {})
        if isinstance(args, dict):
            _check_args(role, args, where)
            return KnownCommand(value["name"], args)
    raise InvalidArgumentError(
        f"{where}: {role} is {value!r}, but must be a name, or a name and args", argument="command"
    )


def _check_args(role: str, args: dict[str, Any], where: str) -> None:
    """Refuse what a well worker must refuse, too: it would be said to keep its clause by an error."""
    try:
        json.dumps(args, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{where}: {role} has arguments that JSON cannot carry: {error}", argument="command"
        ) from error
