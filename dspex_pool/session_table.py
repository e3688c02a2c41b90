"""The sessions of a pool in memory: which live, which have expired, how many there may be. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import trio

from dspex_pool.errors import InvalidArgumentError, SessionExpiredError, SessionLimitError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dspex_pool.session_store import ProgramRecord, SessionRecord

__all__ = ["KEY_BY_VALUE", "MAX_SESSION_ID_BYTES", "Session", "SessionTable", "check_session_id"]

#: Longest session id, in bytes of UTF-8. An id is a key and travels with every call; data belongs elsewhere.
MAX_SESSION_ID_BYTES = 256

#: Where the kept settings of a language model say that its key was given by value, which is not kept.
KEY_BY_VALUE = "key_by_value"

#: How many expired sessions are remembered, so that their next use is told apart from a session never seen.
MAX_TOMBSTONES = 10_000


def check_session_id(session_id: object) -> str:
    """Return ``session_id`` if it can be one.

    Raises:
        InvalidArgumentError: It is no string, empty, too long, or no valid Unicode.
    """
    if not isinstance(session_id, str):
        raise InvalidArgumentError(
            f"a session id is a string, not {type(session_id).__name__}.", argument="session_id"
        )
    if session_id.isascii() and 1 <= len(session_id) <= MAX_SESSION_ID_BYTES:
        return session_id
    try:
        size = len(session_id.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"the session id is no valid Unicode: {error}", argument="session_id"
        ) from None
    if not 1 <= size <= MAX_SESSION_ID_BYTES:
        raise InvalidArgumentError(
            f"the session id is {size} bytes long ({session_id[:20]!r}…); allowed are 1 to {MAX_SESSION_ID_BYTES}. "
            "Use a short key, and keep data in the programs' inputs.",
            argument="session_id",
        )
    return session_id


class Session:
    """One live session: the record that the store keeps, and what only this process knows."""

    __slots__ = (
        "id",
        "is_kept",
        "lm_revision",
        "lm_secrets",
        "lock",
        "record",
        "replaces_expired",
        "revision",
        "users",
    )

    def __init__(self, record: SessionRecord, *, is_kept: bool = False) -> None:
        #: The session's id.
        self.id: Final = record.id
        self.record = record
        #: Whether the store has anything of it. Until then it is only about to begin.
        self.is_kept = is_kept
        #: Whether the store may still have an expired session of this id, until something of this one is kept.
        self.replaces_expired = False
        #: Commands of it under way; while there are any, it is in use, however long they take.
        self.users = 0
        #: Held while the session is changed, so that store and memory change in the same order.
        self.lock = trio.Lock()
        #: Number of the last change to a program. Never falls, so that a worker's copy can be told to be stale.
        self.revision = max((program.revision for program in record.programs.values()), default=0)
        #: Number of the last ``configure_lm``; zero if there was none.
        self.lm_revision = 1 if record.lm is not None else 0
        #: Arguments of ``configure_lm`` that must not be stored; they end with this process.
        self.lm_secrets: dict[str, Any] = {}

    def program(self, program_id: str) -> ProgramRecord | None:
        """Return the program of this id, or ``None``."""
        return self.record.programs.get(program_id)

    def lm_arguments(self) -> dict[str, Any]:
        """Return the arguments of its ``configure_lm``, secrets included.

        Raises:
            InvalidArgumentError: The key was given by value, to a pool before this one. Without it the model would
                be asked with whatever key the worker finds in its environment.
        """
        settings = dict(self.record.lm or {})
        if settings.pop(KEY_BY_VALUE, False) and not self.lm_secrets:
            raise InvalidArgumentError(
                f"the API key of session {self.id!r} was given by value, and such keys are not stored: call "
                "configure_lm again, with api_key_env if the session is to outlive its pool.",
                argument="api_key",
            )
        return settings | self.lm_secrets


class SessionTable:
    """Live sessions, least recently used first.

    Args:
        time_to_live: Seconds without use after which a session expires, or ``None``.
        max_sessions: How many may live at the same time.
    """

    def __init__(self, *, time_to_live: float | None, max_sessions: int) -> None:
        self._time_to_live = float("inf") if time_to_live is None else time_to_live
        self._max_sessions = max_sessions
        #: Before then no session expires.
        self.next_expiry = float("inf")
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._expired: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._sessions

    def ids(self) -> list[str]:
        """Return the ids of all live sessions, least recently used first."""
        return list(self._sessions)

    def fill(self, records: Iterable[SessionRecord]) -> None:
        """Take over the sessions that a store kept; the next look at them sets right what a wrong clock wrote."""
        for record in sorted(records, key=lambda record: record.last_used):
            self._sessions[record.id] = Session(record, is_kept=True)
        self.next_expiry = float("-inf")

    def peek(self, session_id: str) -> Session | None:
        """Return the live session of this id without using it, or ``None``."""
        return self._sessions.get(session_id)

    def find(self, session_id: str, now: float) -> Session | None:
        """Return the live session of this id and note that it is used; ``None`` if there is none.

        Raises:
            SessionExpiredError: It was not used for its time to live; ``begin`` makes a new one.
        """
        session = self._sessions.get(session_id)
        if session is None:
            idle = self._expired.get(session_id)
            if idle is not None:
                raise SessionExpiredError(
                    f"session {session_id!r} has expired after {idle:.4g} s without use. "
                    "Create its programs anew, or raise session_ttl.",
                    session_id=session_id,
                    idle=idle,
                )
            return None
        self.touch(session, now)
        return session

    def touch(self, session: Session, now: float) -> None:
        """Note that a live session is used."""
        if now > session.record.last_used:
            session.record.last_used = now
        self._sessions.move_to_end(session.id)

    def is_live(self, session: Session) -> bool:
        """Tell whether this very session lives; another of the same id may."""
        return self._sessions.get(session.id) is session

    def begin(self, record: SessionRecord) -> Session:
        """Add a new session.

        Raises:
            SessionLimitError: ``max_sessions`` live already.
        """
        if len(self._sessions) >= self._max_sessions:
            raise SessionLimitError(
                f"{len(self._sessions)} sessions live already, which is max_sessions. "
                "End some, lower session_ttl, or raise max_sessions.",
                session_id=record.id,
            )
        self._expired.pop(record.id, None)
        session = self._sessions[record.id] = Session(record)
        self.next_expiry = min(self.next_expiry, record.last_used + self._time_to_live)
        return session

    def end(self, session_id: str) -> Session | None:
        """Remove a session and the memory of its expiry; return it if it was live."""
        self._expired.pop(session_id, None)
        return self._sessions.pop(session_id, None)

    def expire(self, now: float) -> list[Session]:
        """Remove and return the sessions whose time to live is over; none that is in use.

        Args:
            now: The time, never before that of an earlier look.
        """
        if self.next_expiry == float("-inf"):
            self._set_right(now)
        gone: list[Session] = []
        for _ in range(len(self._sessions)):
            session = next(iter(self._sessions.values()))
            idle = now - session.record.last_used
            if idle < self._time_to_live:
                break
            if session.users:
                self.touch(session, now)
                continue
            del self._sessions[session.id]
            self._expired[session.id] = idle
            gone.append(session)
        while len(self._expired) > MAX_TOMBSTONES:
            self._expired.popitem(last=False)
        oldest = next(iter(self._sessions.values()), None)
        self.next_expiry = (
            oldest.record.last_used + self._time_to_live if oldest is not None else float("inf")
        )
        return gone

    def _set_right(self, now: float) -> None:
        # The clock was ahead when the store kept them, and was set right since. All that are used until that time
        # comes would stand behind them.
        for session in list(self._sessions.values()):
            if session.record.last_used > now:
                session.record.last_used = now
                self._sessions.move_to_end(session.id)
