"""The part of the adapter contract about sessions and their language models."""

from __future__ import annotations

from typing import Any

from dspex_pool.adapters.base import ANONYMOUS
from dspex_pool.errors import InvalidArgumentError, ProgramNotFoundError
from dspex_testkit.contracts.adapter_base import INPUTS, MODEL, SIGNATURE, AdapterPromises, refused

__all__ = ["SessionPromises"]


class SessionPromises(AdapterPromises):
    """Promises about what belongs to a session."""

    async def test_session_adapter_speaks_for_its_session(self) -> None:
        """The session's id can be read back."""
        async with self.session() as adapter:
            assert adapter.session_adapter("tenant 7").session_id == "tenant 7"

    async def test_sessions_do_not_see_each_other(self) -> None:
        """The same id in two sessions is two programs."""
        async with self.program() as mine:
            other = await self.begin(mine)
            assert (await other.list_programs())["total_count"] == 0
            with refused(ProgramNotFoundError, "p"):
                await other.execute_program("p", INPUTS)
            await other.create_program("p", SIGNATURE, program_type="chain_of_thought")
            await other.delete_program("p")
            assert (await mine.list_programs())["total_count"] == 1

    async def test_cleanup_forgets_one_session_only(self) -> None:
        """Cleaning says what it removed, and can be repeated."""
        async with self.program() as mine:
            other = await self.begin(mine)
            await other.create_program("theirs", SIGNATURE)
            cleaned = await mine.cleanup_session()
            assert (cleaned["status"], cleaned["programs_removed"]) == ("cleaned", 1)
            assert (await mine.list_programs())["total_count"] == 0
            assert (await other.list_programs())["total_count"] == 1
            assert (await mine.cleanup_session())["programs_removed"] == 0

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

    async def test_setting_of_the_model_that_is_unknown_is_named(self) -> None:
        """A slip of the pen is not ignored: it would run, and be paid for, without what was asked for."""
        async with self.session() as adapter:
            for speaker in (adapter, adapter.session_adapter(ANONYMOUS)):
                with refused(InvalidArgumentError, "'temprature'", "temperature", "max_tokens"):
                    await speaker.configure_lm(**MODEL, temprature=0.5)

    async def test_model_of_the_anonymous_adapter_serves_all_sessions(self) -> None:
        """A session without a language model of its own uses the one that was set for everybody."""
        async with self.session() as adapter:
            await adapter.session_adapter(ANONYMOUS).configure_lm(**MODEL)
            plain = adapter.session_adapter(f"{adapter.session_id}-plain")
            await plain.create_program("p", SIGNATURE)
            assert "Paris" in (await plain.execute_program("p", INPUTS))["outputs"]["answer"]

    async def test_refused_model_leaves_the_one_before(self) -> None:
        """A setting that cannot be used changes nothing."""
        async with self.program() as adapter:
            with refused(InvalidArgumentError, "NO_SUCH_KEY"):
                await adapter.configure_lm(model="openai/x", api_key_env="NO_SUCH_KEY")
            assert "Paris" in (await adapter.execute_program("p", INPUTS))["outputs"]["answer"]
