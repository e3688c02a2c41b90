"""The lines of a recording: what happened between the pool and its workers, one JSON object a line."""

from __future__ import annotations

import base64
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "OURS",
    "SIGNALS",
    "VOLATILE",
    "Entry",
    "Redactor",
    "canonical",
    "dump_json",
    "header",
    "lives",
    "read_recording",
    "same",
    "without_id",
]

_HEADER = {"dspex_recording": 1}

What = Literal[
    "opened", "failed", "sent", "torn", "received", "ended", "broken",
    "interrupt", "eof", "terminate", "kill", "exited",
]  # fmt: skip

SIGNALS = frozenset({"interrupt", "eof", "terminate", "kill"})
#: What our side does; the rest is what happens to it.
OURS = SIGNALS | {"sent"}

#: Fields that are different each time without meaning anything.
VOLATILE = frozenset(
    {
        "timestamp", "traceparent", "timeout_s", "uptime", "pid", "execution_time", "duration_s", "created_at",
        "last_executed", "resident_bytes", "memory_usage",
    }
)  # fmt: skip
_SECRET_NAMES = frozenset(
    {"api_key", "apikey", "token", "access_token", "secret", "password", "authorization", "client_secret"}
)
# "openai_api_key", "X-Api-Key"
_SECRET_ENDS = tuple(f"_{name}" for name in sorted(_SECRET_NAMES))
_MASK = "[redacted]"
# A shorter value may be a word of ordinary text.
_MIN_SECRET_CHARS = 6


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line."""

    #: Seconds since the recording began.
    at: float
    #: Name of the worker.
    worker: str
    #: Its incarnation number.
    incarnation: int
    #: What happened: a frame ``sent`` or ``received``, a signal, the end of the stream, the exit.
    what: What
    #: The payload of a frame, as JSON.
    payload: Any = None
    #: The payload as base64 instead, where it is no JSON.
    raw: str | None = None
    #: What else is known, by name.
    facts: dict[str, Any] = {}

    @property
    def key(self) -> tuple[str, int]:
        """Which process it belongs to."""
        return self.worker, self.incarnation

    @property
    def request_id(self) -> Any:
        """The id in the payload, or ``None``."""
        return self.payload.get("id") if isinstance(self.payload, dict) else None

    def shown(self) -> str:
        """Return the payload for people."""
        if self.raw is None:
            return json.dumps(self.payload, ensure_ascii=False)
        return f"no JSON: {self.frame()!r}"

    def frame(self) -> bytes:
        """Return the payload as bytes."""
        return dump_json(self.payload) if self.raw is None else base64.b64decode(self.raw)

    def line(self) -> bytes:
        """Return the line, with its end."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        kept = {name: value for name, value in fields.items() if value not in (None, {}) or name == "at"}
        if self.what in ("sent", "torn", "received") and self.raw is None:
            kept["payload"] = self.payload
        return dump_json(kept) + b"\n"


def header() -> bytes:
    """Return the first line of a recording."""
    return dump_json(_HEADER) + b"\n"


def read_recording(path: Path | str) -> list[Entry]:
    """Read a recording. A last line that was cut, because the process that wrote it died, is left out.

    Raises:
        ValueError: The file is no recording of a version that is known here; the text names the line.
    """
    # Not splitlines: texts may hold other ends of lines.
    lines = Path(path).read_bytes().split(b"\n")
    if not lines or not _is_header(lines[0]):
        raise ValueError(f"{path} is no recording: its first line is not {_HEADER}")
    # An editor may leave out the end of the last line, which is whole then; of what was cut no part is JSON.
    if not _is_json(lines[-1]):
        del lines[-1]
    return [_read_line(path, number, line) for number, line in enumerate(lines[1:], start=2)]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_header(line: bytes) -> bool:
    try:
        return bool(json.loads(line) == _HEADER)
    except ValueError:
        return False


def _read_line(path: Path | str, number: int, line: bytes) -> Entry:
    try:
        return msgspec.convert(json.loads(line), Entry)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}:{number} is no line of a recording: {error}") from error


def dump_json(value: Any) -> bytes:
    """Write JSON, readable where it can be."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value).encode()


def lives(entries: Iterable[Entry]) -> dict[tuple[str, int], list[list[Entry]]]:
    """Return the entries by worker and incarnation, and there by life: two pools may use the same names in turn."""
    found: defaultdict[tuple[str, int], list[list[Entry]]] = defaultdict(list)
    for entry in entries:
        if entry.what in ("opened", "failed") or not found[entry.key]:
            found[entry.key].append([])
        found[entry.key][-1].append(entry)
    return dict(found)


class Redactor:
    """Takes secrets out of payloads: fields of certain names, and from then on their values wherever they are.

    A field like ``api_key_env`` names a variable of the environment: it stays, and the variable's value is taken out.

    Args:
        names: Names of further fields, in lower case.
    """

    def __init__(self, names: frozenset[str] = frozenset()) -> None:
        self._names = names
        self._values: list[str] = []

    def redact_frame(self, payload: bytes) -> tuple[Any, str | None]:
        """Return a payload as JSON and ``None``; or, where it is none or too deep, ``None`` and its base64."""
        try:
            return self.redact(json.loads(payload)), None
        except (ValueError, RecursionError):
            for secret in self._values:
                payload = payload.replace(secret.encode(errors="surrogatepass"), _MASK.encode())
            return None, base64.b64encode(payload).decode()

    def redact(self, value: Any) -> Any:
        """Return the JSON value without secrets."""
        if isinstance(value, dict):
            return {self.redact(name): self._field(name, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.redact(item) for item in value]
        return self.redact_text(value) if isinstance(value, str) else value

    def _field(self, name: str, value: Any) -> Any:
        plain = name.lower().replace("-", "_")
        if plain.endswith("_env") and isinstance(value, str) and self._is_secret(plain.removesuffix("_env")):
            self._remember(os.environ.get(value))
            return value
        if value is None or not self._is_secret(plain):
            return self.redact(value)
        self._remember(value)
        return _MASK

    def _is_secret(self, name: str) -> bool:
        return name in self._names or name in _SECRET_NAMES or name.endswith(_SECRET_ENDS)

    def _remember(self, value: Any) -> None:
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self._remember(item)
        elif isinstance(value, str):
            known = {
                *self._values,
                *(one for one in (value, value.removeprefix("Bearer ")) if _is_telling(one)),
            }
            # A key may begin with another key.
            self._values = sorted(known, key=lambda one: (-len(one), one))

    def redact_text(self, text: str) -> str:
        """Return the text without the secrets that were seen so far."""
        for value in self._values:
            text = text.replace(value, _MASK)
        return text


def _is_telling(value: str) -> bool:
    return len(value) >= _MIN_SECRET_CHARS


def same(expected: Any, came: Any, ignored: frozenset[str]) -> bool:
    """Tell whether two JSON values are the same but for fields that are ignored, at any depth."""
    return canonical(expected, ignored) == canonical(came, ignored)


def canonical(value: Any, ignored: frozenset[str]) -> str:
    """Return the one text of a JSON value, without fields that are ignored, at any depth."""
    return json.dumps(_bare(value, ignored), sort_keys=True)


def without_id(payload: Any) -> Any:
    """Return a message without its number."""
    return (
        {name: item for name, item in payload.items() if name != "id"}
        if isinstance(payload, dict)
        else payload
    )


def _bare(value: Any, ignored: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _bare(item, ignored) for name, item in value.items() if name not in ignored}
    return [_bare(item, ignored) for item in value] if isinstance(value, list) else value
