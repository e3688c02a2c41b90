"""What every session store must do, whatever it keeps the sessions in.

A test class inherits the contract and says how to make an empty store; pytest-trio runs the tests::

    @pytest.mark.trio
    class TestMyStore(SessionStoreContract):
        async def make_store(self) -> SessionStore:
            return MyStore()
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from dspex_pool.errors import InvalidArgumentError, SessionNotFoundError
from dspex_pool.session_store import ExecutionTotal, ProgramRecord, SessionRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dspex_pool.session_store import SessionStore

__all__ = ["SessionStoreContract", "make_program", "make_session"]


def make_program(program_id: str = "qa", **fields: Any) -> ProgramRecord:
    """Return a program with plausible fields, some of them replaced."""
    definition = {"signature": "question -> answer", "program_type": "predict"}
    values: dict[str, Any] = {"definition": definition, "created_at": 100.0, **fields}
    return ProgramRecord(id=program_id, **values)


def make_session(session_id: str = "tenant", *programs: ProgramRecord, **fields: Any) -> SessionRecord:
    """Return a session with plausible fields, some of them replaced."""
    values: dict[str, Any] = {"created_at": 50.0, "last_used": 60.0, **fields}
    return SessionRecord(id=session_id, programs={program.id: program for program in programs}, **values)


@contextmanager
def refused(kind: type[Exception]) -> Iterator[None]:
    """Expect ``kind`` to be raised. Written out, because only the plugin of the test kit imports pytest."""
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


class SessionStoreContract(ABC):
    """The promises of ``SessionStore``. Tests are coroutines, for pytest-trio."""

    @abstractmethod
    async def make_store(self) -> SessionStore:
        """Return a new, empty store."""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SessionStore]:
        """Make a store, and close it afterwards."""
        store = await self.make_store()
        try:
            yield store
        finally:
            await store.aclose()

    # --- sessions ---------------------------------------------------------------------------------

    async def test_store_is_empty_when_new(self) -> None:
        """A new store holds no session."""
        async with self.opened() as store:
            assert await store.load_all() == []

    async def test_session_is_returned_as_it_was_put(self) -> None:
        """Every field of a session and its programs comes back."""
        programs = [
            make_program("qa", state={"demos": [{"q": "é\0\U0001f600", "n": 2**53, "x": 0.1, "e": None}]}),
            make_program("other", revision=7, execution_count=3, last_executed=140.25, created_at=101.5),
        ]
        session = make_session("tenant", *programs, lm={"model": "m", "temperature": 0.0})
        async with self.opened() as store:
            await store.put_session(session)
            assert await store.load_all() == [session]

    async def test_sessions_are_returned_oldest_first(self) -> None:
        """Sessions and programs come in the order of their creation, then of their ids."""
        async with self.opened() as store:
            for session_id, created_at in [("c", 3.0), ("b", 1.0), ("a", 3.0)]:
                programs = [make_program("z", created_at=1.0), make_program("a", created_at=2.0)]
                await store.put_session(make_session(session_id, *programs, created_at=created_at))
            loaded = await store.load_all()
            assert [session.id for session in loaded] == ["b", "a", "c"]
            assert list(loaded[0].programs) == ["z", "a"]

    async def test_session_is_replaced_as_a_whole(self) -> None:
        """Putting a session again leaves nothing of the old one, programs included."""
        async with self.opened() as store:
            await store.put_session(make_session("tenant", make_program("old"), lm={"model": "old"}))
            await store.put_session(make_session("tenant", make_program("new"), last_used=70.0))
            (loaded,) = await store.load_all()
            assert loaded == make_session("tenant", make_program("new"), last_used=70.0)

    async def test_session_is_deleted_with_its_programs(self) -> None:
        """A deleted session is gone, and does not come back with the programs of its predecessor."""
        async with self.opened() as store:
            await store.put_session(make_session("tenant", make_program()))
            await store.put_session(make_session("other", make_program()))
            await store.delete_session("tenant")
            assert [session.id for session in await store.load_all()] == ["other"]
            await store.put_session(make_session("tenant"))
            assert {session.id: len(session.programs) for session in await store.load_all()} == {
                "other": 1,
                "tenant": 0,
            }

    async def test_session_ids_are_taken_literally(self) -> None:
        """No id has a meaning of its own, and ids that differ in anything differ."""
        ids = [
            "",
            " ",
            "a",
            "A",
            "a ",
            "'; DROP TABLE sessions; --",
            "%",
            "é",
            "e\u0301",
            "a\0b",
            "x" * 10_000,
        ]
        async with self.opened() as store:
            for session_id in ids:
                await store.put_session(make_session(session_id, make_program(session_id)))
            loaded = await store.load_all()
            assert {session.id for session in loaded} == set(ids)
            assert all(list(session.programs) == [session.id] for session in loaded)

    # --- programs ---------------------------------------------------------------------------------

    async def test_program_is_added_to_its_session(self) -> None:
        """A program is kept in the one session that it was given for."""
        async with self.opened() as store:
            for session_id in ("a", "b"):
                await store.put_session(make_session(session_id))
            await store.put_program("a", make_program())
            loaded = {session.id: session.programs for session in await store.load_all()}
            assert loaded == {"a": {"qa": make_program()}, "b": {}}

    async def test_program_is_replaced_when_put_again(self) -> None:
        """The last revision of a program is the one that is kept."""
        async with self.opened() as store:
            await store.put_session(make_session("a", make_program(state={"old": 1})))
            await store.put_program("a", make_program(revision=2))
            (loaded,) = await store.load_all()
            assert loaded.programs == {"qa": make_program(revision=2)}

    async def test_program_is_refused_when_its_session_is_not_kept(self) -> None:
        """A program without a session would be lost, so it is refused and nothing is kept."""
        async with self.opened() as store:
            with refused(SessionNotFoundError):
                await store.put_program("nobody", make_program())
            assert await store.load_all() == []

    async def test_program_is_deleted_alone(self) -> None:
        """Deleting a program touches neither its neighbours nor its namesakes in other sessions."""
        async with self.opened() as store:
            for session_id in ("a", "b"):
                await store.put_session(make_session(session_id, make_program("x"), make_program("y")))
            await store.delete_program("a", "x")
            loaded = {session.id: set(session.programs) for session in await store.load_all()}
            assert loaded == {"a": {"y"}, "b": {"x", "y"}}

    async def test_deleting_what_is_not_kept_does_nothing(self) -> None:
        """Deletion may be repeated, and of anything."""
        async with self.opened() as store:
            await store.put_session(make_session("a", make_program()))
            await store.delete_program("a", "unknown")
            await store.delete_program("unknown", "qa")
            await store.delete_session("unknown")
            assert await store.load_all() == [make_session("a", make_program())]

    # --- counters ---------------------------------------------------------------------------------

    async def test_uses_move_last_used_forward_only(self) -> None:
        """The latest use counts, in whatever order uses are told; unknown sessions are passed over."""
        async with self.opened() as store:
            for session_id in ("a", "b", "c"):
                await store.put_session(make_session(session_id, last_used=10.0))
            await store.touch([("a", 20.5), ("unknown", 99.0), ("b", 5.0), ("a", 15.0)])
            await store.touch([])
            loaded = {session.id: session.last_used for session in await store.load_all()}
            assert loaded == {"a": 20.5, "b": 10.0, "c": 10.0}

    async def test_executions_are_totals_that_never_fall(self) -> None:
        """Telling a total twice changes nothing, an older total neither; unknown programs are passed over."""
        async with self.opened() as store:
            await store.put_session(make_session("a", make_program("x"), make_program("y")))
            newer = ExecutionTotal("a", "x", 3, 130.0)
            await store.count_executions([newer, ExecutionTotal("a", "unknown", 1, 1.0)])
            await store.count_executions(
                [newer, ExecutionTotal("a", "x", 2, 120.0), ExecutionTotal("u", "x", 1, 1)]
            )
            (loaded,) = await store.load_all()
            assert loaded.programs == {
                "x": make_program("x", execution_count=3, last_executed=130.0),
                "y": make_program("y"),
            }

    # --- isolation and secrets --------------------------------------------------------------------

    async def test_store_keeps_a_copy(self) -> None:
        """What the caller does with a record afterwards, put or loaded, changes nothing that is kept."""
        session = make_session("a", make_program(), lm={"model": "m"})
        async with self.opened() as store:
            await store.put_session(session)
            for record in (session, (await store.load_all())[0]):
                record.last_used = 0.0
                record.programs["qa"].definition["signature"] = "changed"
                record.programs.clear()
                assert record.lm is not None
                record.lm["model"] = "changed"
            assert await store.load_all() == [make_session("a", make_program(), lm={"model": "m"})]

    async def test_secrets_of_the_model_are_not_kept(self) -> None:
        """Keys by value are left out at any depth; names of variables and plain settings stay."""
        lm = {
            "model": "m",
            "api_key": "sk-1",
            "API_KEY": "sk-2",
            "api_key_env": "OPENAI_API_KEY",
            "azure_ad_token": "t",
            "aws_secret_access_key": "s",
            "extra_headers": {"Authorization": "Bearer t"},
            "max_tokens": 9,
            "nested": [{"password": "p", "timeout": 1}],
        }
        async with self.opened() as store:
            await store.put_session(make_session("a", lm=lm))
            (loaded,) = await store.load_all()
            assert loaded.lm == {
                "model": "m",
                "api_key_env": "OPENAI_API_KEY",
                "max_tokens": 9,
                "nested": [{"timeout": 1}],
            }
            assert lm["api_key"] == "sk-1"

    async def test_secrets_in_programs_are_not_kept(self) -> None:
        """A key in a program's definition or saved model is left out; fields of its data stay."""
        state = {
            "lm": {"model": "m", "token": "t", "api_key": "k"},
            "demos": [{"token": "field", "Api_Key": "k"}],
        }
        async with self.opened() as store:
            await store.put_session(make_session("a"))
            await store.put_program("a", make_program(definition={"api_key": "k", "x": 1}, state=state))
            (loaded,) = await store.load_all()
            assert loaded.programs["qa"].definition == {"x": 1}
            assert loaded.programs["qa"].state == {"lm": {"model": "m"}, "demos": [{"token": "field"}]}

    # --- refusals ---------------------------------------------------------------------------------

    async def test_value_is_refused_when_json_would_change_it(self) -> None:
        """What would not come back as it is, is refused, and what was kept before stays."""
        cyclic: dict[str, Any] = {"api_key": "k"}
        cyclic["self"] = cyclic
        wrongs: list[Any] = [{"x": math.nan}, {"x": {1}}, {1: "x"}, {"x": "\ud800"}, cyclic]
        async with self.opened() as store:
            await store.put_session(make_session("a", make_program()))
            for wrong in wrongs:
                with refused(InvalidArgumentError):
                    await store.put_program("a", make_program(definition=wrong))
                with refused(InvalidArgumentError):
                    await store.put_program("a", make_program(state=wrong))
                with refused(InvalidArgumentError):
                    await store.put_session(make_session("a", lm=wrong))
            assert await store.load_all() == [make_session("a", make_program())]

    async def test_value_is_refused_when_a_secret_is_nested_too_deeply(self) -> None:
        """Nesting that the search for secrets cannot follow is refused, not kept unsearched."""
        deep: dict[str, Any] = {"api_key": "k"}
        for _ in range(3000):
            deep = {"x": deep}
        async with self.opened() as store:
            with refused(InvalidArgumentError):
                await store.put_session(make_session("a", make_program(definition=deep)))
            assert await store.load_all() == []

    async def test_id_is_refused_when_it_is_no_text(self) -> None:
        """An id that has no form in UTF-8 is refused."""
        async with self.opened() as store:
            with refused(InvalidArgumentError):
                await store.put_session(make_session("\ud800"))
            await store.put_session(make_session("a"))
            with refused(InvalidArgumentError):
                await store.put_program("a", make_program("\ud800"))
            assert await store.load_all() == [make_session("a")]

    # --- order, cancellation, closing -------------------------------------------------------------

    async def test_changes_are_made_in_the_order_of_the_calls(self) -> None:
        """Of many changes to one program under way at once, the last asked for is kept."""
        async with self.opened() as store:
            await store.put_session(make_session("a"))
            # Trio starts the tasks of one batch in any order, so each waits for the one before to have called.
            async with trio.open_nursery() as nursery:
                for revision in range(1, 21):
                    nursery.start_soon(store.put_program, "a", make_program(revision=revision))
                    await trio.testing.wait_all_tasks_blocked(0)
            (loaded,) = await store.load_all()
            assert loaded.programs["qa"].revision == 20

    async def test_change_is_not_made_when_cancelled_before(self) -> None:
        """A call that is already cancelled changes nothing."""
        async with self.opened() as store:
            with trio.CancelScope() as scope:
                scope.cancel()
                await store.put_session(make_session("a"))
            assert scope.cancelled_caught
            assert await store.load_all() == []

    async def test_store_is_refused_when_it_is_closed(self) -> None:
        """After closing, every method says so."""
        store = await self.make_store()
        await store.aclose()
        calls: list[Callable[[], Awaitable[object]]] = [
            store.load_all,
            lambda: store.put_session(make_session()),
            lambda: store.put_program("a", make_program()),
            lambda: store.delete_program("a", "b"),
            lambda: store.delete_session("a"),
            lambda: store.touch([("a", 1.0)]),
            lambda: store.count_executions([ExecutionTotal("a", "b", 1, 1.0)]),
        ]
        for call in calls:
            with refused(trio.ClosedResourceError):
                await call()

    async def test_store_can_be_closed_again_and_while_cancelled(self) -> None:
        """Closing twice is closing once, and a cancellation does not keep it open."""
        store = await self.make_store()
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.aclose()
        await store.aclose()
        with refused(trio.ClosedResourceError):
            await store.load_all()
