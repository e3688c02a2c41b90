"""Records as rows of text and numbers, and the secrets that no row may hold.

Both stores keep these rows, so that what one refuses, copies or leaves out the other does too.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from dspex_pool.errors import InvalidArgumentError, LocalProtocolError, SessionStoreError
from dspex_pool.protocol.strict_json import MALFORMED, decode_json, encode_json
from dspex_pool.session_store.records import ProgramRecord, SessionRecord

__all__ = ["ProgramRow", "SessionRow", "decode_session", "encode_program", "encode_session"]

# In the settings of a model, keys that end so hold a secret or, as headers do, may hold one. "api_key_env"
# and "max_tokens" do not end so.
_SECRET_OF_MODEL = re.compile(
    r"(?:.*_)?(?:key|token|secret|password|credentials?|authorization|headers)", re.I
)
# Elsewhere a key is most often the name of a field, and fields may be called "token".
_SECRET = re.compile(r"api_key", re.I)
_WORTH_A_WALK = re.compile(rb'"(?:api_key|lm)"', re.I)


class SessionRow(NamedTuple):
    """A session without its programs, as it is kept."""

    id: str
    created_at: float
    last_used: float
    #: JSON text.
    lm: str | None


class ProgramRow(NamedTuple):
    """A program, as it is kept."""

    id: str
    #: JSON text.
    definition: str
    #: JSON text.
    state: str | None
    revision: int
    created_at: float
    execution_count: int
    last_executed: float | None


def encode_session(session: SessionRecord) -> tuple[SessionRow, list[ProgramRow]]:
    """Return what is kept of ``session``.

    Raises:
        InvalidArgumentError: A value cannot be carried by JSON.
    """
    _check_id(session.id)
    place = f"language model of session {session.id!r}"
    lm = None if session.lm is None else _encode({"lm": session.lm}, place, key="lm")
    row = SessionRow(session.id, session.created_at, session.last_used, lm)
    return row, [encode_program(program) for program in session.programs.values()]


def encode_program(program: ProgramRecord) -> ProgramRow:
    """Return what is kept of ``program``.

    Raises:
        InvalidArgumentError: A value cannot be carried by JSON.
    """
    _check_id(program.id)
    return ProgramRow(
        id=program.id,
        definition=_encode(program.definition, f"definition of program {program.id!r}"),
        state=None if program.state is None else _encode(program.state, f"state of program {program.id!r}"),
        revision=program.revision,
        created_at=program.created_at,
        execution_count=program.execution_count,
        last_executed=program.last_executed,
    )


def _check_id(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgumentError(f"the id {text!r} cannot be stored: {exc}", argument="id") from exc


def _encode(value: dict[str, Any], place: str, *, key: str | None = None) -> str:
    try:
        payload = encode_json(value)
        if _WORTH_A_WALK.search(payload):
            value = _without_secrets(decode_json(payload), _SECRET)
            payload = encode_json(value if key is None else value[key])
    except LocalProtocolError as exc:
        reason = exc.message.removesuffix("; nothing was sent")
        raise InvalidArgumentError(f"the {place} cannot be stored: {reason}", argument=place) from exc
    except RecursionError as exc:
        raise InvalidArgumentError(f"the {place} is nested too deeply to be stored", argument=place) from exc
    return payload.decode()


def _without_secrets(value: Any, secret: re.Pattern[str]) -> Any:
    if isinstance(value, list):
        return [_without_secrets(item, secret) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_secrets(item, _SECRET_OF_MODEL if key == "lm" else secret)
        for key, item in value.items()
        if not secret.fullmatch(key)
    }


def decode_session(row: SessionRow, programs: list[ProgramRow]) -> SessionRecord:
    """Return the record that was kept.

    Raises:
        SessionStoreError: A text is no JSON object, or a column holds what it never should: SQLite keeps any kind
            of value in any column.
    """
    try:
        fields = row._asdict() | {
            "lm": None if row.lm is None else _object(row.lm),
            "programs": {program.id: _program_fields(program) for program in programs},
        }
        return msgspec.convert(fields, SessionRecord)
    except (TypeError, *MALFORMED) as exc:
        raise SessionStoreError(
            f"what is kept of session {row.id!r} is damaged: {exc}; delete the session or restore the file",
            session_id=row.id,
        ) from exc


def _program_fields(row: ProgramRow) -> dict[str, Any]:
    return row._asdict() | {
        "definition": _object(row.definition),
        "state": None if row.state is None else _object(row.state),
    }


def _object(text: str) -> dict[str, Any]:
    value = decode_json(text)
    if not isinstance(value, dict):
        raise TypeError(f"a JSON object was expected, not {type(value).__name__}")
    return value
