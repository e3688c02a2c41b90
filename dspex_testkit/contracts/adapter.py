"""The one contract of all adapters: Mock, BridgeMock, PythonPort and PythonPool keep the same promises.

A test module runs it by a class of its own::

    @pytest.mark.trio
    class TestMock(AdapterContract):
        @contextlib.asynccontextmanager
        async def open_adapter(self):
            yield Mock()

Where opening is dear, ``keep_all(adapter)`` runs every promise on one adapter, each in a session of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import trio

from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from dspex_pool.adapters.base import Adapter

__all__ = ["AdapterContract"]

SIGNATURE = "context, question -> answer"
INPUTS = {"context": "Paris is the capital of France.", "question": "What is the capital of France?"}
TYPED_SIGNATURE = {
    "name": "Capital",
    "description": "Find the capital.",
    "inputs": [{"name": "context", "type": "str"}, {"name": "question", "type": "str"}],
    "outputs": [{"name": "answer", "type": "str", "description": "the sentence that answers"}],
}
#: The embedded model: honest, free and offline.
MODEL: dict[str, Any] = {"model": "dspex/extractive", "engine": "extractive"}
BAD_SIGNATURES = (
    "no arrow",
    "question ->",
    "-> ",
    "a -> b -> c",
    "question, question -> answer",
    "a -> b: nonsense",
)


@contextlib.contextmanager
def refused(kind: type[Exception], *words: str) -> Iterator[None]:
    """Check that the block raises ``kind`` and that its message holds all ``words``."""
    try:
        yield
    except kind as error:
        message = str(error)
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
    missing = [word for word in words if word not in message]
    assert not missing, f"{message!r} does not name {missing}"


class AdapterContract(ABC):
    """The promises. A subclass gives ``open_adapter``."""

    _shared: Adapter | None = None
    _numbers = itertools.count()

    @abstractmethod
    def open_adapter(self) -> AbstractAsyncContextManager[Adapter]:
        """Open the adapter under test, and close it when the block is left."""

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Adapter]:
        """Give an adapter for a session that nobody used before."""
        if self._shared is not None:
            yield await self._begin(self._shared)
            return
        async with self.open_adapter() as adapter:
            yield await self._begin(adapter)

    async def _begin(self, adapter: Adapter) -> Adapter:
        """Return the adapter of a new session that has a language model."""
        session = adapter.session_adapter(f"contract-{next(self._numbers)}")
        await session.configure_lm(**MODEL)
        return session

    @contextlib.asynccontextmanager
    async def program(self, program_id: str = "p") -> AsyncIterator[Adapter]:
        """Give an adapter whose new session has one program."""
        async with self.session() as adapter:
            await adapter.create_program(program_id, SIGNATURE)
            yield adapter

    async def keep_all(self, adapter: Adapter) -> None:
        """Run every promise on ``adapter``.

        Raises:
            ExceptionGroup: Of all promises that were broken, each with its name as a note.
        """
        self._shared = adapter
        broken = []
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            try:
                await getattr(self, name)()
            except Exception as error:
                error.add_note(f"promise: {name}")
                broken.append(error)
        if broken:
            raise ExceptionGroup("broken promises", broken)

    # --- signs of life -------------------------------------------------------------------------------

    async def test_ping_tells_that_the_worker_is_well(self) -> None:
        """A ping says ok, and how long the worker has been up."""
        async with self.session() as adapter:
            pong = await adapter.ping()
            assert pong["status"] == "ok"
            assert pong["uptime"] >= 0

    async def test_health_check_is_true_while_the_worker_answers(self) -> None:
        """Health is a plain yes."""
        async with self.session() as adapter:
            assert await adapter.health_check() is True

    async def test_stats_are_counters(self) -> None:
        """Programs, commands, errors and the uptime are numbers, none negative."""
        async with self.program() as adapter:
            stats = await adapter.get_stats()
            for name in ("programs_count", "command_count", "error_count", "uptime"):
                assert stats[name] >= 0, name

    # --- programs ------------------------------------------------------------------------------------

    async def test_created_program_is_described_in_the_answer(self) -> None:
        """Creating says what was created, as a predict module by default."""
        async with self.session() as adapter:
            created = await adapter.create_program("p", SIGNATURE)
            assert created["program_id"] == "p"
            assert created["status"] == "created"
            assert created["program_type"] == "predict"

    async def test_execution_gives_the_outputs_by_field(self) -> None:
        """The answer has the signature's outputs and the time that it took."""
        async with self.program() as adapter:
            result = await adapter.execute_program("p", INPUTS)
            assert result["program_id"] == "p"
            assert "Paris" in result["outputs"]["answer"]
            assert result["execution_time"] >= 0

    async def test_typed_signature_works_like_its_string(self) -> None:
        """A signature may be an object of fields with types and descriptions."""
        async with self.session() as adapter:
            await adapter.create_program("typed", TYPED_SIGNATURE)
            result = await adapter.execute_program("typed", INPUTS)
            assert "Paris" in result["outputs"]["answer"]

    async def test_chain_of_thought_adds_its_reasoning(self) -> None:
        """The module kind decides what comes beside the signature's outputs."""
        async with self.session() as adapter:
            await adapter.create_program("p", SIGNATURE, program_type="chain_of_thought")
            outputs = (await adapter.execute_program("p", INPUTS))["outputs"]
            assert {"answer", "reasoning"} <= outputs.keys()

    async def test_executions_are_counted(self) -> None:
        """A program knows how often and when it ran."""
        async with self.program() as adapter:
            before = await adapter.get_program_info("p")
            for _ in range(2):
                await adapter.execute_program("p", INPUTS)
            after = await adapter.get_program_info("p")
            assert (before["execution_count"], before["last_executed"]) == (0, None)
            assert after["execution_count"] == 2
            assert after["last_executed"] >= after["created_at"]

    async def test_program_info_shows_the_signature_as_it_was_given(self) -> None:
        """What was asked for can be read back."""
        async with self.program() as adapter:
            info = await adapter.get_program_info("p")
            assert info["program_id"] == "p"
            assert info["signature"] == SIGNATURE

    async def test_list_shows_every_program_of_the_session(self) -> None:
        """All programs, with their kinds and counts, and no others."""
        async with self.program("one") as adapter:
            await adapter.create_program("two", SIGNATURE, program_type="chain_of_thought")
            await adapter.execute_program("two", INPUTS)
            listed = await adapter.list_programs()
            shown = {
                entry["id"]: (entry["program_type"], entry["execution_count"]) for entry in listed["programs"]
            }
            assert shown == {"one": ("predict", 0), "two": ("chain_of_thought", 1)}
            assert listed["total_count"] == 2

    async def test_deleted_program_is_gone_and_its_id_is_free(self) -> None:
        """Deleting frees the id."""
        async with self.program() as adapter:
            assert (await adapter.delete_program("p"))["status"] == "deleted"
            with refused(ProgramNotFoundError, "p"):
                await adapter.execute_program("p", INPUTS)
            assert (await adapter.list_programs())["total_count"] == 0
            await adapter.create_program("p", SIGNATURE)

    async def test_second_program_of_an_id_is_refused(self) -> None:
        """An id is taken once; the program that has it stays as it was."""
        async with self.program("mine") as adapter:
            with refused(ProgramExistsError, "mine"):
                await adapter.create_program("mine", "a -> b")
            assert (await adapter.get_program_info("mine"))["signature"] == SIGNATURE

    async def test_unknown_program_is_named_by_every_command(self) -> None:
        """Execute, info, delete and dump say which program is missing."""
        async with self.session() as adapter:
            with refused(ProgramNotFoundError, "ghost"):
                await adapter.execute_program("ghost", INPUTS)
            with refused(ProgramNotFoundError, "ghost"):
                await adapter.get_program_info("ghost")
            with refused(ProgramNotFoundError, "ghost"):
                await adapter.delete_program("ghost")
            with refused(ProgramNotFoundError, "ghost"):
                await adapter.dump_program("ghost")

    async def test_any_text_may_be_an_id(self) -> None:
        """Ids are opaque: blanks, quotes, slashes and letters of any language."""
        async with self.session() as adapter:
            odd = 'ä b/../"c"\n東'
            await adapter.session_adapter(f"{adapter.session_id} {odd}").create_program(odd, SIGNATURE)
            await adapter.create_program(odd, SIGNATURE)
            assert [entry["id"] for entry in (await adapter.list_programs())["programs"]] == [odd]

    # --- wrong input ---------------------------------------------------------------------------------

    async def test_missing_input_is_named(self) -> None:
        """The error names the field that is missing."""
        async with self.program() as adapter:
            with refused(InvalidArgumentError, "question"):
                await adapter.execute_program("p", {"context": "x"})

    async def test_unknown_input_is_named(self) -> None:
        """The error names the field that the program does not have."""
        async with self.program() as adapter:
            with refused(InvalidArgumentError, "colour"):
                await adapter.execute_program("p", {**INPUTS, "colour": "red"})

    async def test_bad_signature_is_refused_and_creates_nothing(self) -> None:
        """Whatever is wrong with a signature, it is an argument's fault."""
        async with self.session() as adapter:
            for signature in BAD_SIGNATURES:
                with refused(InvalidArgumentError):
                    await adapter.create_program("p", signature)
            assert (await adapter.list_programs())["total_count"] == 0

    async def test_unknown_program_type_is_named(self) -> None:
        """A module kind that does not exist is refused by name."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "clairvoyance"):
                await adapter.create_program("p", SIGNATURE, program_type="clairvoyance")

    async def test_empty_program_id_is_refused(self) -> None:
        """A program needs a name."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "id"):
                await adapter.create_program("", SIGNATURE)

    async def test_numbers_that_json_cannot_carry_are_refused(self) -> None:
        """NaN and the infinities are refused with their place, and the next call works."""
        async with self.program() as adapter:
            for number in (math.nan, math.inf, -math.inf):
                with refused(InvalidArgumentError, "inputs.question"):
                    await adapter.execute_program("p", {**INPUTS, "question": number})
            await adapter.execute_program("p", INPUTS)

    async def test_values_that_json_does_not_have_are_refused(self) -> None:
        """An object, a set or bytes is an argument's fault, not a protocol error."""
        async with self.program() as adapter:
            for value in (object(), {1, 2}):
                with refused(InvalidArgumentError):
                    await adapter.execute_program("p", {**INPUTS, "question": value})

    async def test_refused_call_leaves_the_adapter_well(self) -> None:
        """After an error the same adapter serves on."""
        async with self.program() as adapter:
            with refused(InvalidArgumentError):
                await adapter.execute_program("p", {})
            assert "answer" in (await adapter.execute_program("p", INPUTS))["outputs"]

    # --- sessions ------------------------------------------------------------------------------------

    async def test_session_adapter_speaks_for_its_session(self) -> None:
        """The session's id can be read back."""
        async with self.session() as adapter:
            assert adapter.session_adapter("tenant 7").session_id == "tenant 7"

    async def test_sessions_do_not_see_each_other(self) -> None:
        """The same id in two sessions is two programs."""
        async with self.program() as mine:
            other = await self._begin(mine)
            assert (await other.list_programs())["total_count"] == 0
            with refused(ProgramNotFoundError, "p"):
                await other.execute_program("p", INPUTS)
            await other.create_program("p", SIGNATURE, program_type="chain_of_thought")
            await other.delete_program("p")
            assert (await mine.list_programs())["total_count"] == 1

    async def test_cleanup_forgets_one_session_only(self) -> None:
        """Cleaning says what it removed, and can be repeated."""
        async with self.program() as mine:
            other = await self._begin(mine)
            await other.create_program("theirs", SIGNATURE)
            cleaned = await mine.cleanup_session()
            assert (cleaned["status"], cleaned["programs_removed"]) == ("cleaned", 1)
            assert (await mine.list_programs())["total_count"] == 0
            assert (await other.list_programs())["total_count"] == 1
            assert (await mine.cleanup_session())["programs_removed"] == 0

    # --- programs as JSON ----------------------------------------------------------------------------

    async def test_dumped_program_can_be_loaded_elsewhere(self) -> None:
        """A dump is enough to have the program in another session."""
        async with self.program() as mine:
            dump = await mine.dump_program("p")
            other = await self._begin(mine)
            loaded = await other.load_program("copy", dump["definition"], dump["state"])
            assert (loaded["program_id"], loaded["status"]) == ("copy", "loaded")
            assert "Paris" in (await other.execute_program("copy", INPUTS))["outputs"]["answer"]

    async def test_load_overwrites_the_program_of_that_id(self) -> None:
        """Loading is not creating: the id may be taken."""
        async with self.program("old") as adapter:
            await adapter.create_program("new", SIGNATURE, program_type="chain_of_thought")
            await adapter.load_program("old", (await adapter.dump_program("new"))["definition"])
            assert "reasoning" in (await adapter.execute_program("old", INPUTS))["outputs"]

    async def test_load_refuses_a_bad_definition(self) -> None:
        """A definition without a usable signature creates nothing."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError):
                await adapter.load_program("p", {"signature": "no arrow", "program_type": "predict"})
            assert (await adapter.list_programs())["total_count"] == 0

    # --- language models -----------------------------------------------------------------------------

    async def test_configured_model_is_told_back_without_its_key(self) -> None:
        """A key is never sent back, wherever it came from."""
        async with self.session() as adapter:
            settings: dict[str, Any] = {
                "model": "dspex/extractive",
                "engine": "extractive",
                "api_key": "sk-xyz",
            }
            configured = await adapter.configure_lm(**settings)
            assert (configured["status"], configured["model"]) == ("configured", "dspex/extractive")
            assert "sk-xyz" not in repr(configured)

    async def test_model_without_a_name_is_refused(self) -> None:
        """The error names the setting."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "model"):
                await adapter.configure_lm(temperature=0.5)

    # --- callers -------------------------------------------------------------------------------------

    async def test_concurrent_callers_get_their_own_answers(self) -> None:
        """No caller reads another's answer."""
        answers: dict[int, str] = {}

        async def ask(adapter: Adapter, number: int) -> None:
            inputs = {
                "context": f"Box {number} holds {number * 7777}.",
                "question": f"What does box {number} hold?",
            }
            answers[number] = (await adapter.execute_program("p", inputs))["outputs"]["answer"]

        async with self.program() as adapter, trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(ask, adapter, number)
        assert [number for number, answer in answers.items() if str(number * 7777) not in answer] == []
        assert len(answers) == 8

    async def test_text_of_any_language_and_length_survives(self) -> None:
        """Unicode and a hundred thousand characters arrive and come back."""
        async with self.program() as adapter:
            context = "Zürich grüßt 東京 im Mai. " + "Nothing else. " * 8_000
            result = await adapter.execute_program("p", {"context": context, "question": "Wen grüßt Zürich?"})
            assert "Zürich grüßt 東京" in result["outputs"]["answer"]

    async def test_caller_that_leaves_does_no_harm_to_the_next(self) -> None:
        """A cancelled call leaves an adapter that answers."""
        async with self.program() as adapter:
            with trio.CancelScope() as scope:
                scope.cancel()
                await adapter.execute_program("p", INPUTS)
            assert scope.cancelled_caught
            assert "Paris" in (await adapter.execute_program("p", INPUTS))["outputs"]["answer"]
