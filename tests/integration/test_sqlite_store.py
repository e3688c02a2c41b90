"""The SQLite store keeps the contract, and what it acknowledged, through kills and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from dspex_pool.errors import InvalidArgumentError, InvalidConfigError, SessionStoreError
from dspex_pool.session_store import SessionStore, SqliteSessionStore, open_session_store
from dspex_pool.session_store.sqlite_file import APPLICATION_ID, SCHEMA_VERSION
from dspex_testkit.contracts.session_store import SessionStoreContract, make_program, make_session

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

#: A program that opens the store at argv[1], puts program after program, and says which are acknowledged.
WRITER = """
import sys, trio
from dspex_pool.session_store import SqliteSessionStore
from dspex_testkit.contracts.session_store import make_program, make_session

async def main():
    store = await SqliteSessionStore.open(sys.argv[1])
    await store.put_session(make_session("tenant"))
    for number in range(100_000):
        await store.put_program("tenant", make_program(f"p-{number}", state={"padding": "x" * 5_000}))
        print(number, flush=True)

trio.run(main)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store may be made."""
    return tmp_path / "sessions.db"


def kept(path: Path) -> list[str]:
    """Open the store at ``path`` and return the ids of its sessions."""

    async def load() -> list[str]:
        store = await SqliteSessionStore.open(path)
        sessions = await store.load_all()
        await store.aclose()
        return [session.id for session in sessions]

    return trio.run(load)


def make_file(path: Path, *session_ids: str) -> None:
    """Make a store at ``path`` with some sessions, and close it."""

    async def fill() -> None:
        store = await SqliteSessionStore.open(path)
        for session_id in session_ids:
            await store.put_session(make_session(session_id, make_program()))
        await store.aclose()

    trio.run(fill)


def change_file(path: Path, *statements: str) -> None:
    """Change the file of a store behind its back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def mark_of(path: Path) -> int:
    """Return the mark of the program that the file at ``path`` belongs to."""
    connection = sqlite3.connect(path)
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    connection.close()
    return int(mark)


def refusal_of(path: str | Path) -> InvalidConfigError:
    """Open the store at ``path``, which must be refused, and return the error."""
    with pytest.raises(InvalidConfigError) as caught:
        trio.run(SqliteSessionStore.open, path)
    error = caught.value
    assert error.key == "session_store"
    assert error.value == f"sqlite:{Path(path).absolute()}"
    assert str(path) in error.message
    return error


@pytest.mark.trio
class TestSqliteSessionStore(SessionStoreContract):
    """The contract, on a file."""

    @pytest.fixture(autouse=True)
    def _in_folder(self, path: Path) -> None:
        self.path = path

    async def make_store(self) -> SessionStore:
        return await SqliteSessionStore.open(self.path)


# --- what outlives the process -----------------------------------------------------------------------


def test_sessions_are_found_again_after_closing(path: Path) -> None:
    """A pool that starts again finds its sessions, and nothing but the one file is left in between."""
    make_file(path, "a", "b")
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    assert kept(path) == ["a", "b"]


def test_setting_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path in the setting may be relative or below the home folder; names that SQLite knows are files too."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))

    async def open_and_close(setting: str) -> Path:
        store = await open_session_store(setting)
        assert isinstance(store, SqliteSessionStore)
        await store.aclose()
        return store.path

    for setting, name in [
        ("sqlite:r.db", "r.db"),
        ("sqlite:~/h.db", "h.db"),
        ("sqlite::memory:", ":memory:"),
    ]:
        assert trio.run(open_and_close, setting) == path.parent / name
        assert (path.parent / name).is_file()


def test_file_is_for_its_owner_alone(path: Path) -> None:
    """Programs hold prompts and examples, so others may not read them; an existing file keeps its mode."""
    make_file(path, "a")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    assert kept(path) == ["a"]
    assert path.stat().st_mode & 0o777 == 0o640


def test_file_behind_a_link_is_for_its_owner_alone(path: Path) -> None:
    """A link that leads to no file yet was taken for one, and SQLite made the file as the user's mask says."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    make_file(link, "a")
    assert path.stat().st_mode & 0o777 == 0o600


def test_path_is_refused_when_its_links_lead_in_a_circle(path: Path) -> None:
    """As any path at which there can be no file."""
    path.symlink_to(path)
    with pytest.raises(InvalidConfigError, match="cannot be opened"):
        kept(path)


@pytest.mark.parametrize("acknowledgements", [1, 7, 40])
def test_acknowledged_changes_survive_a_kill(path: Path, acknowledgements: int) -> None:
    """Whatever was acknowledged before SIGKILL is there afterwards, whole, and the file is free again."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(acknowledgements)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().split()]

    async def load() -> set[str]:
        store = await SqliteSessionStore.open(path)
        (session,) = await store.load_all()
        await store.aclose()
        assert all(program.state == {"padding": "x" * 5_000} for program in session.programs.values())
        return set(session.programs)

    found = trio.run(load)
    assert found >= {f"p-{number}" for number in acknowledged}
    # At most the one change under way may be there without having been acknowledged.
    assert len(found) <= len(acknowledged) + 1


