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

from typing import TYPE_CHECKING

import trio

from dspex_pool.errors import InvalidArgumentError, ProgramExistsError, ProgramNotFoundError
from dspex_testkit.contracts.adapter_base import INPUTS, SIGNATURE, refused
from dspex_testkit.contracts.adapter_refusals import RefusalPromises
from dspex_testkit.contracts.adapter_sessions import SessionPromises

if TYPE_CHECKING:
    from dspex_pool.adapters.base import Adapter

__all__ = ["INPUTS", "SIGNATURE", "AdapterContract"]

TYPED_SIGNATURE = {
    "name": "Capital",
    "description": "Find the capital.",
    "inputs": [{"name": "context", "type": "str"}, {"name": "question", "type": "str"}],
    "outputs": [{"name": "answer", "type": "str", "description": "the sentence that answers"}],
}


class AdapterContract(RefusalPromises, SessionPromises):
    """The promises. A subclass gives ``open_adapter``."""

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

    # --- programs as JSON ----------------------------------------------------------------------------

    async def test_dumped_program_can_be_loaded_elsewhere(self) -> None:
        """A dump is enough to have the program in another session."""
        async with self.program() as mine:
            dump = await mine.dump_program("p")
            other = await self.begin(mine)
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

    async def test_overwritten_program_is_counted_anew(self) -> None:
        """What is loaded over a program has not run yet."""
        async with self.program() as adapter:
            await adapter.execute_program("p", INPUTS)
            await adapter.load_program("p", (await adapter.dump_program("p"))["definition"])
            info = await adapter.get_program_info("p")
            assert (info["execution_count"], info["last_executed"]) == (0, None)

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
