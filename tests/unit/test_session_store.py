"""The store in memory keeps the contract of session stores, and the setting chooses the kind."""

from __future__ import annotations

from typing import cast

import pytest

from dspex_pool.errors import SessionStoreError
from dspex_pool.session_store import MemorySessionStore, SessionStore, open_session_store
from dspex_pool.session_store.encoding import ProgramRow, SessionRow, decode_session
from dspex_testkit.contracts.session_store import SessionStoreContract, make_session
from tests.cases import case

pytestmark = pytest.mark.fast


@pytest.mark.trio
class TestMemorySessionStore(SessionStoreContract):
    """The contract, on the store without a file."""

    async def make_store(self) -> SessionStore:
        return MemorySessionStore()


@pytest.mark.trio
async def test_setting_memory_opens_a_store_of_its_own() -> None:
    """Two pools with the same setting share no session."""
    one, other = await open_session_store("memory"), await open_session_store("memory")
    await one.put_session(make_session())
    assert await other.load_all() == []


def test_damaged_row_is_named_by_its_session() -> None:
    """What cannot be read is told with the session that it belongs to.

    A text where a number belongs was a TypeError of whoever came to compare it, without a name.
    """
    cases: dict[str, tuple[SessionRow, list[ProgramRow]]] = {
        "broken": (SessionRow("a", 1.0, 1.0, "{"), []),
        "no-object": (SessionRow("a", 1.0, 1.0, "[]"), []),
        "no-definition": (SessionRow("a", 1.0, 1.0, None), [ProgramRow("p", "null", None, 1, 1.0, 0, None)]),
        "too-deep": (
            SessionRow("a", 1.0, 1.0, None),
            [ProgramRow("p", "{}", "[" * 100_000, 1, 1.0, 0, None)],
        ),
        "no-number": (SessionRow("a", 1.0, cast("float", "yesterday"), None), []),
        "no-count": (
            SessionRow("a", 1.0, 1.0, None),
            [ProgramRow("p", "{}", None, 1, 1.0, cast("int", "many"), None)],
        ),
    }
    for name, (session, programs) in cases.items():
        with case(name):
            with pytest.raises(SessionStoreError, match="session 'a' is damaged") as caught:
                decode_session(session, programs)
            assert caught.value.session_id == "a"
