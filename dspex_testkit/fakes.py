"""Fake data: a provider for Faker with what pools are asked about, and a Faker for one test.

Faker is imported when this module is; the plugin imports it when a test asks for fake data.
"""

from __future__ import annotations

import functools
from typing import Any

from faker import Faker
from faker.providers import BaseProvider

from dspex_testkit.nasty_strings import NASTY_STRINGS
from dspex_testkit.seeds import random_of

__all__ = ["DspexProvider", "faker_of"]

_COUNTRIES = ("Arvonia", "Belmark", "Cordalia", "Drusia", "Elvenland", "Fjordholm", "Gallimar", "Hestria")
_TOWNS = ("Aldport", "Brinmouth", "Castelmar", "Dunhaven", "Estwick", "Ferrowby", "Granholt", "Hollin")
_RIVERS = ("Ashwater", "Bellbrook", "Cray", "Deepburn", "Ellet", "Fenwater", "Greyling", "Hollow")
_INPUTS = ("question", "context", "document", "claim", "passage", "dialogue")
_OUTPUTS = ("answer", "summary", "label", "reason", "translation", "title")
_TYPES = ("str", "int", "float", "bool", "list[str]")
_TRADES = ("bakery", "bank", "clinic", "garage", "library", "museum", "school", "shipyard")


class DspexProvider(BaseProvider):
    """Sessions, tenants, questions, contexts, signatures and nasty strings: ``faker.add_provider(DspexProvider)``."""

    def tenant(self) -> str:
        """Return a name as a customer has, such as ``bakery-estwick-481``."""
        town = self.random_element(_TOWNS).lower()
        return f"{self.random_element(_TRADES)}-{town}-{self.random_int(100, 999)}"

    def session_id(self) -> str:
        """Return an id for a session; two hardly ever are the same."""
        return f"{self.tenant()}/{self.generator.random.getrandbits(48):012x}"

    def question_and_context(self) -> dict[str, str]:
        """Return ``question``, ``context`` and ``answer``, a sentence of the context."""
        count = self.random_int(3, 5)
        countries = self.random_elements(_COUNTRIES, length=count, unique=True)
        towns = self.random_elements(_TOWNS, length=count, unique=True)
        rivers = self.random_elements(_RIVERS, length=count, unique=True)
        asked = self.random_int(0, count - 1)
        capitals = [
            f"{town} is the capital of {country}." for town, country in zip(towns, countries, strict=True)
        ]
        shores = [f"The {river} flows through {town}." for river, town in zip(rivers, towns, strict=True)]
        return {
            "question": f"What is the capital of {countries[asked]}?",
            "context": " ".join(
                f"{capital} {shore}" for capital, shore in zip(capitals, shores, strict=True)
            ),
            "answer": capitals[asked],
        }

    def question(self) -> str:
        """Return a question about a country that there is not."""
        return self.question_and_context()["question"]

    def context(self) -> str:
        """Return a few sentences to answer questions from."""
        return self.question_and_context()["context"]

    def signature(self) -> str:
        """Return a signature as a string, such as ``question, context -> answer: int``."""
        fields = self.signature_fields()
        sides = [
            ", ".join(
                item["name"] if item["type"] == "str" else f"{item['name']}: {item['type']}"
                for item in fields[side]
            )
            for side in ("inputs", "outputs")
        ]
        return " -> ".join(sides)

    def signature_fields(self) -> dict[str, list[dict[str, str]]]:
        """Return a signature as JSON: ``inputs`` and ``outputs``, each field with ``name`` and ``type``."""
        return {"inputs": self._fields(_INPUTS), "outputs": self._fields(_OUTPUTS)}

    def _fields(self, names: tuple[str, ...]) -> list[dict[str, str]]:
        chosen = self.random_elements(names, length=self.random_int(1, 3), unique=True)
        return [{"name": name, "type": self.random_element(_TYPES)} for name in chosen]

    def nasty_string(self) -> str:
        """Return a text that has broken programs before, or several in one."""
        texts = list(NASTY_STRINGS.values())
        return "".join(self.random_elements(texts, length=self.random_element((1, 1, 1, 2, 3)), unique=True))

    def nasty_strings(self) -> list[str]:
        """Return all of them, each by itself, in a random order."""
        return list(
            self.random_elements(list(NASTY_STRINGS.values()), length=len(NASTY_STRINGS), unique=True)
        )


@functools.lru_cache(maxsize=1)
def _faker() -> Any:
    # One for all tests of the process: making one takes longer than a fast test may.
    faker = Faker("en_US")
    faker.add_provider(DspexProvider)
    return faker


def faker_of(seed: int, name: str) -> Any:
    """Return a Faker that gives what it gave to this name under this seed before, whoever used it meanwhile.

    There is one in a process, so the one that was returned before begins anew as well.
    """
    faker = _faker()
    faker.unique.clear()
    faker.seed_instance(random_of(seed, name).getrandbits(64))
    return faker
