"""Opening the file of an SQLite session store: is it ours, whole, of our version, and free?"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from dspex_pool.errors import InvalidConfigError

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "is_in_use", "open_file", "place_of"]

#: SQLite's mark of the program that a file belongs to: "DSPX" in ASCII.
APPLICATION_ID = 0x44535058

#: Version of the tables below.
SCHEMA_VERSION = 1

# Another process that just looks is gone by then; one that has the file open is not.
_PATIENCE_SECONDS = 0.2

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS sessions (
        id TEXT PRIMARY KEY NOT NULL,
        created_at REAL NOT NULL,
        last_used REAL NOT NULL,
        lm TEXT
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS programs (
        session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        id TEXT NOT NULL,
        definition TEXT NOT NULL,
        state TEXT,
        revision INTEGER NOT NULL,
        created_at REAL NOT NULL,
        execution_count INTEGER NOT NULL,
        last_executed REAL,
        PRIMARY KEY (session_id, id)
    )
    """,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


def place_of(path: str | os.PathLike[str]) -> Path:
    """Return the whole path of the file, with ``~`` expanded.

    Raises:
        InvalidConfigError: There is no such home.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as exc:
        raise _refusal(Path(path).absolute(), f"cannot be found: {exc}") from exc


def open_file(path: Path) -> sqlite3.Connection:
    """Open or make the file at ``path`` and lock it until the connection is closed. Blocks; run it in a thread.

    Raises:
        InvalidConfigError: The file cannot be used, for the reason in the text.
    """
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=_PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as exc:
        raise _refusal(path, f"cannot be opened: {exc}") from exc
    try:
        _refuse_foreign(connection, path)
        _take(connection)
        _refuse_damaged(connection, path)
    except sqlite3.Error as exc:
        connection.close()
        raise _refusal(path, _explain(exc)) from exc
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: Path) -> None:
    """Make an empty file for the user alone, if there is none: programs hold prompts and examples.

    An existing file must not be opened here: closing it would drop the locks that another connection of this
    process has on it.
    """
    try:
        # Where a link leads to: a link alone is taken for an existing file.
        os.close(os.open(os.path.realpath(path), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if application == 0 and version == 0 and tables == 0:
        return
    if application != APPLICATION_ID:
        raise _refusal(path, "is a database of something else; give the path of a new file")
    if version > SCHEMA_VERSION:
        raise _refusal(
            path,
            f"was made by a newer version of dspex-pool: its schema is {version}, this one knows "
            f"{SCHEMA_VERSION}; update dspex-pool or give the path of a new file",
        )


def _take(connection: sqlite3.Connection) -> None:
    """Lock the file, put it into the mode that survives a kill, and make the tables that are missing."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: acknowledged data survives the failure of the machine, not only that of the process.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("BEGIN EXCLUSIVE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute("COMMIT")


def _refuse_damaged(connection: sqlite3.Connection, path: Path) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise _refusal(path, f"is damaged: {verdict}; restore it from a copy or give the path of a new file")


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def is_in_use(exc: BaseException | None) -> bool:
    """Tell whether an error says that somebody else has the file open."""
    code = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _explain(exc: sqlite3.Error) -> str:
    if is_in_use(exc):
        return "is in use by another pool or process; a session store belongs to one pool at a time"
    if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
        return "is no SQLite database; give the path of a new file"
    return f"cannot be used: {exc}"


def _refusal(path: Path, problem: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"session_store = 'sqlite:{path}' is refused: the file {problem}",
        key="session_store",
        value=f"sqlite:{path}",
        allowed="a file for this pool alone, in a folder that can be written",
    )
