"""The part of the adapter contract about wrong input: it is refused, named, and does no harm."""

from __future__ import annotations

import math
from typing import Any

from dspex_pool.errors import InvalidArgumentError
from dspex_testkit.contracts.adapter_base import INPUTS, SIGNATURE, AdapterPromises, refused

__all__ = ["RefusalPromises"]

BAD_SIGNATURES = (
    "no arrow",
    "question ->",
    "-> ",
    "a -> b -> c",
    "question, question -> answer",
    "a -> b: nonsense",
)


class RefusalPromises(AdapterPromises):
    """Promises about arguments that cannot be used."""

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

    async def test_unknown_option_of_a_program_is_named(self) -> None:
        """A slip of the pen is not ignored, and creates nothing."""
        async with self.session() as adapter:
            misspelt: dict[str, Any] = {"max_iter": 3}
            with refused(InvalidArgumentError, "'max_iter'", "max_iters", "tools"):
                await adapter.create_program("p", SIGNATURE, **misspelt)
            assert (await adapter.list_programs())["total_count"] == 0

    async def test_unknown_key_of_a_signature_is_named(self) -> None:
        """DSPy's own words for them are others: the model was never shown such ``instructions`` and ``desc``."""
        fields = {"inputs": [{"name": "question"}], "outputs": [{"name": "answer"}]}
        described: dict[str, Any] = {**fields, "outputs": [{"name": "answer", "desc": "one word"}]}
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "'instructions'", "name, description, inputs, outputs"):
                await adapter.create_program("p", {**fields, "instructions": "Be brief."})
            with refused(InvalidArgumentError, "'desc'", "'answer'", "name, type, description"):
                await adapter.create_program("p", described)
            assert (await adapter.list_programs())["total_count"] == 0

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

    async def test_definition_that_json_cannot_carry_is_refused(self) -> None:
        """What is kept beyond the call is checked like what is only sent."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "definition.signature"):
                await adapter.load_program("p", {"signature": math.nan})
            with refused(InvalidArgumentError, "state.k"):
                await adapter.create_program("p", SIGNATURE, state={"k": math.inf})
            assert (await adapter.list_programs())["total_count"] == 0

    async def test_text_that_is_no_unicode_is_refused(self) -> None:
        """Half a surrogate pair cannot be sent, and is found before it is."""
        async with self.program() as adapter:
            with refused(InvalidArgumentError, "inputs.question"):
                await adapter.execute_program("p", {**INPUTS, "question": "\ud800"})

    async def test_factory_that_is_not_allowed_is_named(self) -> None:
        """Code is imported from the allow-list alone, and that is empty."""
        async with self.session() as adapter:
            with refused(InvalidArgumentError, "os:getcwd", "allow-list"):
                await adapter.create_program("p", factory="os:getcwd")

    async def test_session_id_that_is_none_is_refused(self) -> None:
        """An adapter is not made for a session that cannot be."""
        async with self.session() as adapter:
            for session_id in ("", "x" * 257, "x" * 10_000_000, "\ud800"):
                with refused(InvalidArgumentError, "session id"):
                    adapter.session_adapter(session_id)

    async def test_timeout_that_is_none_is_refused(self) -> None:
        """A negative time or no number is refused; an infinite one is no bound."""
        async with self.session() as adapter:
            for timeout in (-1.0, math.nan):
                with refused(InvalidArgumentError, "timeout"):
                    await adapter.ping(timeout=timeout)
            assert (await adapter.ping(timeout=math.inf))["status"] == "ok"