def test_change_is_whole_or_absent_when_it_fails(path: Path) -> None:
    """A change that fails in its middle leaves nothing behind, and the store serves on."""

    async def fail() -> None:
        store = await SqliteSessionStore.open(path)
        await store.put_session(make_session("a", make_program("old")))
        broken = make_session("a", make_program("new"), make_program("bad", created_at=float("nan")))
        with pytest.raises(SessionStoreError, match="nothing was changed") as caught:
            await store.put_session(broken)
        assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
        assert await store.load_all() == [make_session("a", make_program("old"))]
        await store.aclose()

    trio.run(fail)


def test_full_disk_is_told_and_survived(path: Path) -> None:
    """When there is no room, the change is refused with the reason, and smaller ones still work."""

    async def fill() -> None:
        store = await SqliteSessionStore.open(path)
        await store.put_session(make_session("a"))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(SessionStoreError, match="full"):
            await store.put_program("a", make_program(state={"padding": "x" * 100_000}))
        await store.put_program("a", make_program())
        assert await store.load_all() == [make_session("a", make_program())]
        await store.aclose()

    trio.run(fill)


def test_missing_thread_is_told_and_survived(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit on processes it was RuntimeError, which ended the housekeeping; the file stayed open."""

    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    async def put() -> None:
        store = await SqliteSessionStore.open(path)
        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", refuse)
            with pytest.raises(SessionStoreError, match="new thread"):
                await store.put_session(make_session("a"))
        await store.put_session(make_session("b"))
        with monkeypatch.context() as patch:
            patch.setattr(trio.to_thread, "run_sync", refuse)
            await store.aclose()

    trio.run(put)
    assert kept(path) == ["b"]


def test_number_is_refused_when_a_column_cannot_hold_it(path: Path) -> None:
    """A count beyond 64 bits, or an id that is no text, is refused by name and not by a stack trace."""

    async def put() -> None:
        store = await SqliteSessionStore.open(path)
        await store.put_session(make_session("a"))
        with pytest.raises(InvalidArgumentError, match="cannot be stored"):
            await store.put_program("a", make_program(revision=2**70))
        with pytest.raises(InvalidArgumentError, match="cannot be stored"):
            await store.delete_session("\ud800")
        await store.aclose()

    trio.run(put)


def test_damaged_row_is_told_when_loading(path: Path) -> None:
    """A row that somebody has broken is named, and the sessions beside it can still be used."""
    make_file(path, "a", "b")
    change_file(path, "UPDATE programs SET definition = '{' WHERE session_id = 'b'")

    async def load() -> list[str]:
        store = await SqliteSessionStore.open(path)
        with pytest.raises(SessionStoreError, match="session 'b' is damaged"):
            await store.load_all()
        await store.delete_session("b")
        sessions = await store.load_all()
        await store.aclose()
        return [session.id for session in sessions]

    assert trio.run(load) == ["a"]


# --- the loop goes on --------------------------------------------------------------------------------


@pytest.mark.trio
async def test_loop_goes_on_while_the_store_works(path: Path) -> None:
    """A statement that takes long holds up nobody but the store itself."""
    store = await SqliteSessionStore.open(path)
    began, release = trio.Event(), trio.Event()
    steps: list[str] = []

    def slow(connection: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(began.set)
        trio.from_thread.run(release.wait)
        steps.append("slow")

    async def load() -> None:
        await store.load_all()
        steps.append("load")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._run, slow)
            await began.wait()
            nursery.start_soon(load)
            await trio.testing.wait_all_tasks_blocked()
            steps.append("loop")
            release.set()
    await store.aclose()
    assert steps == ["loop", "slow", "load"]


@pytest.mark.trio
async def test_change_that_has_begun_is_made_when_cancelled(path: Path) -> None:
    """A cancellation in the middle of a change does not undo it; one that waits for its turn is given up."""
    store = await SqliteSessionStore.open(path)
    await store.put_session(make_session("a"))
    # A wait through trio would be cancelled with the task.
    began, release = trio.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(began.set)
        assert release.wait(10)
        connection.execute("UPDATE sessions SET last_used = 77.0")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._run, slow)
            await began.wait()
            nursery.start_soon(store.delete_session, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            release.set()
    (session,) = await store.load_all()
    await store.aclose()
    assert session.last_used == 77.0


# --- files that are refused --------------------------------------------------------------------------


@pytest.mark.trio
async def test_file_is_refused_while_another_store_has_it(path: Path) -> None:
    """A second pool on the same file is refused, the first does not notice, and closing frees the file."""
    first = await SqliteSessionStore.open(path)
    for _ in range(2):
        with pytest.raises(InvalidConfigError, match="in use by another pool"):
            await SqliteSessionStore.open(path)
        await first.put_session(make_session("a"))
    await first.aclose()
    second = await SqliteSessionStore.open(path)
    assert [session.id for session in await second.load_all()] == ["a"]
    await second.aclose()


def test_file_is_refused_while_another_process_has_it(path: Path) -> None:
    """The lock holds between processes too, and ends with the process that has it."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert "in use by another pool" in refusal_of(path).message
        child.kill()
    assert kept(path) == ["tenant"]


def test_lock_is_kept_when_a_second_store_was_refused(path: Path) -> None:
    """A refused attempt in the same process does not drop the lock that other processes respect."""

    async def check() -> None:
        store = await SqliteSessionStore.open(path)
        with pytest.raises(InvalidConfigError, match="in use"):
            await SqliteSessionStore.open(path)
        done = await trio.run_process(
            [sys.executable, "-c", WRITER, path], capture_stdout=True, capture_stderr=True, check=False
        )
        assert b"in use by another pool" in done.stderr
        await store.aclose()

    trio.run(check)


def test_file_is_refused_when_it_is_no_database(path: Path) -> None:
    """A file of something else is refused and left as it is."""
    content = b"these are my notes\n" * 100
    path.write_bytes(content)
    assert "is no SQLite database" in refusal_of(path).message
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE accounts (id INTEGER)",),
        ("CREATE TABLE sessions (id INTEGER)", f"PRAGMA user_version = {SCHEMA_VERSION}"),
        ("PRAGMA application_id = 1",),
        ("PRAGMA user_version = 7",),
    ],
    ids=["tables", "like-ours", "mark", "version"],
)
def test_file_is_refused_when_it_is_somebody_elses_database(path: Path, statements: tuple[str, ...]) -> None:
    """Another program's database is refused, and not a byte of it is changed."""
    change_file(path, *statements)
    content = path.read_bytes()
    assert "is a database of something else" in refusal_of(path).message
    assert path.read_bytes() == content


def test_file_is_refused_when_it_is_of_a_newer_version(path: Path) -> None:
    """A schema from the future is refused with both numbers, and works again with the version that knows it."""
    make_file(path, "a")
    change_file(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    message = refusal_of(path).message
    assert "newer version" in message
    assert f"its schema is {SCHEMA_VERSION + 1}, this one knows {SCHEMA_VERSION}" in message
    change_file(path, f"PRAGMA user_version = {SCHEMA_VERSION}")
    assert kept(path) == ["a"]


def test_empty_file_becomes_a_store(path: Path) -> None:
    """A file that was only just made, here or by a process that died at once, is not damaged."""
    path.touch()
    assert kept(path) == []
    assert mark_of(path) == APPLICATION_ID


@pytest.mark.parametrize("offset", [100, 4096])
def test_file_is_refused_when_it_is_damaged(path: Path, offset: int) -> None:
    """Pages that were overwritten are found at opening, not at the first unlucky read."""
    make_file(path, *(f"s-{number}" for number in range(200)))
    content = bytearray(path.read_bytes())
    content[offset : offset + 2000] = b"\xff" * 2000
    path.write_bytes(content)
    message = refusal_of(path).message
    assert "damaged" in message or "malformed" in message


def test_path_is_refused_when_it_names_no_home() -> None:
    """A home of nobody was an error of the standard library, and not of the setting."""
    error = refusal_of("~nobody-of-this-name/sessions.db")
    assert "home" in error.message
    assert "~nobody-of-this-name" in error.message


def test_path_is_refused_when_there_can_be_no_file(tmp_path: Path) -> None:
    """A folder that is missing, a folder in place of the file, and a file in place of the folder are told."""
    (tmp_path / "file").touch()
    assert "No such file" in refusal_of(tmp_path / "missing" / "s.db").message
    assert "unable to open" in refusal_of(tmp_path).message
    assert "Not a directory" in refusal_of(tmp_path / "file" / "s.db").message
    assert not (tmp_path / "missing").exists()


@pytest.fixture
def _unprivileged() -> Iterator[None]:
    """Be an ordinary user for the length of a test, because nothing is read-only for the superuser."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """Return a folder that everybody may read, below no folder that is private to the tests' user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_file(folder / "old.db", "a")
        (folder / "old.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


@pytest.mark.usefixtures("read_only_folder", "_unprivileged")
@pytest.mark.parametrize("name", ["old.db", "new.db"])
def test_file_is_refused_when_its_folder_is_read_only(read_only_folder: Path, name: str) -> None:
    """Where nothing can be written, neither an old nor a new store can be kept, and that is told at once."""
    message = refusal_of(read_only_folder / name).message
    assert "denied" in message or "readonly" in message or "unable to open" in message
